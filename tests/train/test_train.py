"""Training: the same bits again, whatever stops it, and an honest held-out part."""

import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder

from ensemble.cli import main
from ensemble.config import load_config
from ensemble.data import digests
from ensemble.data import folds as data_folds
from ensemble.data.contents import row_digests
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.device import is_out_of_memory
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.claims import claimed
from ensemble.files.reading import read_json
from ensemble.files.sealed import json_text, write_json
from ensemble.run import Run
from ensemble.train import jobs
from ensemble.train.clock import Clock
from ensemble.train.job import Job
from ensemble.train.jobs import train_folds
from ensemble.train.setup import check_contents
from ensemble.train.step import learning_rate

TINY = """
run = "{run}"
seed = 0
workers = 1
[data]
train = "{train}"
image_size = 32
[folds]
k = 2
[train]
epochs = 3
batch_size = 4
dtype = "float32"
memory_format = "channels_last"
[[backbone]]
name = "resnet"
timm = "test_resnet"
pretrained = false
"""


@pytest.fixture
def experiment(tmp_path, paint):
    """experiment(run="run", extra=""): an experiment file on 2 classes of 12 images."""
    for index in range(24):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png", width=32 + index % 5)

    def write(run="run", extra=""):
        file = tmp_path / f"{run}.toml"
        file.write_text(TINY.format(run=tmp_path / run, train=tmp_path / "images") + extra)
        return file

    return write


def train(file, *changes):
    events = Recorder()
    return train_folds(load_config(file, changes), events), events.messages


def oof(run, member="resnet", folds=(0, 1)):
    return {fold: load_logits(Run(run).member(member).fold(fold).oof_file) for fold in folds}


def same(a, b):
    return all(np.array_equal(a[fold].values, b[fold].values) for fold in a)


def test_learning_rate_by_hand():
    assert learning_rate(0, 100, 9, 1.0) == pytest.approx(0.1)
    assert learning_rate(8, 100, 9, 1.0) == pytest.approx(0.9)
    assert learning_rate(9, 109, 9, 2.0) == pytest.approx(2.0)
    assert learning_rate(59, 109, 9, 2.0) == pytest.approx(1.0)
    assert learning_rate(34, 109, 9, 2.0) == pytest.approx(1 + math.sqrt(0.5))
    assert learning_rate(109, 109, 9, 2.0) == pytest.approx(0.0)


def job(seed, member, fold):
    return Job(Run(Path("run")).member(member).fold(fold), None, None, None, None, None, {}, seed)


def test_each_job_and_epoch_has_its_own_seed():
    jobs = [job(seed, member, fold) for seed in (0, 1) for member in "ab" for fold in (0, 1)]
    assert len({each.random_seed(*parts) for each in jobs for parts in ((), (0,), (1,), (1, "mix"))}) == 32
    assert job(0, "a", 1).random_seed(3) == job(0, "a", 1).random_seed(3)


def test_clock_uses_each_backbones_own_speed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = Run(Path("run"))
    fast, other, slow = run.member("fast").fold(0), run.member("fast").fold(1), run.member("slow").fold(0)
    clock = Clock(dict.fromkeys((fast, other, slow), 100))
    clock.update(fast, left=90)  # spans the start, so it is no measure
    assert clock.describe(fast) == ""
    now[0] = 5.0
    clock.update(fast, left=40)  # 10 images/s; unknown backbones count the same
    assert (clock.describe(fast), clock.done, clock.total) == ("10 images/s  0:24 left", 60, 300)
    clock.update(slow, left=90)
    now[0] = 55.0
    clock.update(slow, left=40)  # 1 image/s
    assert clock.remaining() == pytest.approx((40 + 100) / 10 + 40)
    now[0] = 99.0
    clock.update(fast, left=70)  # killed, and begun anew: the seconds are no measure either
    assert clock.rates() == {"fast": 10, "slow": 1} and clock.done == 90


def test_a_run_holds_what_it_says_and_the_same_seed_gives_the_same_bits(experiment, tmp_path):
    assert train(experiment("one"))[0] == train(experiment("two"))[0] == []
    one, two = oof(tmp_path / "one"), oof(tmp_path / "two")
    assert same(one, two)
    folds = read_folds(Run(tmp_path / "one"))
    for fold in (0, 1):
        assert one[fold].ids.tolist() == folds["id"][folds["fold"] == fold].tolist()
        assert one[fold].views == ("identity", "hflip") and one[fold].classes == ("a", "b")
        directory = Run(tmp_path / "one").member("resnet").fold(fold)
        assert directory.is_done() and not directory.state_file.parent.exists()
        log = directory.read_log()
        assert [line["epoch"] for line in log] == [1, 2, 3]
    train(experiment("three"), "seed=1")
    assert not np.array_equal(oof(tmp_path / "three")[0].values, one[0].values)
    assert not same(oof(tmp_path / "three"), one)


