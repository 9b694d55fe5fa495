"""Which networks of a run's members predict: those of the folds, their soups, or refits on all rows."""

from collections.abc import Iterable

from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.run.fold import Fold
from ensemble.run.member import Member
from ensemble.run.run import Run
from ensemble.run.vouched import digest_in_done

KINDS = ("folds", "soup", "refit")
FROZEN = "(frozen)"  # in the place of a member's name: the run's frozen network, which gives features instead of logits
FROZEN_VIEWS = ("identity",)
UNSCORED = {
    "soup": "soups have no out-of-fold score of their own, since each has seen the rows of all folds; the run's scores "
    "are those of the fold networks",
    "refit": "refits have no out-of-fold score of their own, since each has seen all rows; the run's scores are those "
    "of the recipe",
}


def networks_of(run: Run, members: Iterable[str], kind: str, folds: int) -> dict[str, list[Fold]]:
    """For each member the K networks that predict; the k-th ones of all members go together.

    kind: "folds", for all `folds` of them, finished or not; "soup" (K = 1); or "refit" (K of them).
    Raises UserError that names a member without a soup or a refit, or with one that is not of its settings and folds as
    they are now; and if members have different numbers of refits.
    """
    names = list(members)
    if kind == "folds":
        return {name: [run.member(name).fold(number) for number in range(folds)] for name in names}
    if kind == "soup":
        return {name: [_soup(run.member(name), folds)] for name in names}
    found = {name: _refits(run.member(name)) for name in names}
    counts = {name: len(networks) for name, networks in found.items()}
    if len(set(counts.values())) > 1:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        raise UserError(
            f"{least} has {counts[least]} of the {counts[most]} refits that {most} has, and they predict together; go "
            f"on with: ens refit {run} --members {least} --seeds {counts[most]}"
        )
    return found


def fold_digests(member: Member, folds: int) -> list[str | None]:
    """Of the weights of its fold networks; None for those that nothing vouches for."""
    return [digest_in_done(member.fold(number).model_file) for number in range(folds)]


def _soup(member: Member, folds: int) -> Fold:
    soup, again = member.soup(), f"ens soup {member.run} --members {member.name}"
    if not soup.is_done():
        raise UserError(f"{member.path}: has no soup of its fold networks; make it with: {again}")
    if soup.read_done().get("of") != fold_digests(member, folds):
        raise UserError(f"{soup.path}: was made of other fold networks than {member.name} has now; again: {again}")
    return soup


def _refits(member: Member) -> list[Fold]:
    again = f"ens refit {member.run} --members {member.name}"
    refits = [refit for refit in member.refits() if refit.is_done()]
    if not refits:
        raise UserError(f"{member.path}: has no finished refit; train one with: {again}")
    settings = sealed.file_checksum(member.settings_json)
    for refit in refits:
        if refit.read_done().get("settings") not in (None, settings):
            raise UserError(
                f"{refit.path}: was trained with other settings than {member.name} has now; delete it, and: {again}"
            )
    return refits
