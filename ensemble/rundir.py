"""Every file name of a run directory, what its small files say, and the done markers.

    runs/art/
      config.toml  folds.csv  classes.json  provenance.json  contents.json
      convnext/settings.json  preprocess.json  numerics.json  speeds.json  probe.safetensors
      convnext/fold0/model.safetensors  inference.json  oof.safetensors  views.safetensors  log.jsonl  state/
                     done.json (last)
      blends/stack.json  stack.safetensors
      predictions/<set>-<blend>.safetensors  .<set>-<blend>/ (only while unfinished)
      predictions/logits/<set>/<digest>.safetensors
      tta-search.json  audit.json  report.html  submissions.csv  ens.log

Nothing here is a pickle. Every file has a digest, in itself (JSON, TOML and safetensors, see `ensemble.files.sealed`)
or in another one (log.jsonl in done.json, folds.csv and classes.json in provenance.json); only what people write into,
submissions.csv, and what no number comes from, ens.log and the report, have none. Files are written by
`ensemble.files.atomic`.
"""

import re
from pathlib import Path
from typing import Any

from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import write_text
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json, read_json, read_text
from ensemble.run.shapes import Done, Epoch, Provenance, SavedAudit, SavedSearch, Settings
from ensemble.run.vouched import digest_in_done, require_vouched


def config_toml(run: Path) -> Path:
    return run / "config.toml"


def folds_csv(run: Path) -> Path:
    return run / "folds.csv"


def classes_json(run: Path) -> Path:
    return run / "classes.json"


def provenance_json(run: Path) -> Path:
    return run / "provenance.json"


def contents_json(run: Path) -> Path:
    return run / "contents.json"


def settings_json(run: Path, member: str) -> Path:
    return run / member / "settings.json"


def numerics_json(run: Path, member: str) -> Path:
    return run / member / "numerics.json"


def speeds_json(run: Path, member: str) -> Path:
    return run / member / "speeds.json"


def probe_file(run: Path, member: str) -> Path:
    return run / member / "probe.safetensors"


def preprocess_json(run: Path, member: str) -> Path:
    return run / member / "preprocess.json"


def fold_dir(run: Path, member: str, fold: int) -> Path:
    return run / member / f"fold{fold}"


def model_file(fold: Path) -> Path:
    return fold / "model.safetensors"


def inference_json(fold: Path) -> Path:
    return fold / "inference.json"


def oof_file(fold: Path) -> Path:
    return fold / "oof.safetensors"


def added_file(fold: Path) -> Path:
    """OOF logits of views that were added after training."""
    return fold / "views.safetensors"


def log_file(fold: Path) -> Path:
    return fold / "log.jsonl"


def state_file(fold: Path) -> Path:
    return fold / "state" / "last.safetensors"


def lock_file(fold: Path) -> Path:
    return fold / ".lock"


def done_json(fold: Path) -> Path:
    return fold / "done.json"


def blend_json(run: Path, name: str) -> Path:
    return run / "blends" / f"{name}.json"


def blend_file(run: Path, name: str) -> Path:
    return run / "blends" / f"{name}.safetensors"


def external_file(run: Path, name: str, member: str) -> Path:
    """The test predictions of a blend's external member."""
    return run / "blends" / f"{name}-{member}.safetensors"


def predictions_file(run: Path, images: str, blend: str) -> Path:
    return run / "predictions" / f"{images}-{blend}.safetensors"


def shards_dir(predictions: Path) -> Path:
    """The finished pieces of predictions that are not whole yet."""
    return predictions.with_name(f".{predictions.stem}")


def predictions_lock(predictions: Path) -> Path:
    """Beside the pieces' folder, not in it: a lock that is removed with its folder could be held twice."""
    return predictions.with_name(f".{predictions.stem}.lock")


def logits_dir(run: Path, images: str) -> Path:
    """The members' logits of a set of images, kept for the next blend of them."""
    return run / "predictions" / "logits" / images


def view_search_json(run: Path) -> Path:
    return run / "tta-search.json"


def audit_json(folder: Path) -> Path:
    """What `ens check` found, in a run or, where there is none yet, in the working directory."""
    return folder / "audit.json"


def report_html(run: Path) -> Path:
    return run / "report.html"


def submissions_csv(folder: Path) -> Path:
    """The ledger of what was predicted, in a run or, for predictions without one, beside them."""
    return folder / "submissions.csv"


def ens_log(run: Path) -> Path:
    return run / "ens.log"


def require_run(run: Path) -> None:
    """Raise UserError unless `run` is a directory that `ens train-folds` has made."""
    if not folds_csv(run).is_file():
        raise UserError(f"{run}: not a run directory (it has no folds.csv); make one with: ens train-folds FILE")


def members(run: Path) -> list[str]:
    """Names of the backbones that the run holds, finished or not, in sorted order."""
    return sorted(path.parent.name for path in run.glob("*/settings.json"))


