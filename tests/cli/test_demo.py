"""The demo, with fewer digits, folds and epochs than its own."""

import pandas as pd
import pytest
from recorder import Recorder
from sklearn.utils import Bunch

from ensemble import demo
from ensemble.blend import methods
from ensemble.errors import UserError
from ensemble.events import SILENT

NUMERICS = 'dtype = "float32"\nmemory_format = "channels_last"'  # else what is fastest here is found first


def test_the_demo_goes_all_the_way_and_leaves_a_finished_run_alone(tmp_path, monkeypatch, capfd):
    short = demo.EXPERIMENT.replace("k = 5", "k = 2").replace("epochs = 6", "epochs = 1\n" + NUMERICS)
    monkeypatch.setattr(demo, "EXPERIMENT", short)
    digits = demo.load_digits()
    few = Bunch(images=digits.images[:900], target=digits.target[:900])
    monkeypatch.setattr(demo, "load_digits", lambda: few)
    events = Recorder()
    held_out = demo.run_demo(tmp_path / "demo", events)
    assert list(held_out) == list(methods.names())
    assert "540 images, 10 classes; 6 jobs, 0 of them done; on cpu" in events.messages
    answers = pd.read_csv(tmp_path / "demo" / "digits" / "answers.csv", dtype=str)
    for method in methods.names():
        made = pd.read_csv(tmp_path / "demo" / f"submission-{method}.csv", dtype=str)
        assert made["id"].tolist() == answers["id"].tolist() and len(made) == 360
        assert held_out[method]["accuracy"] == pytest.approx((made["label"] == answers["label"]).mean())
    printed = capfd.readouterr().out
    assert "members, out of fold" in printed and "360 held-out images" in printed
    again = Recorder()
    assert demo.run_demo(tmp_path / "demo", again) == held_out
    assert "540 images, 10 classes; 6 jobs, 6 of them done; on cpu" in again.messages


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError) as error:
        demo.run_demo(tmp_path, SILENT)
    assert str(error.value) == f"{tmp_path}: is there already and is no demo; name another folder: ens demo DIR"
