"""What trackers are sent, read back by the trackers' own libraries; and that training never depends on them."""

import json
import shutil
import sqlite3
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
from commands import ens
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_run
from ensemble.config import Log, load_config
from ensemble.errors import UserError
from ensemble.files import stores
from ensemble.files.claims import claimed
from ensemble.files.sealed import write_json
from ensemble.overview.verify import verify
from ensemble.report import write_report
from ensemble.run import Run
from ensemble.trackers import sending, table
from ensemble.trackers.listener import tracked
from ensemble.trackers.opened import Opened
from ensemble.trackers.sending import Link
from ensemble.trackers.sent import Sent, read_sent
from ensemble.trackers.settings import Settings
from ensemble.trackers.table import TRACKERS
from ensemble.train.jobs import train_folds
from ensemble.view.state import RunWatcher

# The trackers' own libraries warn of themselves.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FOLDS = [f"{member}/fold{fold}" for member in ("resnet", "vit") for fold in (0, 1)]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Whatever trackers keep outside of the run lies in a folder of the test."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "wandb-data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(run_on_noise, elsewhere):
    """A finished run of two members and two folds of one epoch, that no tracker knows."""
    return Run(shutil.copytree(run_on_noise, elsewhere / "art"))


def log_to(run, *names, project=None):
    """Let the run's experiment name these trackers."""
    text = "".join(line for line in run.config_toml.read_text().splitlines(keepends=True) if "checksum" not in line)
    project = "" if project is None else f'project = "{project}"\n'
    run.config_toml.write_text(f"{text}\n[log]\nto = {json.dumps(names)}\n{project}")


def lines_of(run, series):
    member, _, fold = series.partition("/fold")
    return run.member(member).fold(int(fold)).read_log()


def scalars(folder):
    """tag -> (step, value) of each event, in the order in which TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def records(folder):
    """What wandb wrote offline: the records of its files, which are logs in blocks of 32 kB, as LevelDB's are."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        data, at, parts = file.read_bytes(), 7, b""
        while at < len(data):
            if 2**15 - at % 2**15 < 7:
                at += 2**15 - at % 2**15
                continue
            _, size, kind = struct.unpack_from("<IHB", data, at)
            parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
            if kind in (1, 4):  # a whole record, or the last part of one
                yield Record.FromString(parts)
                parts = b""


def experiment(tmp_path, paint, to, epochs=3):
    for index in range(24):
        paint(tmp_path / "train" / "ab"[index % 2] / f"{index}.png", 40, 40)
    file = tmp_path / "e.toml"
    file.write_text(
        f'run = "{tmp_path / "runs" / "tiny"}"\nworkers = 1\n[data]\ntrain = "{tmp_path / "train"}"\nimage_size = 32\n'
        f'[folds]\nk = 2\n[train]\nepochs = {epochs}\nbatch_size = 4\ndtype = "float32"\n'
        f'memory_format = "channels_last"\n[log]\nto = {json.dumps(to)}\n'
        '[[backbone]]\nname = "resnet"\ntimm = "test_resnet"\npretrained = false\n'
    )
    return file


def test_the_experiment_file_knows_every_tracker():
    names = get_args(get_args(Log.model_fields["to"].annotation)[0])
    assert names == tuple(TRACKERS)


def test_an_unknown_tracker_is_refused_by_its_key(tmp_path, paint):
    with pytest.raises(UserError, match=r"log\.to\.0 = 'comet': input should be 'tensorboard', 'mlflow', 'wandb' or"):
        load_config(experiment(tmp_path, paint, ["comet"]))


def test_one_that_is_not_installed_ends_the_command_before_anything_is_made(tmp_path, paint, monkeypatch, capfd):
    file = experiment(tmp_path, paint, ["mlflow"])
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    status, _, errors = ens(monkeypatch, capfd, "train-folds", file)
    assert status == 2 and 'mlflow is not installed: pip install "ens-vision[mlflow]"' in errors
    assert not (tmp_path / "runs").exists()


