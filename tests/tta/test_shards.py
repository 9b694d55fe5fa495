"""Prediction in shards: stopped anywhere, it goes on to the same bytes; what doesn't fit is done anew."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from recorder import Recorder
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ensemble.blend import BlendOptions, ExternalFiles, blend_run, load_blend
from ensemble.data.folds import read_folds
from ensemble.data.logits import Logits, load_logits, write_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.predictions import shards
from ensemble.progress import paced
from ensemble.run import Run
from ensemble.run.run import shards_dir
from ensemble.tta.fill import plan_digest
from ensemble.tta.member_views import member_views
from ensemble.tta.predict import PredictionRequest, tta_predict

ROWS = 7  # of a shard: 60 images make 9

# Imports once, which takes seconds, and forks for each command, which is then `ens` with small shards. A command is
# killed by itself at its n-th change of a file, or by the kernel after a share of the processor time of a whole one.
DRIVER = """
import dataclasses, json, os, resource, signal, sys
from ensemble import cli
from ensemble.inference import member, predict  # and with them torch and timm
from ensemble.run import Run
from ensemble.tta import predict as tta
with_any = tta.tta_predict
tta.tta_predict = lambda request, events: with_any(dataclasses.replace(request, shard_rows=7), events)
changes = 0
whole = 0.0

def used():
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime

def changed(event, words):
    global changes
    writes = event == "open" and isinstance(words[1], str) and set(words[1]) & set("wxa")
    if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
        changes += 1
        if changes == at:
            os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    words, at, share, largest = json.loads(line)
    before = used()
    (out, own_out), (err, own_err) = os.pipe(), os.pipe()  # which hold 64 kB: more than a command says
    child = os.fork()
    if not child:
        os.dup2(own_out, 1), os.dup2(own_err, 2)
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        sys.argv = ["ens", *words]
        sys.addaudithook(changed)
        signal.setitimer(signal.ITIMER_PROF, share * whole)
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code
        sys.stdout.flush()
        os.write(2, f"\\n{changes}".encode())
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    whole = max(whole, used() - before)
    os.close(own_out), os.close(own_err)
    texts = [open(end).read() for end in (out, err)]
    print(json.dumps([status, *texts]), flush=True)
