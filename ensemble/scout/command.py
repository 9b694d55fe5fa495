"""The command itself: probe the backbones, find the front of their blends, plan, and write the experiment file."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.backbones.sizes import works_at
from ensemble.config import Backbone, Config, load_config, starts_trained, train_settings
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.atomic import write_text
from ensemble.init import Options, init
from ensemble.init.machine import look_at_machine
from ensemble.init.networks import Backbone as Network
from ensemble.init.networks import family_keys
from ensemble.init.write import shell
from ensemble.run.outputs import require_output
from ensemble.scoring.metrics import searchable
from ensemble.scout.candidates import CPU, GPU, of_folder
from ensemble.scout.forecast import forecaster
from ensemble.scout.plan import Plan, Planned, Usual, make_plan, parse_budget
from ensemble.scout.probes import probe_all
from ensemble.scout.result import Front, Scouted
from ensemble.scout.subsets import find_front
from ensemble.toml import to_toml
from ensemble.train.members import image_size
from ensemble.train.rows import Rows


@dataclass(frozen=True)
class Source:
    """What is scouted for: labelled images as `ens init` reads them, or an experiment.

    path: of the images, or of the experiment file.
    test, sample_submission, classes, images, label: as `init` takes them; None and () for an experiment file.
    machine: "gpu" or "cpu", which list to try, and what to write the experiment for; None: this one.
    """

    path: Path
    test: Path | None = None
    sample_submission: Path | None = None
    classes: tuple[str, ...] = ()
    images: Path | None = None
    label: str | tuple[str, ...] | None = None
    machine: str | None = None

    @property
    def is_experiment(self) -> bool:
        return self.path.suffix.lower() == ".toml" and not self.path.is_dir()


@dataclass(frozen=True)
class ScoutOptions:
    """What `ens scout` is told beside the data.

    output: the experiment file to write.
    weights_dir: a folder of weights files to try; None: the experiment's backbones, or the default list.
    metric: by which blends are compared.
    image_size: of every backbone, px; None: its own.
    pick: number of the blend to take, as the table has it; None: the simplest within one standard error of the best.
    budget: of fine-tuning, as "1h30m"; None: no plan.
    """

    output: Path
    weights_dir: Path | None = None
    metric: str = "log_loss"
    image_size: int | None = None
    pick: int | None = None
    budget: str | None = None


def scout(source: Source, options: ScoutOptions, events: Events) -> Scouted:
    """Probe backbones on the images, compare the blends of up to four, and write the experiment of the chosen one.

    Raises UserError, before anything is probed, for options that don't fit and as `init` does; then if no backbone
    could be probed, the blend that was picked is not there, or nothing fits the budget.
    """
    output = options.output
    if output.exists():
        raise UserError(f"{output}: exists already; choose another name with -o, or delete it")
    require_output(output, [source.path, source.test, source.sample_submission])
    if options.metric not in searchable():
        raise UserError(f"--metric {options.metric}: blends are compared by one of: {', '.join(searchable())}")
    budget = None if options.budget is None else parse_budget(options.budget)
    base, said = _experiment(source, options)
    for line in said:
        events.message(line)
    if budget is not None and any(train_settings(base, each).strategy == "probe" for each in base.backbone):
        raise UserError(f"{source.path}: trains probes, and --budget is for fine-tuning: change strategy first")
    probes, rows, skipped = probe_all(_as_probes(base), events)
    front = find_front(probes, options.metric, events)
    chosen = front.simplest if options.pick is None else options.pick - 1
    if not 0 <= chosen < len(front.blends):
        raise UserError(f"--pick {options.pick}: must be the number of a blend, 1 to {len(front.blends)}")
    plan = None if budget is None else _plan(base, front, chosen, budget, rows, events)
    backbones = _chosen(base, front.blends[chosen].members, plan)
    for line in _write(source, base, backbones, output):
        if line not in said:
            events.message(line)
    return Scouted(front, tuple(skipped), chosen, plan, str(output))


def _experiment(source: Source, options: ScoutOptions) -> tuple[Config, list[str]]:
    """The experiment with all backbones to try, each with the settings that it would be fine-tuned with, and lines on
    what was found."""
    given = load_config(source.path) if source.is_experiment else None
    if given is not None and source != Source(source.path):
        raise UserError(f"{source.path}: an experiment file says itself what its data are; give no options for them")
    machine = look_at_machine(source.machine)
    notes: list[str] = []
    if options.weights_dir is not None:
        backbones, notes = of_folder(options.weights_dir)
    elif given is not None:
        backbones = given.backbone
    else:
        backbones = GPU if machine.kind == "gpu" else CPU
    if options.image_size is not None:
        backbones = tuple(each.model_copy(update={"image_size": options.image_size}) for each in backbones)
    if given is not None:
        return given.model_copy(update={"backbone": backbones}), notes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.toml"
        lines = _init(source, backbones, path)
        return load_config(path), [*notes, *(line for line in lines if not line.startswith(machine.description))]


def _init(source: Source, backbones: Sequence[Backbone], output: Path) -> list[str]:
    """Write the experiment as `ens init` does. Returns lines on what it found."""
    machine = look_at_machine(source.machine).kind
    networks = tuple(_network(backbone, machine) for backbone in backbones)
    options = Options(source.machine, networks=networks)
    lines = init(
        source.path, source.test, source.sample_submission, output, source.classes, source.images, source.label, options
    )  # fmt: skip
    return lines[:-1]  # the last one is on the file


def _network(backbone: Backbone, machine: str) -> Network:
    """As `ens init` writes it, with the keys of its family where it has none of its own."""
    keys = dict(family_keys(backbone.timm) if machine == "gpu" else ()) | backbone.train
    return Network(
        backbone.name, backbone.timm, "chosen by ens scout", backbone.weights, tuple(keys.items()), backbone.image_size
    )


def _as_probes(config: Config) -> Config:
    """The config with all its backbones as linear probes; those without trained weights stay as they are."""
    probe = {"strategy": "probe", "drop_path": 0.0}  # not each network has paths to drop
    backbones = [
        backbone.model_copy(update={"train": probe}) if starts_trained(backbone) else backbone
        for backbone in config.backbone
    ]
    return config.model_copy(update={"backbone": tuple(backbones)})


def _plan(base: Config, front: Front, chosen: int, budget: float, rows: Rows, events: Events) -> Plan:
    """What of the chosen blend, or of those that are cheaper, can be fine-tuned in so many seconds."""
    named = {backbone.name: backbone for backbone in base.backbone}
    cheaper = [front.blends[place].members for place in range(chosen, -1, -1)]
    blends = [[_usual(base, named[name]) for name in members] for members in cheaper]
    return make_plan(blends, budget, forecaster(base, rows, events), works_at)


def _usual(base: Config, backbone: Backbone) -> Usual:
    return Usual(backbone, image_size(base, backbone), train_settings(base, backbone).epochs)


def _chosen(base: Config, members: Sequence[str], plan: Plan | None) -> tuple[Backbone, ...]:
    """The backbones of the experiment, in the base's order."""
    planned = {} if plan is None else {member.name: member for member in plan.members}
    names = members if plan is None else planned
    return tuple(
        _as_planned(base, backbone, planned.get(backbone.name)) for backbone in base.backbone if backbone.name in names
    )


def _as_planned(base: Config, backbone: Backbone, planned: Planned | None) -> Backbone:
    if planned is None:
        return backbone
    usual = _usual(base, backbone)
    changes: dict[str, Any] = {}
    if planned.image_size != usual.image_size:
        changes["image_size"] = planned.image_size
    if planned.epochs != usual.epochs:
        changes["train"] = {**backbone.train, "epochs": planned.epochs}
    return backbone.model_copy(update=changes)


def _write(source: Source, base: Config, backbones: tuple[Backbone, ...], output: Path) -> list[str]:
    """Write the experiment file. Returns lines on what it says."""
    if not source.is_experiment:
        return _init(source, backbones, output)
    text = f"# {shell(source.path)} with the backbones that ens scout chose. Run it with:\n"
    text += f"#   ens train-folds {shell(output)}\n\n"
    write_text(output, text + to_toml(base.model_copy(update={"backbone": backbones})))
    load_config(output)
    return []
