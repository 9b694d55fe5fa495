"""`ens publish`: a folder that the Hugging Face Hub can show, with the exported model and its card."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.blend import BlendResult, read_result
from ensemble.blend.oof import read_rows
from ensemble.blend.sources import other_runs
from ensemble.config import load_run_config
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export.export import Exported, ExportRequest, export
from ensemble.files.atomic import write_text
from ensemble.publish.card import Published, model_card
from ensemble.report.blends import cross_fitted
from ensemble.report.provenance import commands
from ensemble.report.run import read_run
from ensemble.run import Run
from ensemble.scoring.row_values import cheapest
from ensemble.tta.apply import choose_blend

MODEL = "model.onnx"
LARGE_FILES = "*.onnx filter=lfs diff=lfs merge=lfs -text\n"  # for those who push with git


@dataclass(frozen=True)
class PublishOptions:
    """What `ens publish` is told.

    output: the folder to make
    blend: the name of the blend; None for the run's only one
    networks: which of its members' networks: "folds", "soup" or "refit"
    license: of the model, as the Hub names it; None: none yet
    name: of the model; None: that of the folder
    """

    output: Path
    blend: str | None = None
    networks: str = "folds"
    license: str | None = None
    name: str | None = None


def publish_run(run: Run, options: PublishOptions, events: Events) -> Path:
    """Write the folder and return the path of the model in it. Until it is whole, the folder has another name.

    Raises UserError if the folder exists, the license is no identifier of the Hub's form, or the blend has no scores,
    and as `export` does.
    """
    run.require()
    output = options.output
    if output.exists():
        raise UserError(f"{output}: exists already; choose another folder with -o, or delete it")
    if options.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.license):
        raise UserError(f"--license {options.license}: want an identifier of the Hub, such as apache-2.0 or cc-by-4.0")
    name = choose_blend(run, options.blend)
    result = read_result(run, name)
    if result is None:
        raise UserError(f"{run.blend_json(name)}: holds no scores to publish; fit it again with: ens blend {run}")
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        model = unfinished / MODEL
        exported = export(ExportRequest(run, model, name, networks=options.networks), events)
        card = _published(run, options, result, exported, events)
        write_text(unfinished / "README.md", model_card(card))
        write_text(unfinished / ".gitattributes", LARGE_FILES)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return output / MODEL


def _published(run: Run, options: PublishOptions, result: BlendResult, exported: Exported, events: Events) -> Published:
    config = load_run_config(run.config_toml)
    return Published(
        name=options.name or options.output.name,
        license=options.license,
        result=result,
        rows=read_rows(run),
        predicted=_predicted(run, result),
        description=exported.description,
        weights={name: _started_from(run, name) for name in exported.description.members},
        groups=config.data.group,
        near_copies=config.folds.near_copies,
        commands=commands(replace(read_run(run, events), best=result, saved=True)),
        file=(MODEL, exported.bytes),
    )


def _predicted(run: Run, result: BlendResult) -> np.ndarray | None:
    """The class that each row is decided for by a fit without its fold; None for a blend of several runs."""
    if other_runs(run, result.fitted.sources):
        return None
    probabilities, costs = cross_fitted(run, result), result.fitted.costs
    return probabilities.argmax(axis=1) if costs is None else cheapest(probabilities, costs)


def _started_from(run: Run, member: str) -> tuple[str, str | None]:
    """What a member's training started from, and the license of those weights if timm knows it."""
    from timm.models import get_pretrained_cfg

    backbones = {each.name: each for each in load_run_config(run.config_toml).backbone}
    if member not in backbones:
        return "see the run", None
    backbone = backbones[member]
    if backbone.weights is not None:
        return backbone.weights.name, None
    if not backbone.pretrained:
        return "nothing (from scratch)", "none needed"
    found = get_pretrained_cfg(backbone.timm)
    return f"timm/{backbone.timm}", None if found is None else found.license
