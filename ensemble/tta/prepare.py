"""What comes before the first image of a prediction is decoded: what is asked for, whether it can be had, which of the
logits are stored already, and the shards. Never imports torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble.blend import Blend, check_sources
from ensemble.blend.sources import other_runs, source
from ensemble.config import load_run_config
from ensemble.data.cache.shards import size
from ensemble.data.folds import fold_count
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.data.submission.wanted import images_wanted
from ensemble.data.submission.write import Layout
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.files.atomic import require_writable
from ensemble.machine import cores, device_type, threads_allowed
from ensemble.plural import pluralize
from ensemble.predictions import shards
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.predictions.shards import PredictionShard
from ensemble.run import Run
from ensemble.run.networks import UNSCORED
from ensemble.run.run import shards_dir
from ensemble.tta import chunks, stored_logits
from ensemble.tta.apply import blend_networks, external_predictions, find_blend
from ensemble.tta.certainty import certainty_columns, feature_count
from ensemble.tta.fill import PredictionPlan, plan_digest
from ensemble.tta.member_views import MemberView, frozen_view, member_views
from ensemble.tta.stored_logits import StoredLogits


@dataclass(frozen=True)
class PredictionRequest:
    """What to predict, and where to write it.

    run: a run directory
    images: a folder or a table
    output: the CSV to write
    blend_name: None for the run's only blend
    views: must be those that the blend was fitted on, as they are for None
    sample_submission: a CSV whose ids, order and header are followed; None for all images and plain columns
    form: "label", "index" or "probability"; None for the form of the sample
    on_bad: at an image that can't be read: "error" raises UserError that names it, "skip" leaves its prediction empty
    shard_rows: rows of a shard; None for as many as the memory is meant for
    stored_bytes: how many bytes of logits the run may store, of these and other images, so that another blend of them
        needs no network; 0 for none
    networks: which of the members' networks predict: "folds", "soup" or "refit"
    certainty: what to say of each image beside its class, in a table beside `output`; None for nothing
    """

    run: Run
    images: Path
    output: Path
    blend_name: str | None = None
    views: Sequence[str] | None = None
    sample_submission: Path | None = None
    form: str | None = None
    on_bad: str = "error"
    shard_rows: int | None = None
    stored_bytes: int = stored_logits.LIMIT
    networks: str = "folds"
    certainty: CertaintyRequest | None = None


@dataclass(frozen=True)
class PreparedPrediction:
    """A prediction of which nothing is missing but the work.

    blend_name: of the blend
    fitted: the checksum of the blend's description: another one after it is fitted again
    layout: of the submission
    ids: N, of the rows in their order
    plan: how they are predicted
    stored: which of their logits are stored
    may_store: whether those that are computed will be
    digest: of the plan, as `plan_digest` gives it
    parts: the shards of the rows
    saved: the file of predictions
    """

    blend_name: str
    fitted: str | None
    layout: Layout
    ids: list[str]
    plan: PredictionPlan
    stored: StoredLogits
    may_store: bool
    digest: str
    parts: list[PredictionShard]
    saved: Path

    @property
    def key(self) -> str:
        """A digest of all shards: of the plan, and of all rows with their images."""
        return hashlib.sha256("".join(part.path.name for part in self.parts).encode()).hexdigest()[:32]


def prepare(request: PredictionRequest, events: Events, device: str | None = None) -> PreparedPrediction:
    """Everything that comes before the first image is decoded. device: the type of the one that will predict; None for
    this machine's. Raises UserError for anything that doesn't fit."""
    run, images = request.run, request.images
    name, blend = find_blend(run, request.blend_name, request.views)
    fitted = sealed.file_checksum(run.blend_json(name))
    layout, ids, files = images_wanted(
        images, request.sample_submission, blend.classes, request.form, blend.costs, events
    )
    check_sources(run, name)
    external = external_predictions(run, name, blend, ids)
    images_name = images.stem if images.is_file() else images.resolve().name
    suffix = "" if request.networks == "folds" else f"+{request.networks}"  # "+" is in no blend's name
    saved = run.predictions_file(images_name, name + suffix)
    logits_dir = run.logits_dir(images_name)
    folds = fold_count(run)
    plan = PredictionPlan(
        run=run,
        blend=blend,
        files=files,
        external=external,
        preprocesses={
            member: load_preprocess(source(run, blend.sources, member).preprocess_json) for member in blend.trained
        },
        networks=blend_networks(run, blend, blend.trained, request.networks, folds),
        kind=request.networks,
        folds=folds,
        batch_size=load_run_config(run.config_toml).tta.batch_size,
        on_bad=request.on_bad,
        certainty=certainty_columns(run, name, blend, request.networks, request.certainty),
    )
    for line in (line for columns in plan.certainty for line in columns.notes):
        events.message(line)
    require_writable(saved)
    _warn_if_optimistic(plan, events)
    unscored = UNSCORED.get(plan.kind)
    if unscored is not None:
        events.message(unscored)
    device = device or device_type()
    stored = _find_stored(plan, logits_dir, device, events)
    may_store = stored.missing_bytes() > 0 and stored_logits.make_room(stored, request.stored_bytes)
    if stored.missing_bytes():
        events.message(_storing(stored, bool(blend.stages), may_store, request.stored_bytes))
    digest = plan_digest(run, name, stored.member_views, plan.certainty)
    shard_rows = request.shard_rows or _shard_rows(plan, device)
    parts = shards.divide(shards_dir(saved), digest, ids, plan.files, shard_rows, external)
    return PreparedPrediction(name, fitted, layout, ids, plan, stored, may_store, digest, parts, saved)


def network_count(run: Run, blend: Blend, folds: int) -> int:
    """How many networks are loaded for the blend's members: the folds of a linear probe share theirs. folds: of the
    run."""
    settings = {name: source(run, blend.sources, name).read_settings() for name in blend.trained}
    return sum(
        1 if of_member.get("strategy") == "probe" else blend.networks(name, folds)
        for name, of_member in settings.items()
    )


def _shard_rows(plan: PredictionPlan, device: str) -> int:
    first = plan.blend.stage_blends[0][0]  # of a cascade, the networks that all images are given to
    networks = sum(len(plan.networks[member]) for member in first.trained)
    if plan.kind == "folds":
        networks = network_count(plan.run, first, plan.folds)
    preprocesses, views = list(plan.preprocesses.values()), list(plan.blend.trained.values())
    return chunks.chunk_rows(preprocesses, networks, plan.batch_size, device, views)


def _warn_if_optimistic(plan: PredictionPlan, events: Events) -> None:
    sources = plan.blend.sources
    names = [name for name in plan.preprocesses if source(plan.run, sources, name).is_optimistic()]
    if names:
        events.message(
            f"the scores of {', '.join(names)}, and so the blend's, are optimistic: the best epochs were kept"
        )


def _find_stored(plan: PredictionPlan, logits_dir: Path, device: str, events: Events) -> StoredLogits:
    """Which of the plan's logits are stored. Tells how many images, members and views there are, and where networks
    will run."""
    views = _member_views(plan, device)
    in_all = pluralize(len(views), "view")
    if width := feature_count(plan.certainty):
        views += (frozen_view(plan.run, width, plan.batch_size, device),)
    stored = stored_logits.find(logits_dir, plan.files, views, len(plan.blend.classes), _other_stores(plan, logits_dir))
    images = pluralize(len(plan.files), "image")
    events.message(f"{images}, {_networks(plan)}, {in_all} in all; {_where(stored, device)}")
    if stored.damaged:
        events.message(f"{logits_dir}: removed damaged files ({stored.damaged}); their logits are computed again")
    return stored


def _member_views(plan: PredictionPlan, device: str) -> tuple[MemberView, ...]:
    """Each view of each of the blend's members that ens trained, under the member's name in the blend; the digests are
    those of its own run."""
    blend, found = plan.blend, []
    for name, views in blend.trained.items():
        member, folds = source(plan.run, blend.sources, name), blend.networks(name, plan.folds)
        named, batch = {member.name: views}, plan.batch_size
        of_run = member_views(member.run, named, blend.classes, folds, batch, device, plan.kind)
        found += [replace(each, member=name) for each in of_run]
    return tuple(found)


def _other_stores(plan: PredictionPlan, logits_dir: Path) -> list[Path]:
    """Where the other runs of the blend may have stored logits of these images."""
    return [run.logits_dir(logits_dir.name) for run in other_runs(plan.run, plan.blend.sources)]


def _networks(plan: PredictionPlan) -> str:
    members = pluralize(len(plan.preprocesses), "member")
    counts = [len(networks) for networks in plan.networks.values()]
    if plan.kind != "folds" and counts:
        return f"{members} x {pluralize(counts[0], plan.kind)}"
    if len(set(counts)) < 2:
        return f"{members} x {counts[0] if counts else plan.folds} folds"
    return f"{members} of {min(counts)} to {max(counts)} folds"


def _where(stored: StoredLogits, device: str) -> str:
    """Where networks will run, and on how many cores, or that none will."""
    missing = stored.file < 0
    if not missing.any() and missing.size:
        return "all their logits are stored already, so no network is run"
    stored_share = "" if missing.all() else f"; {1 - missing.mean():.0%} of their logits are stored already"
    threads = threads_allowed()
    if device == "cpu" and threads is not None and threads < cores():
        return f"on cpu, {threads} of {cores()} cores (OMP_NUM_THREADS={threads}){stored_share}"
    return f"on {device}{stored_share}"


def _storing(stored: StoredLogits, is_cascade: bool, may_store: bool, limit: int) -> str:
    """Whether what is computed will be stored, and where. Of a cascade it may be less than all that is missing."""
    new = ("at most " if is_cascade else "") + size(stored.missing_bytes())
    if may_store:
        return (
            f"their logits ({new}) are stored in {stored.folder}, so that another blend of these images runs no "
            "network; delete that folder to free the space"
        )
    return (
        f"their logits are not stored for other blends: they would take {new}, and the run may store {size(limit)} in "
        "all (--keep-gb sets that)"
    )
