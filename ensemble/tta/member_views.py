"""What determines the logits of a member under a view, as a digest. Never imports torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import PIL

from ensemble import __version__
from ensemble.data.cache.shards import key
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.exported.engines import WRITERS
from ensemble.files import sealed
from ensemble.files.reading import read_json
from ensemble.predictions.shards import file_state
from ensemble.run import Run
from ensemble.run.networks import FROZEN, FROZEN_VIEWS, networks_of
from ensemble.run.vouched import digest_in_done

FORMAT = 1  # of stored logits and the files that hold them (stored_logits.py): raise it when either changes


@dataclass(frozen=True)
class MemberView:
    """A member under a view.

    member: its name
    view: the name of a single view
    digest: of all that determines its logits of an image, hexadecimal
    folds: K, its networks
    width: of what each gives of an image; None for a logit of each class
    """

    member: str
    view: str
    digest: str
    folds: int
    width: int | None = None


def member_views(
    run: Run,
    views: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    folds: int,
    batch_size: int,
    device: str,
    networks: str = "folds",
) -> tuple[MemberView, ...]:
    """Each view of each member, in the order of `views`: member -> the names of its views. networks: which of the
    members', "folds", "soup" or "refit".

    The small files of a member count with all their bytes, and with them the digest of each fold's weights, where its
    done marker has one; else weights count by size and time of change. The number of threads and the model of a GPU do
    not count: they may change a last bit, and hours of work are worth more.
    """
    found = []
    networks_by_member = networks_of(run, views, networks, folds)
    for name, names in views.items():
        member, jobs = run.member(name), networks_by_member[name]
        preprocess = load_preprocess(member.preprocess_json)
        files, models = [member.settings_json], []
        for fold in jobs:
            files += [fold.done_json, fold.inference_json]
            models.append(digest_in_done(fold.model_file) or file_state(fold.model_file)[:2])
        facts = {
            "format": FORMAT,
            "versions": [__version__, *map(version, ("torch", "timm")), PIL.__version__],
            "device": device,
            "batch_size": batch_size,
            "classes": classes,
            "files": [hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files],
            "models": models,
            "member": [name, asdict(preprocess), key(preprocess.decoding)],
        }
        if used := sorted({engine for fold in jobs if (engine := _engine(fold.inference_json)) is not None}):
            facts["engines"] = {engine: _version(engine) for engine in used}
        text = json.dumps(facts, sort_keys=True)
        digests = [hashlib.sha256(f"{text} {view}".encode()).hexdigest() for view in names]
        found += [MemberView(name, view, digest, len(jobs)) for view, digest in zip(names, digests, strict=True)]
    return tuple(found)


def frozen_view(run: Run, width: int, batch_size: int, device: str) -> MemberView:
    """The features of the run's frozen network, float32 (1, n, width), as if it were a member."""
    facts = {
        "format": FORMAT,
        "versions": [__version__, *map(version, ("torch", "timm")), PIL.__version__],
        "device": device,
        "batch_size": batch_size,
        "network": sealed.file_checksum(run.frozen_model_file),
    }
    [view] = FROZEN_VIEWS
    return MemberView(FROZEN, view, hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(), 1, width)


def _engine(path: Path) -> str | None:
    """What a network was evaluated with, as its inference.json says; None if that is torch."""
    if not path.is_file():
        return None
    return read_json(path, dict[str, Any], "delete it: float32 is used then").get("engine")


def _version(engine: str) -> str | None:
    """None where it can't compute networks, so that torch does."""
    if not all(map(find_spec, (*WRITERS, engine))):
        return None
    try:
        return version(engine)
    except PackageNotFoundError:  # another distribution of it, such as onnxruntime-gpu
        return ""