def folds_of(run: Path, member: str) -> list[int]:
    """Fold numbers that `member` has a directory for, in numeric order (fold10 after fold9)."""
    found = (re.fullmatch(r"fold(\d+)", path.name) for path in (run / member).glob("fold*"))
    return sorted(int(match[1]) for match in found if match)


def is_optimistic(run: Path, member: str) -> bool:
    """True if each fold of the member kept the epoch that was best on its held-out rows."""
    path = settings_json(run, member)
    return path.is_file() and read_settings(run, member).get("keep") == "best"


def is_begun(run: Path, member: str = "*") -> bool:
    """True if a fold of the run, or of this member, has begun to train: its settings are then a fact. (The log is there
    before the first step.)"""
    return any(run.glob(f"{member}/fold*/log.jsonl"))


def read_done(fold: Path) -> Done:
    """What done.json says. Raises UserError that names the file."""
    return read_json(done_json(fold), Done, f"delete {fold} to train the fold again")


def read_settings(run: Path, member: str) -> Settings:
    """What settings.json says of a member. Raises UserError that names the file."""
    return read_json(settings_json(run, member), Settings, f"delete {run / member} to train the member again")


def read_provenance(run: Path) -> Provenance:
    """What provenance.json says. Raises UserError that names the file."""
    return read_json(provenance_json(run), Provenance)


def is_vouched(run: Path) -> bool:
    """False of a run that was begun before there were digests. A file that can't be read says so where it is used."""
    path = provenance_json(run)
    try:
        return not path.is_file() or sealed.file_checksum(path) is not None
    except (UserError, OSError):
        return True


def read_classes(run: Path) -> list[str]:
    """The names of the classes, in the order of the logits. Raises UserError that names the file."""
    path = classes_json(run)
    if path.is_file():
        require_vouched(path)
    return read_json(path, list[str])


def write_config(run: Path, text: str) -> None:
    """Write config.toml, with its checksum in a comment at the end."""
    write_text(config_toml(run), sealed.sealed_text(f"{text}# {sealed.KEY} {sealed.BLANK}\n"))


def read_audit(path: Path) -> SavedAudit:
    """What an audit.json says. Raises UserError that names the file."""
    return read_json(path, SavedAudit, "make it again with: ens check")


def read_view_search(run: Path) -> SavedSearch:
    """What tta-search.json says. Raises UserError that names the file."""
    return read_json(view_search_json(run), SavedSearch, f"search again with: ens tta-search {run}")


def timm_of(run: Path, member: str) -> str:
    """The timm architecture of a member. Raises UserError that names the file."""
    name = read_settings(run, member).get("timm")
    if name is None:
        raise UserError(f"{settings_json(run, member)}: has no key 'timm'; delete {run / member} to train it again")
    return name


def read_log(fold: Path) -> list[Epoch]:
    """The lines of log.jsonl. Raises UserError that names the file and the line, Damaged if it is not the log that the
    marker of a finished fold vouches for."""
    path = log_file(fold)
    text = read_text(path)
    vouched = digest_in_done(path)
    if vouched is not None and sealed.digest(path) != vouched:
        raise damaged(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [parse_json(line, Epoch, f"{path}, line {number}") for number, line in lines]


def fold_of_other_settings(run: Path, member: str) -> int | None:
    """The first finished fold of a member whose marker names other settings than settings.json holds; None if all are
    alike. Raises UserError that names a file which can't be read."""
    checksum = sealed.file_checksum(settings_json(run, member))
    for fold in folds_of(run, member):
        directory = fold_dir(run, member, fold)
        if done_json(directory).is_file() and read_done(directory).get("settings") not in (None, checksum):
            return fold
    return None


def finish(fold: Path, seconds: float) -> None:
    """Write the done marker of a fold whose weights, logits and log are there. It does not vouch for inference.json,
    which may be deleted: float32 is used then."""
    path = settings_json(fold.parent.parent, fold.parent.name)
    checksum = sealed.file_checksum(path) if path.is_file() else None
    files = [path for path in (model_file(fold), oof_file(fold), log_file(fold)) if path.is_file()]
    mark_done(fold, files, seconds=round(seconds, 1), **({} if checksum is None else {"settings": checksum}))


def mark_done(fold: Path, files: list[Path], **facts: Any) -> None:
    """Write `done.json`, last: it vouches for `files` by their sizes and digests."""
    vouched = {path.name: {"bytes": path.stat().st_size, "xxh3": sealed.digest(path)} for path in files}
    sealed.write_json(done_json(fold), {"files": vouched, **facts})


def is_done(fold: Path) -> bool:
    """True if `done.json` is there and every file that it names has the size that it names. Raises Damaged if the
    marker is damaged; whether the files are is found when they are read."""
    if not done_json(fold).is_file():
        return False
    files = read_done(fold)["files"]
    sizes = {name: entry["bytes"] if isinstance(entry, dict) else entry for name, entry in files.items()}
    return all((fold / name).is_file() and (fold / name).stat().st_size == size for name, size in sizes.items())
