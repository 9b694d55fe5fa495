"""The short form of the harness of flips, and what people are told of damage."""

import json
import shutil

import built
import flips
import pytest
from click.testing import CliRunner
from recorder import Recorder

from ensemble.blend import load_blend
from ensemble.cli import ens
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.overview.verify import lines, verify
from ensemble.run import Run
from ensemble.train.jobs import train_folds


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return built.build(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the whole run, elsewhere, which may be harmed."""
    return built.copied(runs[0], tmp_path)


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def trained_on(run):
    """The lines that `ens train-folds` of the run's own config says, with the run where it lies now."""
    said = []
    assert train_folds(load_config(Run(run).config_toml, (f"run={run}",)), Recorder(said)) == []
    return [line for line in said if line.startswith("warning: ")]


def test_every_flip_is_noticed_or_changes_no_number(runs):
    counts, wrong = flips.flip_run(runs, 2 * len(flips.READERS), 1, lambda turn: turn % 8 == 0)
    assert wrong == []
    assert {kind for kind, _ in counts} == {*flips.READERS, "ens verify"}
    assert sum(counts[kind, "noticed"] for kind in flips.READERS) >= 2 * len(flips.READERS) - 2


def test_flips_in_the_cache_change_no_pixel(runs, tmp_path):
    cache = shutil.copytree(runs[0].parent / "cache", tmp_path / "cache")
    counts, wrong = flips.flip_cache(runs[0].parent / "e.toml", cache, 8, 1)
    assert wrong == [] and counts.total() == 8


# ---- ens verify ----------------------------------------------------------------------------------------------------


def verified(*arguments):
    done = CliRunner().invoke(ens, ["verify", *map(str, arguments)])
    return done.exit_code, done.output


def test_sound_run_that_was_copied(run):
    found = verify(Run(run), SILENT)
    assert found.findings == () and found.unvouched == 0 and found.unfinished == () and found.notes == ()
    ours = (".json", ".safetensors", ".csv", ".toml", ".jsonl")
    there = [path for path in run.rglob("*") if path.suffix in ours and path.is_file()]
    assert found.images == 40 and found.files == len(there)
    status, said = verified(run)
    assert status == 0
    assert said == f"{run}: {found.files} of {found.files} files sound; 40 cached images compared\n"


def test_damaged_and_missing_files_are_told_with_what_makes_them_again(run):
    flip(run / "resnet" / "fold0" / "model.safetensors")
    flip(run / "resnet" / "fold1" / "views.safetensors")
    (run / "blends" / "stack.safetensors").unlink()
    (run / "classes.json").unlink()
    status, said = verified(run)
    assert status == 1
    wrong = "damaged: its bytes are not those that ens wrote; lost:"
    again = f"ens train-folds {run}/config.toml"
    expected = [
        f"{run}/classes.json: missing; lost: the names of the classes; {again} writes them again",
        f"{run}/resnet/fold0/model.safetensors: {wrong} the weights of resnet, fold 0; {again} trains that fold again",
        f"{run}/resnet/fold1/views.safetensors: {wrong} the out-of-fold logits of the views that were added to resnet, "
        f"fold 1; ens tta-oof {run} --views NAMES computes them again",
        f"{run}/blends/stack.safetensors: missing; lost: the blend stack; fit it again with: ens blend {run}",
    ]  # fmt: skip
    for line in expected:
        assert line in said.splitlines()
    assert said.splitlines()[-1].endswith("files sound, 2 damaged, 2 missing; 40 cached images compared")


def test_verify_as_json(run):
    flip(run / "probed" / "probe.safetensors")
    done = CliRunner().invoke(ens, ["verify", str(run), "--json"])
    document = json.loads(done.stdout)
    (finding,) = document["result"]["findings"]
    assert done.exit_code == 1 and document["command"] == "verify"
    assert (finding["path"], finding["state"]) == (str(run / "probed" / "probe.safetensors"), "damaged")


def test_cache_that_was_moved(run, runs, tmp_path):
    cache = shutil.copytree(runs[0].parent / "cache", tmp_path / "moved")
    data = next(cache.glob("pixels/*/*.u8"))
    flip(data)
    found = verify(Run(run), SILENT, cache)
    (finding,) = found.findings
    assert finding.path == data and "1 of 20 images damaged; its images are decoded again" in finding.line
    assert "holds no cached pixels" in " ".join(lines(verify(Run(run), SILENT, tmp_path / "nowhere")))


def test_run_of_before_there_were_digests(runs, tmp_path):
    run = built.copied(runs[0], tmp_path)
    for path in run.rglob("*.json"):
        held = json.loads(path.read_text())
        if isinstance(held, dict):
            held.pop("checksum")
            held.pop("files" if path.name == "provenance.json" else "", None)
            path.write_text(json.dumps(held))
    done = CliRunner().invoke(ens, ["blend", str(run), "--method", "mean", "--name", "new"])
    note = f"{run}: was begun before digests were kept, so damage in it cannot be detected"
    assert done.exit_code == 0 and done.output.splitlines().count(note) == 1
    status, said = verified(run)
    assert status == 0 and "files were made before digests were kept: damage there cannot be detected" in said


# ---- what makes it again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "oof.safetensors"])
def test_damaged_fold_is_trained_again_to_the_same_bytes(run, name):
    path = run / "resnet" / "fold1" / name
    whole = path.read_bytes()
    flip(path)
    (warning,) = trained_on(run)
    assert warning.startswith(f"warning: {path}: damaged") and path.read_bytes() == whole
    assert verify(Run(run), SILENT).findings == ()


@pytest.mark.parametrize(
    "name",
    ["folds.csv", "classes.json", "provenance.json", "probed/settings.json", "resnet/preprocess.json",
     "resnet/fold0/done.json"],
)  # fmt: skip
def test_damaged_file_is_made_again(run, name):
    path = run / name
    whole = path.read_bytes()
    flip(path, 5)
    with pytest.raises(UserError, match=r"lost: .*; ens train-folds .*config\.toml .* again"):
        verify_one(run, path)
    assert len(trained_on(run)) == 1
    assert path.read_bytes() == whole or name == "provenance.json"
    assert verify(Run(run), SILENT).findings == ()


def verify_one(run, path):
    (finding, *_) = [own for own in verify(Run(run), SILENT).findings if own.path == path]
    raise UserError(finding.line)


def test_damaged_folds_of_other_data_are_not_made_up(run):
    flip(run / "folds.csv", 20)
    flip(run / "provenance.json", 20)
    with pytest.raises(UserError, match="but it differs when made again"):
        trained_on(run)


def test_damaged_state_begins_the_fold_again(runs, tmp_path):
    stopped = built.copied(runs[1], tmp_path)
    state = stopped / "resnet" / "fold1" / "state" / "last.safetensors"
    flip(state)
    (warning,) = trained_on(stopped)
    assert warning.startswith(f"warning: {state}: damaged: ")
    assert "lost: the epochs so far of resnet, fold 1; ens train-folds" in warning
    whole = runs[0] / "resnet" / "fold1" / "model.safetensors"
    assert (stopped / "resnet" / "fold1" / "model.safetensors").read_bytes() == whole.read_bytes()


def test_exchanged_folds_are_trained_again(run):
    one, other = ((run / "resnet" / f"fold{fold}" / "model.safetensors") for fold in (0, 1))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert [line.partition(";")[0] for line in trained_on(run)] == [
        f"warning: {one}: holds resnet, fold 1: files were exchanged",
        f"warning: {other}: holds resnet, fold 0: files were exchanged",
    ]
    assert (one.read_bytes(), other.read_bytes()) == (first, second)


def test_damaged_views_are_computed_again(run):
    path = run / "resnet" / "fold0" / "views.safetensors"
    whole = path.read_bytes()
    flip(path)
    done = CliRunner().invoke(ens, ["tta-oof", str(run), "--views", "vflip"])
    assert done.exit_code == 0 and f"warning: {path}: damaged" in done.output
    assert path.read_bytes() == whole


def test_edited_config_is_taken_with_a_word(run):
    path = Run(run).config_toml
    path.write_text(path.read_text().replace("batch_size = 64", "batch_size = 32"))
    done = CliRunner().invoke(ens, ["tta-predict", str(run), str(run)])
    done = CliRunner().invoke(ens, ["train-folds", str(path), "--set", f"run={run}"])
    assert done.exit_code == 0, done.output
    assert f"{path}: not as ens wrote it: read as you edited it; if you did not, put it back from a copy" in done.output
    assert verify(Run(run), SILENT).findings == ()


def test_weights_of_another_member_are_refused(run):
    path = run / "resnet" / "fold0" / "oof.safetensors"
    path.write_bytes((run / "probed" / "fold0" / "oof.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"oof\.safetensors: holds probed, fold 0: files were exchanged"):
        load_logits(path)


def test_damaged_shard_is_predicted_again(run, runs, tmp_path):
    images = runs[0].parent / "more"
    (shard,) = (run / "predictions").glob(".more-*/*.safetensors")
    flip(shard)
    done = CliRunner().invoke(ens, ["tta-predict", str(run), str(images), "-o", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.csv").read_bytes()
    assert load_blend(Run(run), "stack").members == ("probed", "resnet")
