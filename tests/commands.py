"""`ens` in this process, for the tests of several rooms."""

import sys

from ensemble import cli


def ens(monkeypatch, capfd, *words):
    """Run `ens` with these words: its exit status, what it printed, and its error lines."""
    monkeypatch.setattr(sys, "argv", ["ens", *map(str, words)])
    status = 0
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code
    printed = capfd.readouterr()
    return status, printed.out, printed.err