def test_a_run_without_trackers_has_nothing_of_them(run):
    assert Settings.of(run).to == () and "[log]" not in run.config_toml.read_text()
    assert not run.tracker_json("x").parent.exists()


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def there(self):
        pytest.importorskip("tensorboard")

    def test_every_epoch_is_there_once_after_a_stop_in_the_middle(self, elsewhere, paint):
        file = experiment(elsewhere, paint, ["tensorboard"])
        run = Run(elsewhere / "runs" / "tiny")

        def stop(text, done, total):
            if "fold 1 epoch 2/3" in text:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_folds(load_config(file), Recorder(on_progress=stop))
        assert read_sent(run, "tensorboard").epochs == {"resnet/fold0": 3, "resnet/fold1": 1}
        assert train_folds(load_config(file), Recorder()) == []
        for series in ("resnet/fold0", "resnet/fold1"):
            found, log = scalars(run.path / "tensorboard" / series), lines_of(run, series)
            for key in ("loss", "lr", "seconds", "images_per_second"):
                assert found[key] == [(line["epoch"], pytest.approx(line[key])) for line in log], key
            assert found["held_out_accuracy"][-1] == (3, pytest.approx(log[-1]["held_out_accuracy"]))
        assert len(list((run.path / "tensorboard" / "resnet" / "fold1").iterdir())) == 2
        before = sorted(run.path.rglob("events.out.*"))
        assert train_folds(load_config(file), Recorder()) == []
        assert sorted(run.path.rglob("events.out.*")) == before  # nothing to say, and nothing was opened

    def test_blends_and_settings(self, run):
        log_to(run, "tensorboard")
        result = blend_run(run, BlendOptions("vote"))
        found, score = scalars(run.path / "tensorboard" / "blends" / "vote"), result.blend["accuracy"]
        assert found["accuracy"] == [(0, pytest.approx(score.value))]
        assert found["accuracy_low"] == [(0, pytest.approx(score.low))]
        assert found["log_loss_high"] == [(0, pytest.approx(result.blend["log_loss"].high))]
        for series in FOLDS:  # what was trained before
            log = lines_of(run, series)
            assert scalars(run.path / "tensorboard" / series)["loss"] == [(1, pytest.approx(log[0]["loss"]))]
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        notes = EventAccumulator(str(run.path / "tensorboard" / "notes"))
        notes.Reload()
        text = notes.Tensors("settings")[0].tensor_proto.string_val[0].decode()
        assert "| train.batch_size | 8 |" in text and "| backbone.vit.image_size | 48 |" in text

    def test_a_folder_that_can_not_be_written_costs_a_line_and_the_next_command_sends_it_all(self, run):
        log_to(run, "tensorboard")
        (run.path / "tensorboard").write_text("in the way")
        recorder = Recorder()
        blend_run(run, BlendOptions("vote"), recorder)
        assert run.blend_json("vote").is_file()
        (line,) = [line for line in recorder.messages if line.startswith("tensorboard: ")]
        assert "Not a directory" in line and f"by the next ens train-folds or ens blend of {run}" in line
        (run.path / "tensorboard").unlink()
        blend_run(run, BlendOptions("vote"), recorder)
        assert all("loss" in scalars(run.path / "tensorboard" / series) for series in FOLDS)

    def test_training_ends_as_without_it_when_the_tracker_fails(self, elsewhere, paint):
        file = experiment(elsewhere, paint, ["tensorboard"], epochs=2)
        (elsewhere / "runs" / "tiny").mkdir(parents=True)
        (elsewhere / "runs" / "tiny" / "tensorboard").write_text("in the way")
        recorder = Recorder()
        assert train_folds(load_config(file), recorder) == []
        assert sum(line.startswith("tensorboard: ") for line in recorder.messages) == 1
        assert Run(elsewhere / "runs" / "tiny").member("resnet").fold(1).is_done()

    def test_a_second_process_leaves_it_to_the_first(self, run):
        log_to(run, "tensorboard")
        path = run.tracker_json("tensorboard")
        path.parent.mkdir()
        recorder = Recorder()
        with claimed(path.with_name(".tensorboard.claim")):
            blend_run(run, BlendOptions("vote"), recorder)
        assert any("sends this run to it; nothing is sent from here" in line for line in recorder.messages)
        assert not (run.path / "tensorboard").exists()

    def test_a_worker_of_a_cluster_sends_nothing(self, run):
        log_to(run, "tensorboard")
        config = load_config(run.config_toml, (f'run="{run.path}"',))
        assert train_folds(config, Recorder(), waits=True) == []
        assert not run.tracker_json("x").parent.exists()
        assert train_folds(config, Recorder()) == []
        assert read_sent(run, "tensorboard").epochs == dict.fromkeys(FOLDS, 1)

    def test_a_run_on_an_object_store(self, elsewhere, paint, bucket):
        file = experiment(elsewhere, paint, ["tensorboard"], epochs=1)
        config = load_config(file, (f'run="{bucket}/runs/tiny"',))
        assert train_folds(config, Recorder()) == []
        run = Run(f"{bucket}/runs/tiny")
        assert (
            stores.read(f"{bucket}/runs/tiny/.trackers/tensorboard.json")
            == run.tracker_json("tensorboard").read_bytes()
        )
        (step,) = scalars(elsewhere / "tiny" / "tensorboard" / "resnet" / "fold1")["loss"]
        assert step[0] == 1 and not (run.path / "tensorboard").exists()
        with claimed(run.member("resnet").fold(0).claim_file):
            state = RunWatcher(run).state()  # of ens view
        assert state["jobs"] == {"all": 2, "done": 2, "training": 0, "failed": 0} and str(run.path) not in str(state)

    def test_a_damaged_note_of_what_was_sent_costs_a_line(self, run):
        log_to(run, "tensorboard")
        write_json(run.tracker_json("tensorboard"), {"id": "tensorboard", "epochs": {}})
        assert not verify(run, Recorder()).findings
        run.tracker_json("tensorboard").write_text(run.tracker_json("tensorboard").read_text().replace("{}", "{ }"))
        recorder = Recorder()
        blend_run(run, BlendOptions("vote"), recorder)
        (line,) = [line for line in recorder.messages if line.startswith("tensorboard: ")]
        assert "lost: what tensorboard was sent; delete it to begin another run of tensorboard" in line
        (finding,) = verify(run, Recorder()).findings
        assert finding.path == run.tracker_json("tensorboard")


