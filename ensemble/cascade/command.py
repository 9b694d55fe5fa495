"""`ens cascade`: a blend of a run as a cascade, saved in the run as a blend of its own name."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ensemble.blend import Blend, check_sources, list_blends, load_blend, methods
from ensemble.blend.oof import Oof, read_oof
from ensemble.blend.recipe import Recipe
from ensemble.blend.saved import require_name
from ensemble.cascade.find import find_cascade
from ensemble.cascade.order import Costs, restricted
from ensemble.cascade.policy import Limit
from ensemble.cascade.result import Cascade
from ensemble.data.folds import fold_count
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.run import Run

MAX_LOSS = 0.005  # nats


@dataclass(frozen=True)
class CascadeOptions:
    """What `ens cascade` is told.

    blend: the name of the blend that is made a cascade; None for the run's only one that is none.
    max_loss, max_ms: as in `Limit`; None both for MAX_LOSS.
    name: what to save it as; None for "<blend>-cascade".
    """

    blend: str | None = None
    max_loss: float | None = None
    max_ms: float | None = None
    name: str | None = None


def cascade_run(run: Run, options: CascadeOptions, events: Events) -> Cascade:
    """Make a cascade of one of the run's blends, and save it if it is cheaper than the blend.

    What members and views cost is measured on this machine. Raises UserError for a blend that can't be a cascade (see
    `_require_suitable`), a name that another blend has, and as `read_oof` and `find_cascade`.
    """
    run.require()
    if options.max_loss is not None and options.max_ms is not None:
        raise UserError("--max-loss and --max-ms: name one of the two; the other one is what is then made the best of")
    name, blend = _whole(run, options.blend)
    saved_as = options.name or f"{name}-cascade"
    require_name(saved_as)
    if run.blend_json(saved_as).is_file() and not _is_cascade(run, saved_as):
        raise UserError(f"{run}: {saved_as!r} is a blend that is no cascade; give the cascade another --name")
    check_sources(run, name)
    oof = read_oof(run, blend.all_views, blend.members)
    costs = _measured(run, oof, events)
    pairs = {(member, view) for member, views in blend.trained.items() for view in views}
    max_loss = MAX_LOSS if options.max_loss is None and options.max_ms is None else options.max_loss
    recipe = Recipe(blend.chain.method, blend.metric, calibration=blend.calibration)
    found, stages = find_cascade(restricted(oof, pairs), recipe, costs, Limit(max_loss, options.max_ms), events)
    optimistic = tuple(member for member in blend.members if run.member(member).is_optimistic())
    found = replace(found, blend=name, name=saved_as, networks=fold_count(run), optimistic=optimistic)
    if not stages:
        return found
    found = replace(found, path=run.blend_json(saved_as))
    replace(blend, stages=tuple(stages)).save(run, saved_as, _described(found))
    return found


def _whole(run: Run, name: str | None) -> tuple[str, Blend]:
    """The blend that is made a cascade. Raises UserError if there is none, or several to choose from."""
    if name is None:
        names = [each for each in list_blends(run) if not _is_cascade(run, each)]
        if not names:
            raise UserError(f"{run}: holds no blend; fit one with: ens blend {run} --method mean")
        if len(names) > 1:
            raise UserError(
                f"{run}: holds {len(names)} blends ({', '.join(names)}); choose one with --blend "
                f"(ens runs {run} compares them)"
            )
        name = names[0]
    blend = load_blend(run, name)
    _require_suitable(name, blend)
    return name, blend


def _require_suitable(name: str, blend: Blend) -> None:
    """Raise UserError for a blend that can't be a cascade, or not an honest one."""
    reason = None
    if blend.stages:
        reason = "is a cascade already; name the blend that it was made of"
    elif blend.sources is not None:
        reason = "is of several runs; a cascade is of one run's members"
    elif blend.external:
        reason = f"holds {blend.external[0]}, which ens did not train: its predictions cost nothing that could be saved"
    elif blend.costs is not None:
        reason = "decides by what mistakes cost, and a cascade by confidence, which says nothing about that"
    elif blend.chain.prior_shift is not None:
        reason = "is for other class shares than the rows have, so that its confidence can't be checked on them"
    elif blend.chain.metric_bias is not None:
        reason = f"is biased for {blend.metric}, so that its confidence is not the chance to be right"
    elif sum(map(len, blend.views)) < 2:
        reason = f"is of {blend.members[0]} under one view alone; a cascade needs at least two members or views"
    elif methods.is_slow(blend.chain.method):
        reason = f"is fitted by {blend.chain.method}, which takes too long to be fitted for each stage and fold"
    if reason is not None:
        raise UserError(f"blend {name!r} {reason}")


def _is_cascade(run: Run, name: str) -> bool:
    """Whether a saved blend is one; a blend that can't be read is none."""
    try:
        return bool(load_blend(run, name).stages)
    except UserError:
        return False


def _measured(run: Run, oof: Oof, events: Events) -> Costs:
    from ensemble.tta.search import costs, undisturbed_ms

    decoding, passes = costs(run, oof, events, undisturbed_ms)
    pairs: Sequence[tuple[str, str]] = [
        (member, view) for member, views in zip(oof.members, oof.views, strict=True) for view in views
    ]
    return Costs(dict(zip(pairs, passes.reshape(-1).tolist(), strict=True)), decoding)


def _described(found: Cascade) -> dict[str, object]:
    """As it is saved beside the blend."""
    return {**asdict(found), "path": None}
