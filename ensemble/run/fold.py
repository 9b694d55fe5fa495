"""One network of a member (of a fold, a soup of its folds, or a refit): its files, and whether they are whole."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ensemble.files import sealed
from ensemble.files.atomic import clear_temporaries, write_text
from ensemble.files.damage import damaged
from ensemble.files.reading import parse_json, read_json, read_text
from ensemble.run.shapes import Done, Epoch, Failure
from ensemble.run.vouched import digest_in_done

if TYPE_CHECKING:
    from ensemble.run.member import Member


@dataclass(frozen=True)
class Fold:
    """The directory of one backbone x fold job, or of a network that has seen the rows of all folds.

    member: whose it is.
    number: of the fold, or of the refit; 0 for a soup.
    kind: "fold"; "soup", the average of the fold networks; or "refit", the recipe trained on all rows.
    """

    member: "Member"
    number: int
    kind: Literal["fold", "soup", "refit"] = "fold"

    def __str__(self) -> str:
        return f"{self.member.name} {self.kind}" + ("" if self.kind == "soup" else f" {self.number}")

    @property
    def path(self) -> Path:
        return self.member.path / ("soup" if self.kind == "soup" else f"{self.kind}{self.number}")

    @property
    def label(self) -> str:
        """What its files' metadata hold as their fold."""
        return str(self.number) if self.kind == "fold" else self.path.name

    @property
    def model_file(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def result_files(self) -> tuple[Path, ...]:
        """What no finished one lacks."""
        return (self.model_file, self.oof_file) if self.kind == "fold" else (self.model_file,)

    @property
    def inference_json(self) -> Path:
        return self.path / "inference.json"

    @property
    def oof_file(self) -> Path:
        return self.path / "oof.safetensors"

    @property
    def added_views_file(self) -> Path:
        """OOF logits of views that were added after training."""
        return self.path / "views.safetensors"

    @property
    def log_file(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def state_file(self) -> Path:
        """What an unfinished fold goes on from."""
        return self.path / "state" / "last.safetensors"

    @property
    def claim_file(self) -> Path:
        """What a process claims that writes here (`ensemble.files.claims`)."""
        return self.path / ".claim"

    @property
    def done_json(self) -> Path:
        return self.path / "done.json"

    @property
    def failure_json(self) -> Path:
        """Why a worker of a cluster could not train it, for the other workers and whoever follows them."""
        return self.path / "failure.json"

    def read_done(self) -> Done:
        """What done.json says. Raises UserError that names the file."""
        again = "train the fold again" if self.kind == "fold" else f"make it again with ens {self.kind}"
        return read_json(self.done_json, Done, f"delete {self.path} to {again}")

    def read_log(self) -> list[Epoch]:
        """The lines of log.jsonl. Raises UserError that names the file and the line, Damaged if it is not the log that
        the marker of a finished fold vouches for."""
        path = self.log_file
        text = read_text(path)
        vouched = digest_in_done(path)
        if vouched is not None and sealed.digest(path) != vouched:
            raise damaged(path)
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [parse_json(line, Epoch, f"{path}, line {number}") for number, line in lines]

    def read_failure(self) -> str:
        """What failure.json says. Raises UserError that names the file."""
        return read_json(self.failure_json, Failure)["error"]

    def note_failure(self, error: str) -> None:
        """Write failure.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        sealed.write_json(self.failure_json, {"error": error})

    def is_done(self) -> bool:
        """True if done.json is there and every file that it names has the size that it names. Raises Damaged if the
        marker is damaged; whether the files are is found when they are read."""
        if not self.done_json.is_file():
            return False
        files = self.read_done()["files"]
        sizes = {name: entry["bytes"] if isinstance(entry, dict) else entry for name, entry in files.items()}
        paths = {self.path / name: size for name, size in sizes.items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())

    def finish(self, seconds: float) -> None:
        """Write the done marker of a fold whose weights, logits and log are there. It does not vouch for
        inference.json, which may be deleted: float32 is used then."""
        settings = self.member.settings_json
        checksum = sealed.file_checksum(settings) if settings.is_file() else None
        files = [path for path in (self.model_file, self.oof_file, self.log_file) if path.is_file()]
        self.mark_done(files, seconds=round(seconds, 1), **({} if checksum is None else {"settings": checksum}))

    def mark_done(self, files: list[Path], **fields: Any) -> None:
        """Write done.json, last: it vouches for `files` by their sizes and digests."""
        vouched = {path.name: {"bytes": path.stat().st_size, "xxh3": sealed.digest(path)} for path in files}
        sealed.write_json(self.done_json, {"files": vouched, **fields})

    def write_log(self, lines: str) -> None:
        """Write log.jsonl whole."""
        write_text(self.log_file, lines)

    def clear_temporaries(self) -> None:
        """Remove what a killed process left of files that it was writing."""
        clear_temporaries(self.path)