class TestMlflow:
    @pytest.fixture(autouse=True)
    def there(self):
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")

    def test_settings_epochs_scores_and_the_report_in_one_run(self, run):
        log_to(run, "mlflow", project="paintings")
        result = blend_run(run, BlendOptions("vote"))
        page = write_report(run, None, Recorder())
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        (found,) = client.search_runs([client.get_experiment_by_name("paintings").experiment_id])
        assert found.info.run_id == read_sent(run, "mlflow").id
        assert found.info.run_name == "art" and found.info.status == "FINISHED"
        assert found.data.params["train.batch_size"] == "8" and found.data.params["backbone.vit.timm"] == "test_vit"
        for series in FOLDS:
            history = client.get_metric_history(found.info.run_id, f"{series}/loss")
            assert [(one.step, one.value) for one in history] == [(1, lines_of(run, series)[0]["loss"])]
        assert found.data.metrics["blends/vote/accuracy_low"] == result.blend["accuracy"].low
        report = client.download_artifacts(found.info.run_id, "report.html")
        assert Path(report).read_text(encoding="utf-8") == page.read_text(encoding="utf-8")

    def test_a_setting_that_changed_is_a_tag(self, run):
        log_to(run, "mlflow")
        blend_run(run, BlendOptions("vote"))
        run.config_toml.write_text(run.config_toml.read_text().replace("batch_size = 8", "batch_size = 16", 1))
        recorder = Recorder()
        blend_run(run, BlendOptions("mean"), recorder)
        assert not [line for line in recorder.messages if line.startswith("mlflow")]
        from mlflow.tracking import MlflowClient

        found = MlflowClient().get_run(read_sent(run, "mlflow").id)
        assert found.data.params["train.batch_size"] == "8" and found.data.tags["train.batch_size"] == "16"
        assert len(MlflowClient().get_metric_history(found.info.run_id, "vit/fold0/loss")) == 1

    def test_a_server_that_is_gone_costs_a_line(self, run, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens there
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        log_to(run, "mlflow")
        recorder = Recorder()
        blend_run(run, BlendOptions("vote"), recorder)
        (line,) = [line for line in recorder.messages if line.startswith("mlflow: ")]
        assert "127.0.0.1" in line and run.blend_json("vote").is_file()

    def test_a_run_that_was_deleted_there_is_named_with_what_to_do(self, run):
        log_to(run, "mlflow")
        write_json(run.tracker_json("mlflow"), {"id": "0" * 32, "epochs": {}})
        recorder = Recorder()
        blend_run(run, BlendOptions("vote"), recorder)
        (line,) = [line for line in recorder.messages if line.startswith("mlflow: ")]
        assert f"if its run {'0' * 32} was deleted there, delete {run.tracker_json('mlflow')} to begin another" in line


class TestWandb:
    def test_offline_files_hold_settings_epochs_scores_and_the_report(self, run):
        pytest.importorskip("wandb")
        log_to(run, "wandb")
        result = blend_run(run, BlendOptions("vote"))
        blend_run(run, BlendOptions("mean"))
        write_report(run, None, Recorder())
        runs, rows, settings, artifacts = set(), [], {}, []
        for record in records(run.path / "wandb"):
            match record.WhichOneof("record_type"):
                case "run":
                    runs.add((record.run.run_id, record.run.project, record.run.display_name))
                    settings |= {item.key: item.value_json for item in record.run.config.update}
                case "history":
                    items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                    rows.append({key: json.loads(value) for key, value in items.items()})
                case "artifact":
                    artifacts.append(record.artifact.name)
        assert runs == {(read_sent(run, "wandb").id, "ens", "art")}
        assert settings["train.batch_size"] == '"8"'
        for series in FOLDS:
            found = [(row[f"{series}/epoch"], row[f"{series}/loss"]) for row in rows if f"{series}/loss" in row]
            assert found == [(1, lines_of(run, series)[0]["loss"])]
        (scores,) = [row for row in rows if "blends/vote/accuracy" in row]
        assert scores["blends/vote/accuracy_high"] == result.blend["accuracy"].high
        assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4, 5] and artifacts == ["art-report"]


