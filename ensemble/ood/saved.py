"""A detector as a run keeps it: unknown/blends/<blend>.safetensors, and the frozen features of the training rows, which
the detectors of all blends share: unknown/features.safetensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ensemble.blend import Blend
from ensemble.blend.saved import oof_digests
from ensemble.data.features import Features, read_features
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json
from ensemble.files.tensors import metadata_of, of_array, read_bytes, write_tensors
from ensemble.ood.choose import Trial
from ensemble.ood.detector import Detector
from ensemble.ood.parts import Bank
from ensemble.run import Run

FORMAT = 2


@dataclass(frozen=True)
class SavedDetector:
    """A blend's detector, and how it was chosen.

    detector: as it was fitted
    trials: of all candidates, the best one first
    checksum: of the file
    """

    detector: Detector
    trials: tuple[Trial, ...]
    checksum: str


def save_detector(run: Run, name: str, blend: Blend, detector: Detector, trials: Sequence[Trial]) -> Path:
    """Write a detector of the run's blend of this name, and return its file. Raises OSError if it can't be written.

    name: of the blend.
    trials: of all candidates, the best one first.
    """
    path = run.detector_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "reference": detector.reference, "folds": detector.folds, "row_scores": detector.row_scores,
        "row_weights": detector.row_weights, **_bank_arrays("logits", detector.logits),
    }  # fmt: skip
    if detector.features is not None:
        arrays |= _bank_arrays("features", detector.features)
    header = {
        "format": FORMAT,
        "parts": list(detector.parts),
        "trials": [asdict(trial) for trial in trials],
        "fitted_on": oof_digests(run, blend.sources, blend.trained),
        "network": sealed.file_checksum(run.frozen_model_file) if detector.needs_features else None,
    }
    write_tensors(path, {key: of_array(value) for key, value in arrays.items()}, {"detector": json.dumps(header)})
    return path


def load_detector(run: Run, name: str, blend: Blend) -> SavedDetector:
    """The detector of the run's blend of this name. Raises UserError if there is none, or if it was fitted on other
    members or features than there are now, Damaged if its file is not whole."""
    path, again = run.detector_file(name), f"ens unknown {run} --blend {name}"
    if not path.is_file():
        raise UserError(f"{run}: blend {name!r} has no detector of unknown images; make it with: {again}")
    data = read_bytes(path)
    try:
        arrays, header = load(data), parse_json(metadata_of(data)["detector"], dict, "detector")
        if header["format"] != FORMAT:
            raise UserError(f"{path}: of another version of ens; make it again with: {again}")
        detector = Detector(
            tuple(header["parts"]), arrays["reference"], arrays["folds"], _bank("logits", arrays),
            _bank("features", arrays) if "features rows" in arrays else None, arrays["row_scores"],
            arrays["row_weights"],
        )  # fmt: skip
        trials = tuple(Trial(**{**trial, "parts": tuple(trial["parts"])}) for trial in header["trials"])
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise damaged(path, f"not a whole detector ({error})") from None
    if header["fitted_on"] != oof_digests(run, blend.sources, blend.trained):
        raise UserError(
            f"{path}: was fitted on other members than blend {name!r} holds now; make it again with: {again}"
        )
    if detector.needs_features and header["network"] != _checksum(run.frozen_model_file):
        raise UserError(
            f"{path}: was fitted on the features of another network than {run.frozen_model_file} holds; {again}"
        )
    return SavedDetector(detector, trials, sealed.checksum(data, path) or "")


def save_features(run: Run, ids: Sequence[str], features: np.ndarray) -> None:
    """Write the frozen features float32 (N, D) of the rows of these ids."""
    network = sealed.file_checksum(run.frozen_model_file) or ""
    Features(np.array(ids, dtype=np.str_), features, {"network": network}).save(run.frozen_features_file)


def load_features(run: Run, ids: Sequence[str]) -> np.ndarray | None:
    """The features of these rows, float32 (N, D); None where they have to be computed: there are none, or they are
    damaged, or lack a row, or are of another network."""
    try:
        found = read_features(run.frozen_features_file)
    except UserError:
        return None
    return found.of(ids) if found.meta.get("network") == _checksum(run.frozen_model_file) else None


def _checksum(path: Path) -> str | None:
    return sealed.file_checksum(path) if path.is_file() else None


def _bank_arrays(name: str, bank: Bank) -> dict[str, np.ndarray]:
    return {f"{name} {key}": np.ascontiguousarray(value) for key, value in vars(bank).items()}


def _bank(name: str, arrays: Mapping[str, np.ndarray]) -> Bank:
    return Bank(arrays[f"{name} mean"], arrays[f"{name} scale"], arrays[f"{name} rows"])