def test_a_held_out_image_has_no_part_in_its_own_folds_model(experiment, tmp_path):
    train(experiment("one"))
    before = oof(tmp_path / "one")
    changed = before[0].ids[0]
    file = tmp_path / "images" / changed
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    train(experiment("two"))
    after = oof(tmp_path / "two")
    assert after[0].ids.tolist() == before[0].ids.tolist()
    assert np.array_equal(after[0].values[:, 1:], before[0].values[:, 1:])
    assert not np.array_equal(after[0].values[:, 0], before[0].values[:, 0])
    assert not np.array_equal(after[1].values, before[1].values)  # which trains on it


def test_a_finished_run_is_left_as_it_is(experiment, tmp_path):
    train(experiment())
    file = Run(tmp_path / "run").member("resnet").fold(0).model_file
    before = file.stat().st_mtime_ns
    failures, said = train(experiment())
    assert failures == [] and said == ["24 images, 2 classes; 2 jobs, 2 of them done; on cpu"]
    assert file.stat().st_mtime_ns == before


def test_a_member_added_later_shares_the_folds_and_changes_nothing(experiment, tmp_path):
    train(experiment())
    before, folds = oof(tmp_path / "run"), Run(tmp_path / "run").folds_csv.read_bytes()
    train(experiment(extra='[[backbone]]\nname = "vit"\ntimm = "test_vit"\npretrained = false\n'))
    assert same(oof(tmp_path / "run"), before) and Run(tmp_path / "run").folds_csv.read_bytes() == folds
    assert oof(tmp_path / "run", "vit")[0].ids.tolist() == before[0].ids.tolist()


@pytest.mark.process
@pytest.mark.parametrize("moment", ["fold0/log.jsonl", "fold0/state/last.safetensors", "fold1/state/last.safetensors"])
def test_killed_and_started_again_it_gives_the_same_bits(experiment, tmp_path, moment):
    train(experiment("whole"), "train.epochs=6")
    command = [
        sys.executable,
        "-m",
        "ensemble.cli",
        "train-folds",
        str(experiment("killed")),
        "--set",
        "train.epochs=6",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "resnet" / moment).exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / "killed" / "resnet" / moment).exists()  # not past it: the fold was being trained
    assert not Run(tmp_path / "killed").member("resnet").fold(1).is_done()
    with pytest.raises(UserError, match="holds a run with another seed"):  # its folds are settled from the first step
        train(experiment("killed"), "train.epochs=6", "seed=5")
    train(experiment("killed"), "train.epochs=6")
    assert same(oof(tmp_path / "killed"), oof(tmp_path / "whole"))


def test_a_loss_that_turns_nan_is_named_and_the_other_jobs_go_on(experiment, tmp_path):
    extra = '[[backbone]]\nname = "good"\ntimm = "test_resnet"\npretrained = false\n'
    bad = "backbone.resnet.train.lr=1e30"
    failures, said = train(experiment(extra=extra), bad)
    assert len(failures) == 2
    assert failures[0].startswith("resnet fold 0: the loss turned nan in epoch ")
    assert failures[0].endswith("; lower its lr (now 1e+30)")
    assert [line for line in said if line.startswith("failed: ")] == [f"failed: {line}" for line in failures]
    assert all(Run(tmp_path / "run").member("good").fold(fold).is_done() for fold in (0, 1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("seed=1", "holds a run with another seed (0; now 1): set it back, or give this run a directory of its own"),
        ("folds.k=3", 'holds a run with another folds ({"k": 2, '),
        ("train.epochs=4", "holds it with epochs = 3, the config says 4: set it back, give the backbone another name"),
        ("data.image_size=64", "holds it with image_size = 32, the config says 64: "),
    ],
)
def test_a_config_that_no_longer_fits_its_run_is_refused(experiment, change, text):
    train(experiment())
    with pytest.raises(UserError) as error:
        train(experiment(), change)
    assert text in str(error.value)