class TestTrackio:
    def test_its_database_holds_settings_epochs_and_scores(self, run, tmp_path):
        pytest.importorskip("trackio")
        from trackio import utils
        from trackio.sqlite_storage import SQLiteStorage

        log_to(run, "trackio", project="ens-tests")
        result = blend_run(run, BlendOptions("vote"))
        recorder = Recorder()
        blend_run(run, BlendOptions("mean"), recorder)
        write_report(run, None, recorder)
        assert not [line for line in recorder.messages if line.startswith("trackio")]
        name = read_sent(run, "trackio").id
        assert SQLiteStorage.get_runs("ens-tests") == [name] and name.startswith("art-")
        assert SQLiteStorage.get_run_config("ens-tests", name)["train.batch_size"] == "8"
        rows = SQLiteStorage.get_logs("ens-tests", name)
        for series in FOLDS:
            found = [(row["step"], row[f"{series}/loss"]) for row in rows if f"{series}/loss" in row]
            assert found == [(1, lines_of(run, series)[0]["loss"])]
        (scores,) = [row for row in rows if "blends/vote/accuracy" in row]
        assert scores["blends/vote/accuracy_low"] == result.blend["accuracy"].low
        assert any("blends/mean/accuracy" in row for row in rows)
        with sqlite3.connect(SQLiteStorage.get_project_db_path("ens-tests")) as database:
            assert database.execute("select count(*) from artifacts").fetchone()[0] == 1
        assert utils.TRACKIO_DIR.exists()


@dataclass
class Failing:
    """A tracker that takes so many epochs, and then no more."""

    most: int
    taken: list = field(default_factory=list)
    starts: list = field(default_factory=list)
    hangs: threading.Event | None = None

    def open(self, start):
        self.starts.append(start)
        return Opened("1", self.log, lambda name, text: None, None, lambda status: None)

    def log(self, series, step, values):
        if self.hangs is not None:
            self.hangs.wait(20)
        if len(self.taken) == self.most:
            raise ConnectionError("the server is gone\nand much more")
        self.taken.append((series, step))


