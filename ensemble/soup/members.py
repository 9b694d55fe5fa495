"""Which members can be averaged: finished ones, of one architecture and from one start."""

import difflib
from collections.abc import Sequence

from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Member, Run

SAME = ("timm", "start", "image_size", "decode_size", "interpolation", "mean", "std", "crop")  # of settings.json


def chosen_members(run: Run, names: Sequence[str] | None, folds: int, events: Events) -> list[Member]:
    """The finished members of these names, whose networks share a start. None: all that there are, saying which others
    are left out. Raises UserError that names the first one that is unknown or can't be averaged, or if none can."""
    there = run.member_names()
    for name in names or ():
        if name not in there:
            near = difflib.get_close_matches(name, there, n=3, cutoff=0.0)
            raise UserError(f"{run}: no member {name!r}; nearest: {', '.join(near) or 'there is none'}")
    found = []
    reasons = []
    for member in map(run.member, dict.fromkeys(names or there)):
        try:
            _require_finished(member, folds)
            require_one_start([member])
        except UserError as error:
            if names:
                raise
            reasons.append(str(error))
            continue
        found.append(member)
    if not found:
        raise UserError(reasons[0] if reasons else f"{run}: has no member to average")
    for line in reasons:
        events.message(f"left out: {line}")
    return found


def require_one_start(members: Sequence[Member]) -> None:
    """Raise UserError unless the networks of all these members have one architecture, one preprocessing and one start,
    without which equal places in their weights mean different things (Frankle et al., Linear mode connectivity and the
    lottery ticket hypothesis, ICML 2020)."""
    all_settings = [dict(member.read_settings()) for member in members]
    for member, settings in zip(members, all_settings, strict=True):
        start = settings.get("start")
        if start == "scratch":
            raise UserError(
                f"{member.name}: was trained from scratch, so that its networks share no start, and the average of "
                "their weights would predict nothing; soups need weights to start from"
            )
        if settings.get("head", "linear") != "linear":
            raise UserError(f"{member.name}: classifiers of the kind {settings['head']!r} have no average")
        if isinstance(start, list) and len(set(start)) > 1:
            raise UserError(f"{member.name}: each fold starts from other weights; a soup needs one start for all")
    for member, settings in zip(members, all_settings, strict=True):
        for key in SAME:
            before, now = all_settings[0].get(key), settings.get(key)
            if before != now:
                what = {"timm": "architectures", "start": "starts"}.get(key, f"values of {key}")
                raise UserError(
                    f"{members[0].name} and {member.name} have different {what} ({before} and {now}); only networks of "
                    "one architecture and from one start can be averaged"
                )


def _require_finished(member: Member, folds: int) -> None:
    lacking = [str(number) for number in range(folds) if not member.fold(number).is_done()]
    if lacking:
        again = f"train on with: ens train-folds {member.run.config_toml}"
        raise UserError(f"{member.name}: fold {', '.join(lacking)} is not finished; {again}")
