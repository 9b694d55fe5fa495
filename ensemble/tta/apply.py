"""Which blend of a run is meant, and its probabilities from its members' logits. Never imports torch."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from ensemble.blend import Blend, list_blends, load_blend
from ensemble.blend.sources import source
from ensemble.data.logits import load_logits
from ensemble.data.samples import nfc
from ensemble.errors import UserError
from ensemble.run import Fold, Run
from ensemble.run.networks import networks_of

ExternalRows = Callable[[int, int], Sequence[np.ndarray]]  # of rows start to stop, float32 (1, n, C) per member


def find_blend(run: Run, name: str | None, views: Sequence[str] | None) -> tuple[str, Blend]:
    """The blend of this name, or the run's only one, and its name. Raises UserError if there is no such blend, or if
    `views` are not those that it was fitted on."""
    run.require()
    name = choose_blend(run, name)
    blend = load_blend(run, name)
    if views is None or set(views) == set(blend.all_views):
        return name, blend
    from ensemble.inference.views import expand

    if set(expand(views)) != set(blend.all_views):
        raise UserError(
            f"the blend was fitted on the views {','.join(blend.all_views)}, not {','.join(views)}: fit one on these "
            f"(ens blend {run} --views {','.join(views)}), or leave --views out"
        )
    return name, blend


def choose_blend(run: Run, name: str | None) -> str:
    """`name`, or the only blend there is. Raises UserError if there is none, or several to choose from."""
    if name is not None:
        return name
    names = list_blends(run)
    if not names:
        raise UserError(f"{run}: holds no blend; fit one with: ens blend {run}")
    if len(names) > 1:
        raise UserError(
            f"{run}: holds {len(names)} blends ({', '.join(names)}); choose one with --blend "
            f"(ens runs {run} compares them)"
        )
    return names[0]


def blend_networks(run: Run, blend: Blend, names: Iterable[str], kind: str, folds: int) -> dict[str, list[Fold]]:
    """The networks of these members of the run's blend, wherever they lie, as `networks_of`. folds: of the run. Raises
    UserError for soups or refits of a blend of several runs."""
    if kind == "folds":
        return {
            name: [source(run, blend.sources, name).fold(number) for number in range(blend.networks(name, folds))]
            for name in names
        }
    if blend.sources is not None:
        raise UserError(
            f"--networks {kind}: the blend is of several runs, which predict by the networks of their folds"
        )
    return networks_of(run, names, kind, folds)


def external_predictions(run: Run, blend_name: str, blend: Blend, ids: Sequence[str]) -> ExternalRows:
    """The stored test predictions of the external members for these N ids, by rows. Raises UserError that names a
    member without them, or an id that they lack."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for member in blend.external:
        path = run.external_file(blend_name, member)
        if not path.is_file():
            raise UserError(
                f"blend {blend_name!r} holds {member}, which ens did not train, without test predictions; fit it again "
                f"with: ens blend {run} --add {member}=OOF,TEST"
            )
        test = load_logits(path, mapped=True)
        composed = np.array([nfc(str(name)) for name in ids])
        found.append((test.values, test.find(composed, f"the test predictions of {member}")))
    return lambda start, stop: [np.asarray(values[:, rows[start:stop]]) for values, rows in found]


def blend_chunk(
    blend: Blend, logits: Sequence[np.ndarray], unreadable: Collection[int], external: Sequence[np.ndarray], count: int
) -> np.ndarray:
    """Probabilities float32 (n, C) of n = `count` images, NaN in the rows that could not be read.

    logits: float32 (K, V, n, C) of each member that ens trained
    unreadable: rows of these n
    external: float32 (1, n, C) of each external member
    """
    probabilities = np.full((count, len(blend.classes)), np.nan, dtype=np.float32)
    rows = np.setdiff1d(np.arange(count), list(unreadable))
    if len(rows):
        # An external member has one prediction, which is blended with each fold's. These members come last in a blend.
        all_logits = [*logits, *(values[None] for values in external)]
        probabilities[rows] = blend_folds(blend, [values[:, :, rows] for values in all_logits])
    return probabilities


def blend_folds(blend: Blend, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Probabilities (N, C) of the members' logits (K, V, N, C): blended per fold, then averaged over the folds; K may
    be 1 for those that have one prediction for all folds. Of several runs, whose K may differ, per set of folds."""
    sets = fold_sets(blend, [len(values) for values in logits])
    return np.asarray(sum(blend_sets(blend, logits, sets)) / len(sets))


def blend_sets(blend: Blend, logits: Sequence[np.ndarray], sets: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """The probabilities (N, C) of each of these sets of networks, see `fold_sets`. logits: as of `blend_folds`."""
    for folds in sets:
        yield blend.apply([values[fold] for values, fold in zip(logits, folds, strict=True)])


def fold_sets(blend: Blend, networks: Sequence[int]) -> list[tuple[int, ...]]:
    """The sets that the blend is applied to: in each one of the networks of each member, by its number. networks: how
    many there are of each member; a member of one network has it in all sets."""
    if blend.sources is None:
        sets = [(fold,) * len(networks) for fold in range(max(networks))]
    else:
        sets = list(zip(*(blend.sources.folds_of(name) for name in blend.members), strict=True))
    return [tuple(fold if of > 1 else 0 for fold, of in zip(folds, networks, strict=True)) for folds in sets]
