"""One member of a run: a backbone, its settings and its folds."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.atomic import remove
from ensemble.files.reading import read_json
from ensemble.run.fold import Fold
from ensemble.run.shapes import Aside, Settings

if TYPE_CHECKING:
    from ensemble.run.run import Run


@dataclass(frozen=True)
class Member:
    """The directory of one backbone."""

    run: "Run"
    name: str

    @property
    def path(self) -> Path:
        return self.run.path / self.name

    @property
    def settings_json(self) -> Path:
        return self.path / "settings.json"

    @property
    def claim_file(self) -> Path:
        """What a process claims that prepares the member."""
        return self.path / ".claim"

    @property
    def numerics_json(self) -> Path:
        return self.path / "numerics.json"

    @property
    def speeds_json(self) -> Path:
        return self.path / "speeds.json"

    @property
    def memory_json(self) -> Path:
        """How much memory its jobs took on a cluster."""
        return self.path / "memory.json"

    @property
    def teachers_json(self) -> Path:
        """Of a student: how fast its teachers' networks are in each number format."""
        return self.path / "teachers.json"

    @property
    def probe_file(self) -> Path:
        return self.path / "probe.safetensors"

    @property
    def refit_probe_file(self) -> Path:
        """The linear probe fitted on all rows, which its refits start from."""
        return self.path / "refit-probe.safetensors"

    @property
    def preprocess_json(self) -> Path:
        return self.path / "preprocess.json"

    @property
    def aside_json(self) -> Path:
        """Why the member is set aside; of most there is none."""
        return self.path / "aside.json"

    def fold(self, number: int) -> Fold:
        return Fold(self, number)

    def folds(self) -> list[Fold]:
        """The folds that have a directory, in numeric order (fold10 after fold9)."""
        names = (re.fullmatch(r"fold(\d+)", path.name) for path in self.path.glob("fold*"))
        return [self.fold(number) for number in sorted(int(name[1]) for name in names if name)]

    def soup(self) -> Fold:
        """The average of its fold networks, which need not be there."""
        return Fold(self, 0, "soup")

    def refit(self, number: int) -> Fold:
        """A network trained on all rows."""
        return Fold(self, number, "refit")

    def refits(self) -> list[Fold]:
        """The refits that have a directory, in numeric order."""
        names = (re.fullmatch(r"refit(\d+)", path.name) for path in self.path.glob("refit*"))
        return [self.refit(number) for number in sorted(int(name[1]) for name in names if name)]

    def is_begun(self) -> bool:
        """True if a fold has begun to train: the settings are then a fact. (The log is there before the first step.)"""
        return any(self.path.glob("fold*/log.jsonl"))

    def is_optimistic(self) -> bool:
        """True if each fold kept the epoch that was best on its held-out rows."""
        return self.settings_json.is_file() and self.read_settings().get("keep") == "best"

    def read_settings(self) -> Settings:
        """What settings.json says. Raises UserError that names the file."""
        return read_json(self.settings_json, Settings, f"delete {self.path} to train the member again")

    def how_to_go_on(self) -> str:
        """What to do about folds that are not finished. Raises UserError that names the file."""
        settings = self.read_settings()
        if "soup" in settings:
            return f"make it again with: ens soup {self.run} --members {','.join(settings['soup'])} --name {self.name}"
        if "learned_from" in settings:
            return f"go on with the same ens {'pseudo' if 'round' in settings['learned_from'] else 'distill'}"
        return f"train on with: ens train-folds {self.run.config_toml}"

    def why_aside(self) -> str | None:
        """Why the member is used only where it is named; None of those that are used always. Raises UserError that
        names the file."""
        return read_json(self.aside_json, Aside)["why"] if self.aside_json.is_file() else None

    def set_aside(self, why: str | None) -> None:
        """Let the member be used only where it is named, or, for None, always."""
        if why is None:
            remove(self.aside_json)
        else:
            sealed.write_json(self.aside_json, {"why": why})

    def timm_name(self) -> str:
        """The timm architecture. Raises UserError that names the file."""
        name = self.read_settings().get("timm")
        if name is None:
            raise UserError(f"{self.settings_json}: has no key 'timm'; delete {self.path} to train it again")
        return name

    def fold_of_other_settings(self) -> Fold | None:
        """The first finished fold whose marker names other settings than settings.json holds; None if all are alike.
        Raises UserError that names a file which can't be read."""
        checksum = sealed.file_checksum(self.settings_json)
        for fold in self.folds():
            if fold.done_json.is_file() and fold.read_done().get("settings") not in (None, checksum):
                return fold
        return None
