"""The user's folder of weights files, each recognised as a timm architecture."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import timm
from safetensors import SafetensorError, safe_open

from ensemble.errors import UserError
from ensemble.plural import pluralize

ENDINGS = (".safetensors", ".pth.tar", ".pth", ".pt", ".bin", ".ckpt")  # the first one of two that hold the same


@dataclass(frozen=True)
class WeightsFile:
    """Weights to start from.

    path: the file.
    timm: its architecture, with the pretrained tag if the file is named after one that timm has.
    name: the file's name as that of a member: what it is called stays the same whatever else is in the folder.
    """

    path: Path
    timm: str
    name: str


def weights_in(folder: Path) -> tuple[list[WeightsFile], list[str]]:
    """The weights files in a folder by name, or one to a folder in it as the hub's downloads lie, and a line for each
    file that was left out.

    A safetensors file's header says which architecture it is (`config`, a JSON object with `architecture`); of others
    the beginning of the file's name is compared with timm's names, and that of its folder. Whether the weights fit is
    not known before they are loaded. Raises UserError if there is no such folder, or nothing in it is recognised.
    """
    try:
        within = sorted(folder.iterdir())
        files = [path for each in within for path in (sorted(each.iterdir()) if each.is_dir() else [each])]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; --weights-dir wants a folder of weights files") from None
    files = [path for path in files if path.name.endswith(ENDINGS) and not path.name.startswith(".")]
    files.sort(key=lambda path: (_stem(path, folder), _rank(path)))
    found: dict[str, WeightsFile] = {}
    notes = []
    for path in files:
        stem = _stem(path, folder)
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "weights"
        try:
            architecture = _architecture(path, stem)
        except UserError as error:
            notes.append(f"{error}; left out")
            continue
        if name in found:
            notes.append(f"{path}: left out, since {found[name].path.name} has the same name")
        else:
            found[name] = WeightsFile(path, architecture, name)
    if not found:
        first = f"; {notes[0]}" if notes else ""
        raise UserError(
            f"{folder}: {pluralize(len(files), 'weights file')} in it, none of which ens recognises (it reads "
            f"{', '.join(ENDINGS)}, named as timm names the architecture){first}"
        )
    return list(found.values()), notes


def _stem(path: Path, folder: Path) -> str:
    """What says which weights they are: the name without ending, or the name of the folder that they have to
    themselves."""
    stem = path.name[: -len(ENDINGS[_rank(path)])]
    if path.parent == folder:
        return stem
    return stem if _longest_name(stem) else path.parent.name


def _rank(path: Path) -> int:
    return next(rank for rank, ending in enumerate(ENDINGS) if path.name.endswith(ending))


def _architecture(path: Path, stem: str) -> str:
    """timm's name of the weights in a file. Raises UserError, in one line, if there is none."""
    by_name, in_header = _longest_name(stem), _header_architecture(path)
    if in_header is None:
        if by_name is None:
            raise UserError(f"{path}: no architecture of timm is named like the beginning of {stem!r}")
        return by_name
    if by_name is not None and by_name.partition(".")[0] == in_header.partition(".")[0]:
        return by_name  # it may have the tag
    if not timm.is_model(in_header):
        raise UserError(f"{path}: its header says architecture {in_header!r}, which timm does not know")
    return in_header


def _header_architecture(path: Path) -> str | None:
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from None
    try:
        config = json.loads(metadata.get("config", "null"))
    except ValueError:
        return None
    architecture = config.get("architecture") if isinstance(config, dict) else None
    return architecture if isinstance(architecture, str) else None


def _longest_name(text: str) -> str | None:
    """The longest beginning of a text that is timm's name of an architecture, or of one with a pretrained tag: of
    "resnet50_a1_0-14fe96d1", "resnet50"."""
    for end in range(len(text), 0, -1):
        start = text[:end]
        is_word = end == len(text) or not text[end].isalnum()
        if is_word and timm.is_model(start) and ("." not in start or timm.models.is_model_pretrained(start)):
            return start
    return None