def test_a_run_that_is_older_than_a_key_goes_on(experiment, tmp_path):
    train(experiment())
    settings = Run(tmp_path / "run").member("resnet").settings_json
    older = {key: value for key, value in read_json(settings).items() if key != "augment_rare"}
    write_json(settings, older)
    assert train(experiment())[0] == []
    assert read_json(settings) == older
    with pytest.raises(UserError, match="holds it with augment_rare = false, the config says true"):
        train(experiment(), "train.augment_rare=true")


def test_changed_data_is_refused(experiment, tmp_path, paint):
    train(experiment())
    paint(tmp_path / "images" / "a" / "new.png")
    with pytest.raises(UserError, match="holds a run with another data fingerprint"):
        train(experiment())


def test_an_image_that_changed_and_kept_its_size_is_said_and_read_anew(experiment, tmp_path):
    for file in (tmp_path / "images").glob("*/*.png"):  # BMP files of one shape have one size
        Image.open(file).crop((0, 0, 32, 32)).save(file.with_suffix(".bmp"))
        file.unlink()
    train(experiment())
    shutil.rmtree(Run(tmp_path / "run").member("resnet").fold(1).path)
    before = oof(tmp_path / "run", folds=(0,))
    changed = sorted((tmp_path / "images" / "a").glob("*.bmp"))[0]
    Image.open(changed).transpose(Image.Transpose.ROTATE_180).save(changed)
    _, said = train(experiment())
    text = f"warning: images have changed since {tmp_path / 'run'} began; folds trained from now on see the new ones: "
    assert text + "to train all folds on the same images, restore the old ones, or delete the run" in said
    train(experiment("other"))
    assert np.array_equal(oof(tmp_path / "run")[1].values, oof(tmp_path / "other")[1].values)
    assert np.array_equal(oof(tmp_path / "run")[0].values, before[0].values)


def test_a_run_keeps_the_digests_of_its_rows_and_an_older_one_is_given_them(tmp_path):
    run, said = tmp_path / "run", []
    check_contents(Run(run), ["a", "b"], ["0" * 64, "1" * 64], Recorder(said))
    assert row_digests(Run(run)) == {"a": "0" * 64, "b": "1" * 64}
    write_text(Run(run).member("resnet").fold(0).log_file, "{}\n")
    older = {"sha256": read_json(Run(run).contents_json)["sha256"]}
    write_json(Run(run).contents_json, older)
    assert row_digests(Run(run)) == {}
    check_contents(Run(run), ["a", "b"], ["0" * 64, "2" * 64], Recorder(said))
    assert (
        row_digests(Run(run)) == {} and len(said) == 1 and said.pop().startswith("warning: images have changed since")
    )
    check_contents(Run(run), ["a", "b"], ["0" * 64, "1" * 64], Recorder(said))
    assert row_digests(Run(run)) == {"a": "0" * 64, "b": "1" * 64} and said == []


@pytest.mark.parametrize("cache", ["on", "off"])
def test_training_works_out_the_digest_of_each_image_once(experiment, tmp_path, monkeypatch, cache):
    """For exact copies, near ones, the cache of pixels and contents.json: they travel with the samples."""
    counts = Counter()

    def counted(path, digest_of=digests.digest_of):
        counts[path] += 1
        return digest_of(path)

    monkeypatch.setattr(digests, "digest_of", counted)
    monkeypatch.setattr(data_folds, "digest_of", counted)
    assert train(experiment(), f"data.cache={tmp_path / 'cache' if cache == 'on' else 'off'}")[0] == []
    assert set(counts) == set((tmp_path / "images").rglob("*.png")) and set(counts.values()) == {1}
    assert len(row_digests(Run(tmp_path / "run"))) == (24 if cache == "on" else 0)


def test_copies_of_a_file_share_a_fold_and_a_clash_of_labels_is_said(experiment, tmp_path):
    image = (tmp_path / "images" / "a" / "0.png").read_bytes()
    for name in ("a/copy.png", "b/clash.png"):
        (tmp_path / "images" / name).write_bytes(image)
    _, said = train(experiment(), "train.epochs=1")
    assert said[:2] == [
        "2 images are byte-for-byte copies of another; a copy shares its original's fold",
        "warning: 1 copy has another label than its original (first: 'b/clash.png' and 'a/0.png')",
    ]
    folds = read_folds(Run(tmp_path / "run")).set_index("id")["fold"]
    assert folds["a/copy.png"] == folds["a/0.png"] == folds["b/clash.png"]