def test_what_failed_is_sent_by_the_next_command_and_nothing_twice(run, monkeypatch):
    tracker = Failing(2)
    monkeypatch.setitem(TRACKERS, "tensorboard", tracker.open)
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    recorder = Recorder()
    with tracked(run, ["tensorboard"], recorder):
        pass
    (line,) = recorder.messages
    assert line.startswith(
        "tensorboard: ConnectionError: the server is gone; the epochs that it lacks are sent by the next"
    )
    assert read_sent(run, "tensorboard").epochs | {"vit/fold0": 0} == {
        "resnet/fold0": 1,
        "resnet/fold1": 1,
        "vit/fold0": 0,
    }
    tracker.most = 9
    with tracked(run, ["tensorboard"], recorder) as events:
        events.epoch_finished("vit", 1, {"epoch": 1, "loss": 1.0})
        events.epoch_finished("vit", 1, {"epoch": 1, "loss": 1.0})
    assert sorted(tracker.taken) == [(series, 1) for series in FOLDS] and len(recorder.messages) == 1


def test_a_tracker_is_told_how_much_earlier_commands_sent(run, monkeypatch):
    tracker = Failing(99)
    monkeypatch.setitem(TRACKERS, "tensorboard", tracker.open)
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    log_to(run, "tensorboard")
    path = run.tracker_json("tensorboard")
    path.parent.mkdir()
    write_json(path, {"id": "1", "epochs": dict.fromkeys(FOLDS, 1)})  # of an older ens
    blend_run(run, BlendOptions("vote"))
    blend_run(run, BlendOptions("mean"))
    with tracked(run, ["tensorboard"], Recorder()) as events:
        events.epoch_finished("vit", 1, {"epoch": 2, "loss": 1.0})
    assert tracker.taken == [("blends/vote", 0), ("blends/mean", 0), ("vit/fold1", 2)]
    assert [start.logged for start in tracker.starts] == [4, 5, 6] and read_sent(run, "tensorboard").logged == 7


def test_epochs_that_were_missed_come_before_the_one_that_is_told(run, monkeypatch):
    tracker, fold = Failing(9), run.member("vit").fold(0)
    fold.done_json.unlink()
    fold.write_log("".join(json.dumps({"epoch": number, "loss": 0.5}) + "\n" for number in (1, 2, 3, 4)))
    monkeypatch.setitem(TRACKERS, "tensorboard", tracker.open)
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    with tracked(run, ["tensorboard"], Recorder()) as events:
        events.epoch_finished("vit", 0, {"epoch": 3, "loss": 0.5})  # the fourth is written, and not yet scored
    assert [step for series, step in tracker.taken if series == "vit/fold0"] == [1, 2, 3]


def test_a_tracker_that_hangs_is_not_waited_for(run, monkeypatch):
    tracker = Failing(9, hangs=threading.Event())
    monkeypatch.setitem(TRACKERS, "tensorboard", tracker.open)
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    monkeypatch.setattr(sending, "LONGEST_WAIT", 0.2)
    recorder = Recorder()
    with tracked(run, ["tensorboard"], recorder):
        pass
    assert recorder.messages[0].startswith(
        "tensorboard: has not answered for 0 seconds; the epochs that it lacks are sent by"
    )
    tracker.hangs.set()


def test_an_epoch_is_noted_before_it_is_sent(tmp_path):
    sent = Sent(tmp_path / "x.json", "1")
    seen = []
    opened = Opened("1", lambda *_: seen.append(dict(sent.epochs)), lambda *_: None, None, lambda status: None)
    link = Link(opened, sent)
    for _ in range(2):
        link.send("vit/fold0", 2, {"epoch": 2, "loss": 1.0})
    assert seen == [{"vit/fold0": 2}] and json.loads(sent.path.read_text())["epochs"] == {"vit/fold0": 2}
