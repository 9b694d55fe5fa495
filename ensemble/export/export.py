"""`ens export`: a blend of a run with its networks as one file, or a cascade as a folder of files, which needs neither
the run nor PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ensemble import __version__
from ensemble.blend import Blend, check_sources, read_result
from ensemble.blend.result import read_scores
from ensemble.blend.sources import source
from ensemble.config import load_run_config
from ensemble.data.folds import fold_count
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export import parity
from ensemble.export.bfloat16 import require_bfloat16, try_bfloat16
from ensemble.export.cascade import cascade_artifact, read_cascade_scores, require_own_folder
from ensemble.export.ensemble_module import EnsembleModule, outputs_of
from ensemble.export.formats import artifact, require_format, require_own
from ensemble.export.networks import load_exact
from ensemble.exported.cascade_description import CASCADE_JSON
from ensemble.exported.description import FORMAT, Description, ExportedMember, ExportedScore, Parity
from ensemble.files.atomic import replacing, replacing_folder
from ensemble.inference.member import LoadedMember
from ensemble.inference.to_onnx import Graphs
from ensemble.plural import pluralize
from ensemble.run import Run
from ensemble.run.outputs import inputs_of, require_place
from ensemble.tta.apply import blend_networks, find_blend
from ensemble.tta.oof import run_samples


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and where to.

    run: a run directory
    output: the file to write; of a cascade, the folder
    blend_name: None for the run's only blend
    networks: which of the members' networks: "folds", "soup" or "refit"
    format: "onnx" or "pt2"
    dtype: "float32", or "bfloat16" to let OpenVINO compute in it if that keeps the predictions
    """

    run: Run
    output: Path
    blend_name: str | None = None
    networks: str = "folds"
    format: str = "onnx"
    dtype: str = "float32"


@dataclass(frozen=True)
class Exported:
    """What `export` has written.

    output: the file, or the folder
    bytes: its size
    description: what it says of itself
    """

    output: Path
    bytes: int
    description: Description


def export(request: ExportRequest, events: Events) -> Exported:
    """Write a blend with its networks as one file, or a cascade as a folder, after it has given the run's own
    probabilities on images of the run.

    Raises UserError for what can't be exported, naming the member and what to do, and RunFailure if the probabilities
    are not the run's.
    """
    run, output = request.run, request.output
    require_format(request.format)
    name, blend = find_blend(run, request.blend_name, None)
    _require_exportable(run, name, blend)
    check_sources(run, name)
    if blend.stages:
        _require_cascade_options(name, request)
        require_own_folder(output)
        require_place(output / CASCADE_JSON if output.is_dir() else output, inputs_of(run))
    else:
        if request.dtype == "bfloat16":
            require_bfloat16(request.format, request.networks, blend)
        require_place(output, inputs_of(run))
        require_own(output)
    networks = blend_networks(run, blend, blend.trained, request.networks, fold_count(run))
    samples = run_samples(load_run_config(run.config_toml), run)
    loaded = load_exact(networks, len(blend.classes), events)
    events.message(f"{name}: {_counts(blend, loaded)}")
    graphs: Graphs = {}
    if blend.stages:
        made = cascade_artifact(name, blend, loaded, read_cascade_scores(run, name), graphs, events)
    else:
        made = artifact(request.format, EnsembleModule(blend, loaded), len(blend.classes), graphs, events)
    squares = parity.squares_of(parity.some_files(samples.paths), made.inputs)
    want = parity.run_probabilities(blend, loaded, squares, made.inputs, events)
    compared = parity.compare(blend, want, made, squares, events)
    description = _description(request, name, blend, loaded, made.inputs, compared)
    if request.dtype == "bfloat16":
        tried = try_bfloat16(run, blend, loaded, graphs, events)
        events.message(tried.line())
        description = replace(description, dtype="bfloat16" if tried.is_kept else "float32")
    with replacing_folder(output) if blend.stages else replacing(output) as temporary:
        made.save(temporary, description)
    files = [output] if output.is_file() else list(output.iterdir())
    return Exported(output, sum(path.stat().st_size for path in files), description)


def _require_exportable(run: Run, name: str, blend: Blend) -> None:
    """Raise UserError for a blend with a member that ens did not train, which has no network."""
    if not blend.external:
        return
    trained = ",".join(blend.trained)
    again = (
        f"fit one without it: ens blend {run} --members {trained} --name NAME" if trained else "choose another blend"
    )
    raise UserError(f"blend {name!r} holds {blend.external[0]}, which ens did not train and can't export; {again}")


def _require_cascade_options(name: str, request: ExportRequest) -> None:
    if request.format != "onnx":
        raise UserError(f"blend {name!r} is a cascade, which is exported as ONNX: leave --format {request.format} out")
    if request.dtype != "float32":
        raise UserError(
            f"blend {name!r} is a cascade, and --dtype {request.dtype} is tried for whole blends: leave it out"
        )


def _counts(blend: Blend, loaded: Sequence[LoadedMember]) -> str:
    counts = [len(member.eval_models) for member in loaded]
    passes = sum(count * len(views) for count, views in zip(counts, blend.views, strict=True))
    return (
        f"{pluralize(len(loaded), 'member')}, {pluralize(sum(counts), 'network')}, "
        f"{pluralize(passes, 'forward pass', 'forward passes')} for an image"
    )


def _description(
    request: ExportRequest,
    name: str,
    blend: Blend,
    loaded: Sequence[LoadedMember],
    inputs: dict[str, Decoding],
    compared: Parity,
) -> Description:
    scores, rows = _scores(request.run, name, blend)
    is_scored = request.networks == "folds"
    members = {
        member.name: ExportedMember(
            source(request.run, blend.sources, member.name).timm_name(), outputs_of(member), views
        )
        for member, views in zip(loaded, blend.views, strict=True)
    }
    return Description(
        format=FORMAT,
        classes=blend.classes,
        inputs=inputs,
        blend=name,
        method=blend.chain.method,
        members=members,
        networks=request.networks,
        scores=scores if is_scored else None,
        scores_of_folds=None if is_scored else scores,
        rows=rows,
        costs=None if blend.costs is None else tuple(map(tuple, blend.costs.tolist())),
        dtype="float32",
        parity=compared,
        versions={"ens": __version__} | {package: _version(package) for package in ("torch", "timm", "onnx")},
        data=request.run.read_provenance()["facts"].get("data fingerprint", ""),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _scores(run: Run, name: str, blend: Blend) -> tuple[dict[str, ExportedScore] | None, int]:
    """The cross-fitted scores of the blend, or of the cascade, and of how many rows they are; None, 0 without any."""
    if blend.stages:
        saved = read_cascade_scores(run, name)
        found = None if saved is None else (read_scores(run, name), saved["rows"])
    else:
        result = read_result(run, name)
        found = None if result is None else (result.blend, result.rows)
    if found is None:
        return None, 0
    scores, rows = found
    return {metric: ExportedScore(each.value, each.low, each.high) for metric, each in scores.items()}, rows


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # onnx, where the format does without
        return "none"
