"""Which blends can have a detector of unknown images."""

from ensemble.blend import Blend
from ensemble.errors import UserError
from ensemble.run import Run


def require_suitable(run: Run, name: str, blend: Blend) -> None:
    """Raise UserError for a blend that can't have a detector. External members don't count for it, since nothing is
    known of them but their predictions."""
    reason = None
    if blend.stages:
        reason = "is a cascade, which does not ask all members about every image; take the blend that it was made of"
    elif blend.sources is not None:
        reason = "is of several runs, whose networks have seen different rows; take a blend of one run"
    elif not blend.trained:
        reason = "has no member that ens trained, and so nothing that knows the training images"
    if reason is not None:
        raise UserError(f"unknown images: blend {name!r} {reason}")
    optimistic = [member for member in blend.trained if run.member(member).is_optimistic()]
    if optimistic:
        raise UserError(
            f'unknown images: {optimistic[0]} kept its best epochs (keep = "best"), which were chosen on the rows that '
            'give the threshold; train it with keep = "last"'
        )
