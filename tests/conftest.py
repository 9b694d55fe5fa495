"""What several test files share: small noisy images, a cache that is not the user's, and the same Hypothesis examples
on every run."""

import os
import shutil
import sys
import zlib
from contextlib import suppress

# Before torch is imported, here and in the processes that tests start: networks this small gain nothing by two threads,
# which wait for each other for seconds where the machine has other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from ensemble.machine import cores
from ensemble.run import Run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# absl's log handler (it comes with tensorboard) closes the stream that it began with when another library (submitit)
# configures logging: that of the tests themselves, where it began while their output was captured.
with suppress(ImportError):
    import absl.logging

    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

settings.register_profile("ens", deadline=None, derandomize=True, database=None)
settings.load_profile("ens")


def pytest_xdist_auto_num_workers(config):
    """pytest -n auto: a process for each core that is there for it; each takes 1 GB."""
    return min(cores(), 8)


def pytest_configure(config):
    """Each process of the tests keeps to one core, where training takes one worker: a second one would spend seconds
    on its imports."""
    if not hasattr(os, "sched_setaffinity"):
        return
    if hasattr(config, "workerinput"):  # one of the processes of pytest -n
        number = int(config.workerinput["workerid"].removeprefix("gw"))
    elif config.getoption("numprocesses", None):  # their parent: they inherit its cores
        return
    else:
        number = os.getpid()
    there = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {there[number % len(there)]})


@pytest.fixture(scope="session")
def cache_of_the_tests(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_cache_but_the_tests(cache_of_the_tests, monkeypatch):
    """Decoded pixels never go to the user's own cache, in subprocesses neither."""
    monkeypatch.setenv("ENS_CACHE", str(cache_of_the_tests))


@pytest.fixture(scope="module")
def browser():
    """A real one, or the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def paint():
    """paint(path, width, height, seed): write noise that depends on the file's name and the seed alone, in the format
    of its ending."""

    def write(path, width=32, height=32, seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(path.name.encode(), seed))
        Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def blended_run(cache_of_the_tests):
    """blended_run(folder): train two members of two folds on the images in folder/train, and blend them as "mean"."""
    from ensemble.blend import BlendOptions, blend_run
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.train.jobs import train_folds

    def make(folder):
        members = "".join(
            f'[[backbone]]\nname = "{name}"\ntimm = "test_{name}"\npretrained = false\nimage_size = {size}\n'
            for name, size in (("resnet", 32), ("vit", 48))
        )
        (folder / "e.toml").write_text(
            f'run = "{folder / "run"}"\n[data]\ntrain = "{folder / "train"}"\ncache = "{cache_of_the_tests}"\n'
            '[folds]\nk = 2\n[train]\nepochs = 1\nbatch_size = 8\ndtype = "float32"\nmemory_format = "channels_last"\n'
            f"{members}"
        )
        assert train_folds(load_config(folder / "e.toml"), SILENT) == []
        blend_run(Run(folder / "run"), BlendOptions("mean"))
        return folder / "run"

    return make


@pytest.fixture(scope="session")
def run_on_noise(tmp_path_factory, paint, blended_run):
    """What `noise_run` is copied from."""
    folder = tmp_path_factory.mktemp("noise")
    for index in range(24):
        paint(folder / "train" / "ab"[index % 2] / f"{index}.png", 40, 40)
    return blended_run(folder)


@pytest.fixture(scope="module")
def noise_run(tmp_path_factory, run_on_noise):
    """A finished run of two members, two folds each, and its blend "mean", for each module a copy of its own; beside it
    its images in train/."""
    return shutil.copytree(run_on_noise.parent, tmp_path_factory.mktemp("copied") / "noise") / "run"


@pytest.fixture(scope="session")
def exported_noise(run_on_noise):
    """The blend "mean" of `noise_run` as an ONNX file."""
    from ensemble.events import SILENT
    from ensemble.export.export import ExportRequest, export

    return export(ExportRequest(Run(run_on_noise), run_on_noise.parent / "noise.onnx"), SILENT).output


@pytest.fixture(scope="session")
def started_run(tmp_path_factory, paint, cache_of_the_tests):
    """A finished run of the members net and net-2 (two seeds of one backbone, from one file of weights) on 24 images in
    three folds, and its blend "mean"; beside it the experiment e.toml, its images in train/ and 5 others in test/."""
    import torch
    from safetensors.torch import save_file

    from ensemble.backbones import timm_model
    from ensemble.blend import BlendOptions, blend_run
    from ensemble.config import load_config
    from ensemble.events import SILENT
    from ensemble.train.jobs import train_folds

    folder = tmp_path_factory.mktemp("started")

    def picture(path, index):  # of even numbers darker, but for each sixth
        brighter = np.uint8(40 * ((index + (index % 6 == 5)) % 2))
        with Image.open(paint(path, 40, 40)) as image:
            Image.fromarray(np.asarray(image) // 2 + brighter).save(path)

    for index in range(24):
        picture(folder / "train" / "ab"[index % 2] / f"{index:02}.png", index)
    for index in range(5):
        picture(folder / "test" / f"test{index}.png", index)
    torch.manual_seed(0)
    save_file(timm_model.create("test_resnet", 7, 32).state_dict(), folder / "start.safetensors")
    (folder / "e.toml").write_text(
        f'run = "{folder / "run"}"\nworkers = 1\n[data]\ntrain = "{folder / "train"}"\nimage_size = 32\n'
        f'cache = "{cache_of_the_tests}"\n[folds]\nk = 3\nnear_copies = false\n'
        '[train]\nepochs = 6\nlr = 2e-3\nbatch_size = 4\ndtype = "float32"\nmemory_format = "channels_last"\n'
        f'[[backbone]]\nname = "net"\ntimm = "test_resnet"\nweights = "{folder / "start.safetensors"}"\nseeds = 2\n'
    )
    assert train_folds(load_config(folder / "e.toml"), SILENT) == []
    blend_run(Run(folder / "run"), BlendOptions("mean"))
    return folder / "run"


@pytest.fixture
def own_started_run(started_run, tmp_path):
    """A copy of `started_run` to change."""
    return shutil.copytree(started_run, tmp_path / "run")


@pytest.fixture(scope="session")
def s3_server():
    """The address of an S3 of moto's, on this machine."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    threaded = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    threaded.start()
    host, port = threaded.get_host_and_port()
    yield f"http://{host}:{port}"
    threaded.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch, tmp_path):
    """The URL of a new bucket, for this test alone, which this process and those that it starts can reach."""
    from ensemble.files import mirror, stores

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "tests"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", s3_server),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("ENS_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror, "_opened", set())
    monkeypatch.setattr(mirror, "_writable", set())
    stores._store.cache_clear()
    name = f"bucket-{zlib.crc32(str(tmp_path).encode())}"
    stores._store("s3").mkdir(name)
    yield f"s3://{name}"
    stores._store.cache_clear()
