from pathlib import Path

import pytest

from ensemble.errors import UserError
from ensemble.events import Several, Silent
from ensemble.run import Run


def test_a_run_knows_its_members_and_their_folds_in_order(tmp_path):
    run = Run(tmp_path / "art")
    for name, numbers in (("swin", (10, 2, 0)), ("convnext", (1,))):
        for number in numbers:
            run.member(name).fold(number).path.mkdir(parents=True)
        run.member(name).settings_json.write_text('{"keep": "best"}', encoding="utf-8")
    assert run.member_names() == ["convnext", "swin"]
    assert [str(fold) for fold in run.member("swin").folds()] == ["swin fold 0", "swin fold 2", "swin fold 10"]
    assert run.member("swin").is_optimistic()
    assert not run.is_begun()
    run.member("swin").fold(2).write_log("")
    assert run.is_begun() and run.member("swin").is_begun() and not run.member("convnext").is_begun()


def test_a_fold_is_done_once_its_marker_vouches_for_files_of_their_sizes(tmp_path):
    fold = Run(tmp_path).member("swin").fold(0)
    fold.path.mkdir(parents=True)
    assert not fold.is_done()
    fold.model_file.write_bytes(b"1234")
    fold.finish(1.26)
    assert fold.is_done()
    assert fold.read_done()["seconds"] == 1.3 and list(fold.read_done()["files"]) == ["model.safetensors"]
    fold.model_file.write_bytes(b"123")
    assert not fold.is_done()


def test_a_directory_that_is_no_run_is_refused():
    with pytest.raises(
        UserError, match=r"^nowhere: not a run directory \(it has no folds.csv\); make one with: ens train"
    ):
        Run(Path("nowhere")).require()


class Heard:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def test_several_listeners_are_told_the_same():
    first, second = Heard(), Heard()
    events = Several((first, Silent(), second))
    events.message("hello")
    events.progress("training", 1, 2)
    events.epoch_finished("swin", 0, {"epoch": 1})
    events.job_finished("swin", 0, 2.5, None)
    assert first.calls == second.calls
    assert first.calls == [
        ("message", "hello"),
        ("progress", "training", 1, 2),
        ("epoch_finished", "swin", 0, {"epoch": 1}),
        ("job_finished", "swin", 0, 2.5, None),
    ]
