"""The ways in which a command ends early; `cli.py` alone catches them all."""


class UserError(Exception):
    """Something the user can mend: one line that names the file, key or value and what to do. Exit status 2.

    >>> try:
    ...     ens.Run("runs/none").members
    ... except ens.UserError as error:
    ...     print(error)
    runs/none: not a run directory (it has no folds.csv); make one with: ens train-folds FILE
    """


class Damaged(UserError):
    """A file whose bytes are not those that ens wrote, as `damage.damaged` says it."""


class RunFailure(Exception):
    """Work that failed although the input was right (a NaN loss, a full disk): one line. Exit status 1."""
