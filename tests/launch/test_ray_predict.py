"""Predictions and added views on a Ray cluster: the same bytes as here, whatever is killed."""

import os
import shutil
import signal

import pytest
from ray_processes import ray_processes
from recorder import Recorder

from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.launch.engine import Engine
from ensemble.run import Run
from ensemble.run.run import shards_dir
from ensemble.tta import on_ray
from ensemble.tta.oof import add_views
from ensemble.tta.predict import tta_predict
from ensemble.tta.prepare import PredictionRequest

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def run(noise_run):
    return noise_run


@pytest.fixture(scope="module")
def images(tmp_path_factory, paint):
    """60 images, of which one can't be read: nine shards of 7 rows."""
    folder = tmp_path_factory.mktemp("images") / "test"
    for index in range(60):
        paint(folder / f"{index:02}.png", 40, 40)
    (folder / "33.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def request_of(run, images):
    def make(output, **changes):
        settings = {"blend_name": "mean", "on_bad": "skip", "form": "probability", "shard_rows": 7, "stored_bytes": 0}
        return PredictionRequest(Run(run), images, output, **{**settings, **changes})

    return make


@pytest.fixture(scope="module")
def alone(request_of, tmp_path_factory):
    """The bytes of both files of one process."""
    made = tta_predict(request_of(tmp_path_factory.mktemp("alone") / "s.csv"), SILENT)
    return made.submission.read_bytes(), made.predictions.read_bytes()


def predict(request, address, on_progress=lambda text, done, total: None, workers=2):
    events = Recorder(on_progress=on_progress)
    made = on_ray.tta_predict_on_ray(request, Engine("ray", address), workers, events)
    return (made.submission.read_bytes(), made.predictions.read_bytes()), events


def test_two_workers_end_with_the_bytes_of_one_process_also_where_one_is_killed(
    ray_cluster, request_of, alone, tmp_path
):
    killed = []

    def kill(text, done, total):
        if text.startswith("predicting") and done > 0 and not killed:
            killed.extend(ray_processes("ray::run_task")[:1])
            os.kill(killed[0], signal.SIGKILL)

    request = request_of(tmp_path / "s.csv")
    made, events = predict(request, ray_cluster, kill)
    assert killed and made == alone
    assert "9 shards by 2 workers on the 1 machine of the Ray cluster" in events.messages
    assert sum("was lost" in line and line.endswith("another one is started") for line in events.messages) == 1
    assert "1 of 60 images could not be read and have no prediction:" in events.messages
    done = [done for text, done, _ in events.steps if text.startswith("predicting")]
    assert done == sorted(done) and done[-1] == 60
    folder = shards_dir(Run(request.run.path).predictions_file("test", "mean"))
    assert not folder.exists() and not list(folder.parent.glob(".*")) and not list(request.run.path.glob(".ray-*"))


def test_what_is_wrong_with_an_image_is_one_line_and_shards_are_kept(ray_cluster, request_of, images, alone, tmp_path):
    request = request_of(tmp_path / "s.csv", on_bad="error")
    with pytest.raises(
        UserError, match=r"33\.png: not a readable image .*; \d of 9 shards are kept, and the same comma"
    ):
        predict(request, ray_cluster)
    assert predict(request_of(tmp_path / "s.csv"), ray_cluster)[0] == alone


def test_a_worker_that_would_predict_other_numbers_predicts_none(request_of, tmp_path):
    request = request_of(tmp_path / "s.csv")
    with pytest.raises(UserError, match="a worker of the Ray cluster would predict other numbers: it has another kind"):
        on_ray.fill_there(request, "digest of others", "key", tmp_path / "stop", None)
    digest = on_ray.prepare(request, SILENT).digest
    with pytest.raises(UserError, match="a worker of the Ray cluster sees other images, or with other times of change"):
        on_ray.fill_there(request, digest, "key", tmp_path / "stop", None)


def test_views_are_added_by_workers(ray_cluster, run, tmp_path):
    there = shutil.copytree(run.parent, tmp_path / "copy")
    folds = [Run(run).member(name).fold(number) for name in ("resnet", "vit") for number in (0, 1)]
    add_views(Run(run), ["vflip"], SILENT)
    events = Recorder()
    assert on_ray.add_views_on_ray(Run(there / "run"), ["vflip"], Engine("ray", ray_cluster), 2, events) == [
        "resnet",
        "vit",
    ]
    added = [there / fold.added_views_file.relative_to(run.parent) for fold in folds]
    assert [path.read_bytes() for path in added] == [fold.added_views_file.read_bytes() for fold in folds]
    assert events.messages == ["4 folds by 2 workers on the 1 machine of the Ray cluster"]
    assert events.steps[-1] == ("folds with out-of-fold logits of new views", 4, 4)
