"""Whether a file is the one that its run vouches for: by its fold's done marker, by its run's provenance.json, and by
the member and fold whose directory it lies in."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json, read_json
from ensemble.run.shapes import Done, Provenance


def require_vouched(path: Path) -> None:
    """Raise Damaged if a file (folds.csv, classes.json) is not the one that its run's provenance.json vouches for."""
    provenance = path.with_name("provenance.json")
    if provenance.is_file():
        digest = read_json(provenance, Provenance).get("files", {}).get(path.name)
        if digest is not None and sealed.digest(path) != digest:
            raise damaged(path)


def fold_metadata(path: Path) -> dict[str, str]:
    """The member and the fold whose directory a file lies in, for its metadata; nothing where that is no fold's."""
    fold = path.parent.parent if path.parent.name == "state" else path.parent
    number = re.fullmatch(r"fold(\d+)", fold.name)
    if number:
        return {"member": fold.parent.name, "fold": number[1]}
    if (
        re.fullmatch(r"soup|refit\d+", fold.name) and fold.with_name("settings.json").is_file()
    ):  # no member of that name
        return {"member": fold.parent.name, "fold": fold.name}
    return {}


def digest_in_done(path: Path) -> str | None:
    """The digest that its fold's done marker has of a file; None if there is no marker, or it has none."""
    marker = path.with_name("done.json")
    if not marker.is_file():
        return None
    entry = read_json(marker, Done, f"delete {path.parent} to train the fold again")["files"].get(path.name)
    return entry["xxh3"] if isinstance(entry, dict) else None  # older ones hold sizes only


def require_in_fold(path: Path, metadata: Mapping[str, str], checksum: str | None = None) -> None:
    """Raise Damaged if a file in a fold's directory says in its metadata that it is another member's or fold's, or if
    the fold's done marker vouches for a file of another checksum. What neither of them holds is not compared."""
    place = fold_metadata(path)
    if not place:  # it was copied to somewhere else
        return
    found = {key: metadata.get(key, value) for key, value in place.items()}
    if found != place:
        raise damaged(path, f"holds {found['member']}, fold {found['fold']}: files were exchanged")
    vouched = digest_in_done(path)
    if vouched is not None and vouched != (checksum or sealed.digest(path)):  # an older file holds no checksum
        raise damaged(path, "not the file that done.json was written with")


def require_sound_in_fold(path: Path) -> bool:
    """As `sealed.require_sound_file` and `require_in_fold` together, with little memory: for all files of a run."""
    sound = sealed.require_sound_file(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise damaged(path, f"not a whole safetensors file ({error})") from None
    if "meta" in metadata:  # of logits
        try:
            metadata |= parse_json(metadata["meta"], dict[str, str], "meta")
        except UserError as error:
            raise damaged(path, f"not a whole logits file ({error})") from None
    require_in_fold(path, metadata, sealed.file_checksum(path))
    return sound
