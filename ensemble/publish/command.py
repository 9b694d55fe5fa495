"""`ens publish`: a folder that the Hugging Face Hub can show, with the exported model and its card."""

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.blend import BlendResult, read_result
from ensemble.blend.oof import read_rows
from ensemble.blend.refitted import cross_fitted
from ensemble.blend.result import read_scores
from ensemble.blend.sources import other_runs
from ensemble.config import load_run_config
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.export.cascade import cascade_of
from ensemble.export.export import Exported, ExportRequest, export
from ensemble.files.atomic import replacing_folder, write_text
from ensemble.publish.card import Published, model_card
from ensemble.report.provenance import commands
from ensemble.report.run import read_run
from ensemble.run import Run
from ensemble.scoring.row_values import cheapest
from ensemble.tta.apply import choose_blend

MODEL, CASCADE = "model.onnx", "model"  # a file, or a folder
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
    whole = cascade_of(run, name)
    result = read_result(run, whole or name)
    if result is None:
        raise UserError(f"{run.blend_json(name)}: holds no scores to publish; fit it again with: ens blend {run}")
    with replacing_folder(output) as unfinished:
        model = unfinished / (CASCADE if whole else MODEL)
        exported = export(ExportRequest(run, model, name, networks=options.networks), events)
        card = _published(run, options, result, exported, events)
        if whole:
            card = _with_cascade(card, run, name)
        write_text(unfinished / "README.md", model_card(card))
        write_text(unfinished / ".gitattributes", LARGE_FILES)
    return output / model.name


def _with_cascade(card: Published, run: Run, name: str) -> Published:
    """The card of the whole blend, for the cascade that was made of it: with its scores, and without classes, for which
    its thresholds would have to be chosen anew in each fold."""
    made = shlex.join(["ens", "cascade", str(run), "--blend", card.result.name, "--name", name])
    result = replace(card.result, blend=read_scores(run, name))
    return replace(card, result=result, predicted=None, commands=[*card.commands, ("cascade", made)], is_cascade=True)


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
        file=(exported.output.name, exported.bytes),
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
