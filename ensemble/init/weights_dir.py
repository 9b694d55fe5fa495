"""The networks whose weights the user has: which of a folder's files are worth training."""

from pathlib import Path

import timm
import torch

from ensemble.backbones.weights_folder import WeightsFile, weights_in
from ensemble.init.networks import LIGHT, Backbone, family_keys
from ensemble.plural import pluralize

COUNTS = {"usual": 4, "fast": 4, "best": 5}
# Millions of parameters. The light networks that took about 20 core minutes have 2 to 6.
MOST = {"cpu": 10, "gpu": 100}


def networks_in(folder: Path, machine: str, effort: str) -> tuple[tuple[Backbone, ...], list[str]]:
    """The networks to train from a folder of weights files, and lines on what was found and left out.

    machine: "gpu" or "cpu". effort: "usual", "fast" or "best". Of two files of one architecture the first by name is
    taken. On a CPU those measured here come first, in that order; then, as on a GPU, the one with the most parameters
    of each family, up to what the machine can train. Raises UserError as `weights_in` does.
    """
    found, notes = weights_in(folder)
    files: dict[str, WeightsFile] = {}
    for file in found:
        files.setdefault(file.timm.partition(".")[0], file)
    sizes = {architecture: millions(architecture) for architecture in files}
    light = list(LIGHT) if machine == "cpu" else []
    fitting = [name for name in files if sizes[name] <= MOST[machine] or name in light]
    fitting = fitting or [min(sizes, key=lambda name: sizes[name])]
    ranked = sorted(fitting, key=lambda name: (light.index(name) if name in light else len(light), -sizes[name]))
    families: dict[str, list[str]] = {}
    for name in ranked:  # those measured here are different enough, though timm counts most of them as one family
        families.setdefault(name if name in light else _family(name), []).append(name)
    firsts = [names[0] for names in families.values()]
    chosen = [*firsts, *(name for name in ranked if name not in firsts)][: COUNTS[effort]]
    taken = [files[name] for name in chosen]
    lines = [f"{folder}: {pluralize(len(found), 'weights file')}; taken: {', '.join(file.path.name for file in taken)}"]
    left = [file.path.name for file in found if file not in taken]
    if left:
        lines.append(f"not taken: {', '.join(left)}; ens scout compares all of them on your images")
    return tuple(_backbone(files[name], sizes[name], machine) for name in chosen), [*notes, *lines]


def millions(architecture: str) -> float:
    """Parameters of one of timm's architectures, in millions."""
    with torch.device("meta"):  # without memory for them
        model = timm.create_model(architecture)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def _family(architecture: str) -> str:
    return str(timm.models.model_entrypoint(architecture).__module__)


def _backbone(file: WeightsFile, size: float, machine: str) -> Backbone:
    architecture = file.timm.partition(".")[0]
    kind = LIGHT[architecture].kind if architecture in LIGHT else f"{size:.1f} million parameters"
    return Backbone(architecture, file.timm, kind, file.path, family_keys(architecture) if machine == "gpu" else ())