"""


@pytest.fixture(scope="module")
def run(noise_run):
    return noise_run


@pytest.fixture
def images(tmp_path, paint):
    """60 images, 00.png to 59.png: nine shards."""
    for index in range(60):
        paint(tmp_path / "test" / f"{index:02}.png", 40, 40)
    return tmp_path / "test"


@pytest.fixture(scope="module")
def driver():
    with subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


def attempt(driver, *words, at=0, share=0.0, largest=0):
    """One command: its exit status (below 0: killed), what it said, its error line, how often it changed files."""
    driver.stdin.write(json.dumps([["tta-predict", *map(str, words)], at, share, largest]).encode() + b"\n")
    driver.stdin.flush()
    status, out, err = json.loads(driver.stdout.readline())
    line, _, changes = err.rpartition("\n") if status >= 0 else (err, "", "0")
    return status, out, line.strip(), int(changes)


def predict(run, images, output, **changes):
    """tta_predict in this process with small shards, and what it said."""
    events = Recorder(on_progress=changes.pop("on_progress", lambda *step: None))
    request = PredictionRequest(Run(run), images, output, **{"shard_rows": ROWS, **changes})
    return tta_predict(request, events), events.messages


def refusal(run, images, output, **changes):
    with pytest.raises(UserError) as caught:
        predict(run, images, output, **changes)
    return str(caught.value)


def saved(run, images, blend="mean"):
    return Run(run).predictions_file(images.name, blend)


def forget(run):
    """Remove the logits that the run keeps, so that networks are run."""
    shutil.rmtree(run / "predictions" / "logits", ignore_errors=True)


def kept(run, images, blend="mean"):
    """Shards on disk: name -> time of change."""
    return {path.name: path.stat().st_mtime_ns for path in shards_dir(saved(run, images, blend)).glob("*.safetensors")}


# ---- stopped and gone on -------------------------------------------------------------------------------------------


@pytest.mark.process
def test_killed_anywhere_it_goes_on_to_the_same_bytes(run, images, tmp_path, driver):
    output = tmp_path / "out" / "s.csv"
    words = [run, images, "--form", "probability", "-o", output]
    status, out, line, changes = attempt(driver, *words)
    assert (status, line) == (0, "") and "resuming" not in out and changes > 30
    table, logits = output.read_bytes(), saved(run, images).read_bytes()
    assert table.count(b"\n") == 61 and load_logits(saved(run, images)).values.shape == (1, 60, 2)
    random = np.random.default_rng(0)
    moments = [{"at": int(at)} for at in random.integers(1, changes + 1, 3)]
    moments += [{"share": float(share)} for share in random.uniform(0.1, 0.5, 2)]
    moments += [{"at": changes - 12}]  # between the two final files: only that of the CSV and the shards' end follow
    moments += [{"at": 20}]  # and where all logits are stored from before
    resumed = 0
    for moment in moments:
        output.unlink()
        saved(run, images).unlink()
        if moment != moments[-1]:
            forget(run)
        status, *_ = attempt(driver, *words, **moment)
        assert status == -(signal.SIGPROF if "share" in moment else signal.SIGKILL)
        if moment == moments[0]:
            assert attempt(driver, *words, at=10)[0] == -signal.SIGKILL  # and once more, soon after it went on
        before = list(shards_dir(saved(run, images)).glob("[!.]*.safetensors"))
        status, out, *_ = attempt(driver, *words)
        assert status == 0
        said = re.findall(r"resuming: (\d+) of 9 shards are finished", out)
        assert said == ([str(len(before))] if before else []), moment
        resumed += len(before)
        assert output.read_bytes() == table and saved(run, images).read_bytes() == logits, moment
        left = sorted(path.name for path in saved(run, images).parent.glob(f"*{images.name}-mean*"))
        assert left == [f"{images.name}-mean.safetensors"]
        assert not shards_dir(saved(run, images)).exists()
    assert resumed > 9


def test_a_corrupt_image_is_named_and_costs_only_its_shard(run, images, tmp_path):
    output = tmp_path / "s.csv"
    predict(run, images, output, form="probability")
    want = output.read_bytes(), saved(run, images).read_bytes()
    whole = (images / "30.png").read_bytes()
    stamp = (images / "30.png").stat()
    (images / "30.png").write_bytes(whole[:100])
    line = refusal(run, images, output, form="probability")
    assert line.startswith(f"{images / '30.png'}: not a readable image (")
    assert line.endswith(
        "; replace it or remove it; 4 of 9 shards are kept, and the same command then resumes (with --on-bad skip it "
        "leaves such images without a prediction)"
    )
    assert output.read_bytes() == want[0] and saved(run, images).read_bytes() == want[1]  # the last ones stay
    before = kept(run, images)
    assert len(before) == 4
    forget(run)
    (images / "30.png").write_bytes(whole)
    os.utime(images / "30.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    times, shown = [], []

    def show(text, done, total):
        times.append(kept(run, images))
        if text.startswith("predicting"):
            shown.append(done)

    _, said = predict(run, images, output, form="probability", on_progress=show)
    assert said[-1] == "resuming: 4 of 9 shards are finished"
    assert all(before.items() <= each.items() for each in times)  # they were not written again
    assert shown[0] == 28 and shown[-1] == pytest.approx(60)
    assert (output.read_bytes(), saved(run, images).read_bytes()) == want


def test_a_replaced_file_costs_only_its_shard(run, images, tmp_path, paint):
    output = tmp_path / "s.csv"
    whole = (images / "59.png").read_bytes()
    (images / "59.png").write_text("no image")
    assert "8 of 9 shards are kept" in refusal(run, images, output)
    (images / "59.png").write_bytes(whole)
    paint(images / "10.png", 40, 40, seed=5)
    made, said = predict(run, images, output)
    assert said[-1] == "resuming: 7 of 9 shards are finished"
    fresh, said = predict(run, images, tmp_path / "t.csv")
    assert "resuming" not in said[-1]
    assert np.array_equal(made.probabilities, fresh.probabilities) and len(np.unique(made.probabilities)) > 60


def test_a_changed_blend_keeps_nothing(run, images, tmp_path):
    output = tmp_path / "s.csv"
    whole = (images / "59.png").read_bytes()
    (images / "59.png").write_text("no image")
    blend_run(Run(run), BlendOptions("mean", name="mine"))
    assert "8 of 9 shards are kept" in refusal(run, images, output, blend_name="mine")
    (images / "59.png").write_bytes(whole)
    old = kept(run, images, "mine")
    try:
        blend_run(Run(run), BlendOptions("vote", name="mine"))
        keep = lambda *_: old.update(kept(run, images, "mine"))  # noqa: E731
        _, said = predict(run, images, output, blend_name="mine", on_progress=keep)
        assert not any("resuming" in line for line in said)
        assert len(old) == 16  # 8 of the first plan, 8 of the second when it last showed: none was taken for another
    finally:
        Run(run).blend_json("mine").unlink()


def test_a_damaged_shard_and_external_files_do_not_count(run, images, tmp_path):
    predict(run, images, tmp_path / "s.csv")
    want = saved(run, images).read_bytes()
    whole = (images / "59.png").read_bytes()
    stamp = (images / "59.png").stat()
    (images / "59.png").write_text("no image")
    refusal(run, images, tmp_path / "s.csv")
    (images / "59.png").write_bytes(whole)
    os.utime(images / "59.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    folder = shards_dir(saved(run, images))
    first, second, third, *_ = sorted(folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    save_file({"probabilities": np.zeros((6, 2), np.float32)}, second, {"unreadable": "{}"})
    third.write_text("")
    (folder / ".old.safetensors.1.tmp").write_text("left by a kill")
    left = saved(run, images).with_name(f".{saved(run, images).name}.99999.tmp")
    left.write_text("left by a kill")
    _, said = predict(run, images, tmp_path / "s.csv")
    assert said[-1] == "resuming: 5 of 9 shards are finished" and saved(run, images).read_bytes() == want
    assert not folder.exists() and not left.exists()


def change(path, text):
    """Write another text for as long as the block lasts."""
    before = path.read_bytes() if path.exists() else None
    path.write_text(text)
    return before


def restore(path, before, stamp=None):
    path.unlink() if before is None else path.write_bytes(before)
    if stamp:
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_the_plan_counts_all_that_decides_the_numbers(run):
    whole = load_blend(Run(run), "mean")
    first = dataclasses.replace(whole, members=("resnet",), views=whole.views[:1])
    other = dataclasses.replace(whole, views=(whole.views[0], whole.views[1][:1]))

    def plan(blend=whole, folds=2, batch=64, device="cpu"):
        views = dict(zip(blend.members, blend.views, strict=True))
        columns = member_views(Run(run), views, blend.classes, folds, batch, device)
        return plan_digest(Run(run), "mean", columns)

    usual = plan()
    assert plan() == usual
    fold = Run(run).member("vit").fold(1)
    model = fold.model_file
    stamp = model.stat()
    found = {usual, plan(first), plan(other), plan(folds=1), plan(batch=32), plan(device="cuda")}
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert plan() == usual  # the done marker has a digest of the weights
    before = change(fold.done_json, '{"files": {}}')  # of an older run, it hadn't
    found.add(plan())
    os.utime(model, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    restore(fold.done_json, before)
    for path in (Run(run).blend_json("mean"), Run(run).blend_file("mean"), fold.done_json,
                 Run(run).member("vit").settings_json, fold.inference_json):  # fmt: skip
        before = change(path, '{"files": {}}')
        found.add(plan())
        restore(path, before)
    file = Run(run).member("vit").preprocess_json
    before, stored = file.read_bytes(), read_json(file)
    for key, value in (("std", [0.5, 0.5, 0.9]), ("crop", [20, 20]), ("interpolation", "nearest")):
        file.write_text(json.dumps(stored | {key: value}))
        found.add(plan())
    restore(file, before)
    assert len(found) == 15 and plan() == usual


def test_a_shard_counts_its_own_rows_and_what_was_given_for_them(tmp_path):
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for file in files:
        file.write_text(file.name)
    given = np.arange(8, dtype=np.float32).reshape(1, 4, 2)

    def names(plan="plan", ids=tuple("abcd"), files=files, size=2, given=given):
        made = shards.divide(tmp_path / ".p", plan, ids, files, size, lambda a, b: [given[:, a:b]])
        assert [(shard.start, shard.stop) for shard in made] == [(at, min(at + size, 4)) for at in range(0, 4, size)]
        assert {shard.path.parent for shard in made} == {tmp_path / ".p"}
        return [shard.path.name for shard in made]

    one, two = names()
    assert names() == [one, two] != names("other") and len(names(size=3)) == 2
    assert names(ids=tuple("xbcd"))[0] != one and names(ids=tuple("xbcd"))[1] == two
    assert names(files=[files[1], files[0], *files[2:]])[0] != one
    assert names(given=given[:, :, ::-1]) != [one, two]
    stamp = files[3].stat()
    os.utime(files[3], ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert names()[0] == one and names()[1] != two
    files[3].write_text("4.png")  # as long as before
    os.utime(files[3], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert names() == [one, two]
    files[3].write_text("longer")
    os.utime(files[3], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert names()[1] != two
    files[3].unlink()
    assert names()[0] == one and names()[1] != two


# ---- images that can't be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["label", "index", "probability"])
def test_skipped_images_have_empty_cells_and_shift_nothing(run, images, tmp_path, form):
    good, _ = predict(run, images, tmp_path / "good.csv", form=form)
    good_probabilities = good.probabilities
    bad = [0, 8, *range(20, 29), 59]  # first and last, and all of a shard (21 to 27)
    for index in bad:
        (images / f"{index:02}.png").write_bytes(b"" if index == 8 else b"no image")
    made, said = predict(run, images, tmp_path / "s.csv", form=form, on_bad="skip")
    assert said[3] == "12 of 60 images could not be read and have no prediction:"
    assert said[4].startswith("  00.png: not a readable image (cannot identify image file ")
    assert said[5] == "  08.png: not a readable image (empty file)"
    assert len(said) == 15 and said[13].startswith("  27.png: ") and said[14] == "  and 2 more"
    assert made.said.endswith("; 12 images have empty cells") and made.unreadable == 12
    before, after = ((tmp_path / name).read_text().splitlines() for name in ("good.csv", "s.csv"))
    commas = "," * before[0].count(",")
    for index, (one, two) in enumerate(zip(before[1:], after[1:], strict=True)):
        assert two == (f"{index:02}.png{commas}" if index in bad else one)
    logits = load_logits(saved(run, images))
    rows = np.isin(np.arange(60), bad)
    assert logits.ids.tolist() == [f"{index:02}.png" for index in range(60)]
    assert np.isnan(logits.values[0, rows]).all() and np.isfinite(logits.values[0, ~rows]).all()
    assert np.array_equal(made.probabilities[~rows], good_probabilities[~rows])
    with pytest.raises(
        UserError, match=r"-mean\.safetensors: was replaced by another prediction; start this one again"
    ):
        _ = good.probabilities  # never the other prediction's


@pytest.mark.process
def test_shards_with_skipped_images_go_on_by_skipping_alone(run, images, tmp_path, driver):
    (images / "03.png").write_text("no image")
    words = [run, images, "-o", tmp_path / "s.csv"]
    status, _, line, _ = attempt(driver, *words)
    assert status == 2 and line.startswith(f"ens: {images / '03.png'}: ") and "0 of 9 shards are kept" in line
    shard_files = [*words, "--on-bad", "skip"]
    status, _, _, changes = attempt(driver, *shard_files)
    assert status == 0
    want = (tmp_path / "s.csv").read_bytes()
    assert b"\n03.png,\n" in want
    forget(run)
    assert attempt(driver, *shard_files, at=changes // 2)[0] == -signal.SIGKILL
    there = len(kept(run, images))
    assert 1 < there < 9
    status, _, line, _ = attempt(driver, *words)  # which takes no shard that lacks a row
    assert status == 2 and f"{images / '03.png'}: " in line
    status, out, *_ = attempt(driver, *shard_files)
    assert status == 0 and "resuming: " in out and "1 of 60 images could not be read" in out
    assert (tmp_path / "s.csv").read_bytes() == want


def test_where_no_image_can_be_read_it_is_an_error(run, images, tmp_path):
    for path in images.glob("*"):
        path.write_text("no image")
    line = f"{images}: not one of its 60 images could be read"
    assert refusal(run, images, tmp_path / "s.csv", on_bad="skip") == line
    assert not (tmp_path / "s.csv").exists() and not shards_dir(saved(run, images)).exists()


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_a_full_disk_is_named_and_what_was_there_stays(run, images, tmp_path, driver):
    output, sample = tmp_path / "s.csv", tmp_path / "sample.csv"
    header = "id" * 200 + ",a,b"  # so long that the CSV, written last, is the larger file
    sample.write_text("\n".join([header, *(f"{index:02},0.5,0.5" for index in range(60))]))
    words = [run, images, "--sample-submission", sample, "-o", output]
    assert attempt(driver, *words)[0] == 0
    want = output.read_bytes(), saved(run, images).read_bytes()
    sizes = {output: len(want[0]), saved(run, images): len(want[1])}
    assert sizes[output] > sizes[saved(run, images)] + 1
    for file, size in sizes.items():
        status, out, line, _ = attempt(driver, *words, largest=size - 1)
        assert (status, line) == (
            1,
            f"ens: {file}: could not be written (File too large); what was there before is whole",
        )
        assert (output.read_bytes(), saved(run, images).read_bytes()) == want and len(kept(run, images)) == 9
        assert not list(tmp_path.glob(".*.tmp"))
        status, out, *_ = attempt(driver, *words)
        assert status == 0 and "resuming: 9 of 9 shards are finished" in out
        assert (output.read_bytes(), saved(run, images).read_bytes()) == want
    status, _, line, _ = attempt(driver, *words, largest=199)  # a claim takes less, a shard 224
    folder = shards_dir(saved(run, images))
    assert status == 1 and line.startswith(f"ens: {folder}/") and "could not be written (" in line
    assert (output.read_bytes(), saved(run, images).read_bytes()) == want and not kept(run, images)


def test_an_output_that_can_not_be_written_is_found_before_anything_is_predicted(run, images, tmp_path):
    def show(text, done, total):
        raise AssertionError("it predicts")

    (images / "00.png").write_text("no image")
    (tmp_path / "file").touch()
    for output, reason in ((images, "is a folder; name a file in it"), (tmp_path / "file" / "s.csv", "can't be writ")):
        line = refusal(run, images, output, on_progress=show)
        assert line.startswith(f"{output}: {reason}")
    assert not list(tmp_path.glob(".*"))


def test_an_empty_folder_and_repeated_ids(run, tmp_path, paint):
    (tmp_path / "none").mkdir()
    line = refusal(run, tmp_path / "none", tmp_path / "s.csv")
    assert line.startswith(f"{tmp_path / 'none'}: no images in it or below it (endings known: .avif ")
    paint(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path\na.png\na.png\n")
    line = f"{tmp_path / 't.csv'}: id 'a.png' is there twice; every row needs its own"
    assert refusal(run, tmp_path / "t.csv", tmp_path / "s.csv") == line


# ---- the files -----------------------------------------------------------------------------------------------------


def test_logits_in_pieces_are_the_bytes_of_logits_in_one(tmp_path):
    ids = ["가/한 글.png", "b.png", "007", "d", "e"]
    values = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    values[0, 1] = np.nan
    whole = Logits(np.array(ids), ("blend",), ("NA", "007", "개"), values, {"made by": "시험"})
    whole.save(tmp_path / "whole.safetensors")
    pieces = (values[0, start : start + 2] for start in range(0, 5, 2))
    write_logits(
        tmp_path / "pieces.safetensors", ids, whole.views, whole.classes, values.shape, pieces, {"made by": "시험"}
    )
    assert (tmp_path / "pieces.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    # and of safetensors' own writer, but for the order of its metadata
    tensors = load_file(tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", framework="numpy") as file:
        save_file(tensors, tmp_path / "own.safetensors", file.metadata())
    assert np.array_equal(tensors["values"], values, equal_nan=True) and tensors["id_ends"].dtype == np.int64
    headers, rest = zip(
        *(split((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("pieces", "own")), strict=True
    )
    assert headers[0] == headers[1] and list(headers[0]) == list(headers[1]) and rest[0] == rest[1]
    for mapped in (False, True):
        found = load_logits(tmp_path / "pieces.safetensors", mapped)
        assert found.ids.tolist() == ids and found.values.dtype == np.float32 and found.meta == whole.meta
        assert np.array_equal(found.values, values, equal_nan=True)


def split(content):
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    return json.loads(content[8 : 8 + size]), content[8 + size :]


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        ([np.zeros((2, 2), np.float32)], r"the pieces lack 2 numbers of \(1, 3, 2\)"),
        ([np.zeros((4, 2), np.float32)], r"a piece is float32 \(4, 2\), want float32, \(1, 3, 2\) in all"),
        ([np.zeros((3, 2))], r"a piece is float64 \(3, 2\)"),
    ],
)
def test_pieces_that_are_not_the_whole_are_refused(tmp_path, pieces, line):
    path = tmp_path / "p.safetensors"
    path.write_text("old")
    with pytest.raises(ValueError, match=line):
        write_logits(path, ["a", "b", "c"], ("v",), ("x", "y"), (1, 3, 2), pieces, {})
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_large_file_is_written_and_mapped_with_little_memory(tmp_path):
    ids = [str(row) for row in range(20_000)]
    pieces = (np.full((500, 400), start, np.float32) for start in range(40))
    tracemalloc.start()
    try:
        write_logits(
            tmp_path / "p.safetensors", ids, ("v",), [str(c) for c in range(400)], (1, 20_000, 400), pieces, {}
        )
        values = load_logits(tmp_path / "p.safetensors", mapped=True).values
        assert values[0, 19_999, 399] == 39 and values[0, 0, 0] == 0
        assert tracemalloc.get_traced_memory()[1] < 12e6  # of 32e6 in all
    finally:
        tracemalloc.stop()


def test_external_predictions_stay_with_their_rows_in_every_shard(run, tmp_path):
    table = read_folds(Run(run))
    random = np.random.default_rng(3)
    shares = {
        name: random.uniform(0.05, 0.3) + 0.65 * (label == "a")
        for name, label in zip(table["id"], table["label"], strict=True)
    }
    names = list(shares)
    one, other = names[0], names[-1]  # in the first shard and in the last
    exchanged = shares | {one: shares[other], other: shares[one]}
    for kind, given in (("oof", shares), ("test", shares), ("exchanged", exchanged)):
        lines = [f"{name},{share},{1 - share}" for name, share in given.items()]
        (tmp_path / f"{kind}.csv").write_text("\n".join(["id,a,b", *lines[::-1]]))

    def predicted(kind, rows):
        external = [ExternalFiles("knn", tmp_path / "oof.csv", tmp_path / f"{kind}.csv")]
        blend_run(Run(run), BlendOptions("mean", name="both", external=external), events=SILENT)
        made, _ = predict(run, run.parent / "train", tmp_path / "s.csv", blend_name="both", shard_rows=rows)
        assert made.ids.tolist() == names
        return made.probabilities[:, 0]

    try:
        small, large, after = predicted("test", 3), predicted("test", 100), predicted("exchanged", 3)
        assert np.allclose(small, large, rtol=0, atol=1e-7)
        assert np.flatnonzero(small != after).tolist() == [0, len(names) - 1]
        assert after[0] < small[0] - 0.05 and after[-1] > small[-1] + 0.05
    finally:
        Run(run).blend_json("both").unlink()


# ---- progress ------------------------------------------------------------------------------------------------------


def test_the_speed_counts_only_what_this_process_did():
    events, clock = Recorder(), iter([10.0, 12.0, 14.0, 1014.0])
    advance = paced(events, "predicting", 400, 1000, lambda: next(clock))
    for images in (100, 200, 1):
        advance(images)
    assert events.steps == [
        ("predicting", 400, 1000),
        ("predicting: 50 images/s, 0:10 left", 500, 1000),
        ("predicting: 75 images/s, 0:04 left", 700, 1000),
        ("predicting: 0.3 images/s, 16:37 left", 701, 1000),
    ]


def test_progress_ends_with_all_images(run, images, tmp_path):
    shown = []
    predict(run, images, tmp_path / "s.csv", on_progress=lambda *words: shown.append(words))
    assert shown[:2] == [("loading the networks", number, 2) for number in (0, 1)]
    shown = shown[2:]
    assert shown[0] == ("predicting", 0, 60) and shown[-1][1] == pytest.approx(60)
    assert re.fullmatch(r"predicting: [\d.]+ images/s, 0:00 left", shown[-1][0])
    assert [done for _, done, _ in shown] == sorted(done for _, done, _ in shown)