def test_a_job_that_another_process_holds_is_left_to_it(experiment, tmp_path):
    directory = Run(tmp_path / "run").member("resnet").fold(0)
    directory.path.mkdir(parents=True)
    with claimed(directory.claim_file):
        _, said = train(experiment())
    assert f"resnet fold 0: locked by process {os.getpid()} on {socket.gethostname()}; skipped" in said
    assert not list((tmp_path / "run").rglob("*.claim*"))
    assert Run(tmp_path / "run").member("resnet").fold(1).is_done() and not directory.is_done()


def claim_of_another_machine(path, generation):
    place = {"host": "node9", "machine": "9", "namespace": "", "pid": 4242, "started": 1}
    path.with_name(f"{path.name}-{generation}").write_text(json.dumps({"id": "other", **place}))


def test_a_job_that_another_machine_died_with_is_taken_over(experiment, tmp_path, monkeypatch):
    directory = Run(tmp_path / "run").member("resnet").fold(0)
    directory.path.mkdir(parents=True)
    claim_of_another_machine(directory.claim_file, 1)
    monkeypatch.setattr(jobs, "free_abandoned", partial(jobs.free_abandoned, stale=0.1))
    failures, said = train(experiment())
    assert failures == [] and not [line for line in said if "locked" in line]
    assert directory.is_done() and not list((tmp_path / "run").rglob("*.claim*"))


def test_a_job_that_was_taken_over_meanwhile_is_left_to_its_new_holder(experiment, tmp_path, monkeypatch):
    """This process was suspended in its second epoch, say; what the other one has written since stays."""
    directory = Run(tmp_path / "run").member("resnet").fold(0)

    class Suspended(Recorder):
        def epoch_finished(self, member, fold, epoch):
            if (fold, epoch["epoch"]) == (0, 1):
                claim_of_another_machine(directory.claim_file, 2)
                directory.done_json.write_text(json_text({"files": {}, "seconds": 1}))
                directory.log_file.write_text("")

    assert train_folds(load_config(experiment()), events := Suspended()) == []
    assert not [line for line in events.messages if "fold 0: done" in line]
    assert directory.read_done()["seconds"] == 1 and directory.log_file.read_text() == ""
    assert not directory.model_file.exists() and Run(tmp_path / "run").member("resnet").fold(1).is_done()


def test_an_allocation_that_failed_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as full:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(full.value) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("a bug"))


def test_provenance_needs_no_git(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert train(experiment())[0] == []
    assert read_json(Run(tmp_path / "run").provenance_json)["made with"]["git"] in (
        "unknown",
        "not a checkout",
    )


@pytest.mark.process
def test_a_full_disk_ends_with_one_line_and_the_run_goes_on_afterwards(experiment, tmp_path):
    train(experiment("whole"))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "import ensemble.train.jobs;"  # compiled files are written before the limit
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        f"sys.argv = ['ens', 'train-folds', {str(experiment('full'))!r}];"
        "from ensemble.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    path = Run(tmp_path / "full").member("resnet").fold(0).state_file
    assert done.stderr.strip().splitlines()[-1].startswith(f"ens: {path}: could not be written (")
    train(experiment("full"))
    assert same(oof(tmp_path / "full"), oof(tmp_path / "whole"))


def test_a_full_disk_while_pixels_are_decoded_ends_with_one_line_and_loses_nothing(
    experiment, tmp_path, monkeypatch, capfd
):
    """The run was stopped in its second fold, and its pixels are no longer kept."""
    train(experiment("whole"))

    class Stop(Recorder):
        def progress(self, text, done, total):
            if text.startswith("resnet fold 1 epoch 2/3"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_folds(load_config(experiment("full")), Stop())
    directory = Run(tmp_path / "full").member("resnet").fold(1)
    before = directory.log_file.read_bytes(), directory.state_file.read_bytes()
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["ens", "train-folds", str(experiment("full"))])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert end.value.code == 1
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"ens: {tmp_path / 'cache' / 'pixels'}/")
    assert lines[0].endswith(".u8: could not be written (File too large); what was there before is whole")
    assert before == (directory.log_file.read_bytes(), directory.state_file.read_bytes())
    assert train(experiment("full"))[0] == []
    assert same(oof(tmp_path / "full"), oof(tmp_path / "whole"))
