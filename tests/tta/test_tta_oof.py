"""Views added to a run that is trained: the rows' own networks, beside what training wrote."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_run, members_table
from ensemble.blend.oof import common_views, fold_logits, read_member, read_oof, read_rows
from ensemble.blend.saved import check_sources
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.claims import claimed
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.inference.member import load_member
from ensemble.inference.predict import predict_stream
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.tta import oof
from ensemble.tta.oof import add_views
from ensemble.tta.search import tta_search

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """experiment(strategy, cache): a finished run of one or two members with the views identity and hflip."""
    folder = tmp_path_factory.mktemp("oof")
    noise = np.random.default_rng(0)
    for index in range(24):
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)

    def train(name, members=("resnet", "vit"), cache="auto", views='"identity", "hflip"'):
        run, file = folder / name, folder / f"{name}.toml"
        file.write_text(
            f'run = "{run}"\nworkers = 1\n[data]\ntrain = "{folder / "images"}"\ncache = "{cache}"\n[folds]\nk = 2\n'
            '[train]\nepochs = 1\nbatch_size = 8\ndtype = "float32"\nmemory_format = "channels_last"\n'
            f'[tta]\ndtype = "float32"\nviews = [{views}]\n'
            + "".join(
                f'[[backbone]]\nname = "{each}"\ntimm = "test_{each}"\npretrained = false\nimage_size = {size}\n'
                for each, size in zip(members, (32, 48), strict=False)
            )
        )
        train_folds(load_config(file), SILENT)
        return run

    train.folder = folder
    return train


@pytest.fixture(scope="module")
def run(experiment):
    return experiment("run")


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_added_views_are_what_prediction_makes_of_the_rows_by_their_own_network(experiment, cache):
    run = experiment(f"cache-{cache}", cache=cache)
    trained = {path: path.read_bytes() for path in run.glob("*/fold*/*")}
    assert add_views(Run(run), ["vflip", "flips", "top-left", "scale1.2*hflip"], SILENT) == ["resnet", "vit"]
    assert {path: path.read_bytes() for path in trained} == trained  # nothing of training's was touched
    new = ("vflip", "rot180", "top-left", "scale1.2*hflip")
    for name in ("resnet", "vit"):
        member = load_member(Run(run).member(name), 2, 2, CPU)
        for fold in (0, 1):
            directory = Run(run).member(name).fold(fold)
            assert directory.is_done()
            kept = fold_logits(directory)
            assert kept.views == ("identity", "hflip", *new)
            assert load_logits(directory.added_views_file).views == new
            paths = [run.parent / "images" / each for each in kept.ids]
            (chunk,) = predict_stream([member], [paths], [kept.views], 64, CPU)
            assert np.array_equal(chunk.values[0][fold], kept.values)
            assert not np.array_equal(chunk.values[0][1 - fold], kept.values)


def test_views_that_are_there_are_not_made_again(run):
    add_views(Run(run), ["vflip"], SILENT)
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/fold*/views.safetensors")}
    events = Recorder()
    add_views(Run(run), ["vflip", "identity"], events)
    assert events.messages == [f"{run}: all finished members have these views already"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    lost = Run(run).member("vit").fold(1).added_views_file
    lost.unlink()
    add_views(Run(run), ["vflip"], SILENT)  # goes on where it was stopped
    assert lost.is_file() and before[Run(run).member("vit").fold(0).added_views_file] == (
        Run(run).member("vit").fold(0).added_views_file.stat().st_mtime_ns
    )
    add_views(Run(run), ["rot180"], SILENT)
    assert fold_logits(Run(run).member("vit").fold(1)).views == ("identity", "hflip", "vflip", "rot180")


def test_a_blend_stays_valid_when_views_are_added_and_a_new_one_may_use_them(experiment):
    run = experiment("blended", members=("resnet",))
    blend_run(Run(run), BlendOptions("mean"), events=SILENT)
    add_views(Run(run), ["vflip"], SILENT)
    check_sources(Run(run), "mean")
    assert blend_run(Run(run), BlendOptions("mean", name="trained"), events=SILENT).views == {
        "resnet": ("identity", "hflip")
    }
    views = ("identity", "vflip")
    assert blend_run(Run(run), BlendOptions("mean", name="more", views=views), events=SILENT).views == {"resnet": views}
    directory = Run(run).member("resnet").fold(0)
    added = load_logits(directory.added_views_file)
    dataclasses.replace(added, values=added.values + 1).save(directory.added_views_file)
    check_sources(Run(run), "mean")  # does not use the view that changed
    with pytest.raises(UserError, match="blend 'more' was fitted on another 'resnet' than"):
        check_sources(Run(run), "more")


def test_a_fold_that_another_process_has_is_waited_for(experiment, monkeypatch):
    monkeypatch.setattr(oof, "WAIT_SECONDS", 0.01)
    run = experiment("shared")
    folds = [Run(run).member(name).fold(number) for name in ("resnet", "vit") for number in (0, 1)]
    add_views(Run(run), ["vflip"], SILENT)
    alone = [fold.added_views_file.read_bytes() for fold in folds]
    for fold in folds:
        fold.added_views_file.unlink()
    events = Recorder()
    with claimed(folds[1].claim_file):
        thread = threading.Thread(target=add_views, args=(Run(run), ["vflip"], events))
        thread.start()
        while not events.messages or not events.messages[-1].startswith("waiting: the last 1 fold is held by process"):
            thread.join(0.01)
        assert [fold.added_views_file.is_file() for fold in folds] == [True, False, True, True]
        add_views_file, before = folds[1].added_views_file, len(events.steps)
        add_views_file.write_bytes(alone[1])
    thread.join()
    assert [fold.added_views_file.read_bytes() for fold in folds] == alone
    (_, done, total) = events.steps[-1]
    assert done == total and len(events.steps) == before + 1  # nothing was computed again


def test_training_a_fold_again_drops_what_was_added(experiment):
    run = experiment("again", members=("resnet",))
    add_views(Run(run), ["vflip"], SILENT)
    directory = Run(run).member("resnet").fold(1)
    directory.done_json.unlink()
    train_folds(load_config(Run(run).config_toml), SILENT)
    assert not directory.added_views_file.is_file()
    assert common_views(Run(run)) == ("identity", "hflip") and read_oof(Run(run)).views == (("identity", "hflip"),)
    members_table(Run(run))  # the scores of the run are those of the views that it was trained with
    lacking = r"not vflip; choose with --views among .*, or add it: ens tta-oof .*again --views vflip"
    with pytest.raises(UserError, match=lacking):
        read_oof(Run(run), ["vflip"])
    add_views(Run(run), ["vflip"], SILENT)
    assert common_views(Run(run)) == ("identity", "hflip", "vflip")


def test_views_added_in_another_order_are_the_same_views(experiment):
    """As after a stop: one fold got b after a, the other a after b."""
    run = experiment("order", members=("resnet",))
    one, other = (Run(run).member("resnet").fold(fold).added_views_file for fold in (0, 1))
    add_views(Run(run), ["vflip"], SILENT)
    other.unlink()
    add_views(Run(run), ["rot180", "vflip"], SILENT)
    assert load_logits(one).views == ("vflip", "rot180") and load_logits(other).views == ("rot180", "vflip")
    assert common_views(Run(run)) == ("identity", "hflip", "vflip", "rot180")
    rows = read_rows(Run(run))
    values, names = read_member(Run(run), "resnet", rows, ("rot180",))
    for fold, path in ((0, one), (1, other)):
        added = load_logits(path)
        want = added.values[[added.views.index("rot180")]]
        assert names == ("rot180",) and np.array_equal(values[:, rows.folds == fold], want)


def test_a_member_that_is_set_aside_takes_no_view_from_the_others(experiment):
    """A student that gained nothing, trained after views were added to those that it learned from."""
    run = experiment("aside")
    add_views(Run(run), ["vflip"], SILENT)
    student = Run(run).member("vit")
    for fold in (0, 1):
        student.fold(fold).added_views_file.unlink()
    assert common_views(Run(run)) == ("identity", "hflip")
    student.set_aside("it gained nothing")
    assert common_views(Run(run)) == ("identity", "hflip", "vflip")


def test_added_views_of_other_rows_are_refused(experiment):
    run = experiment("other rows", members=("resnet",))
    add_views(Run(run), ["vflip"], SILENT)
    path = Run(run).member("resnet").fold(0).added_views_file
    added = load_logits(path)
    dataclasses.replace(added, ids=added.ids[::-1]).save(path)
    with pytest.raises(UserError, match=r"views\.safetensors: not of the rows and classes of oof.*; delete it"):
        read_oof(Run(run), ["vflip"])


@pytest.mark.parametrize(
    ("views", "error"),
    [
        (["vflp"], r"unknown view 'vflp'; did you mean 'vflip'\?"),
        (["hflip*vflip", "rot180"], "member 'resnet': view 'rot180' shows the same pixels as 'hflip.vflip' at 32 px"),
        (["hflip*hflip"], "member 'resnet': view 'hflip.hflip' shows the same pixels as 'identity' at 32 px out of"),
        (["scale0.5"], "member 'resnet': "),
    ],
)
def test_views_that_cannot_be_had_are_named_before_anything_is_computed(experiment, views, error):
    run = experiment("refused")
    with pytest.raises(UserError, match=error):
        add_views(Run(run), views, SILENT)
    assert not list(run.glob("*/fold*/views.safetensors"))


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_larger_input_is_a_view_in_training_afterwards_and_in_the_search(experiment, cache):
    run = experiment(f"sizes-{cache}", members=("resnet",), cache=cache, views='"identity", "size48"')
    add_views(Run(run), ["hflip*size40"], SILENT)
    member = load_member(Run(run).member("resnet"), 2, 2, CPU)
    for fold in (0, 1):
        kept = fold_logits(Run(run).member("resnet").fold(fold))
        assert kept.views == ("identity", "size48", "hflip*size40")
        paths = [run.parent / "images" / each for each in kept.ids]
        (chunk,) = predict_stream([member], [paths], [kept.views], 64, CPU)
        assert np.array_equal(chunk.values[0][fold], kept.values)
    found, _ = tta_search(Run(run), None, "log_loss", SILENT)
    assert {single.view for single in found.singles} == {"size48", "hflip*size40"}


def test_a_size_that_a_backbone_does_not_take_is_refused(experiment):
    line = r"view 'size64': test_vit3 takes no images of 64 px \(Input height \(64\) doesn't .+\); leave the view out$"
    with pytest.raises(UserError, match=rf"^tta.views, for backbone 'vit3': {line}"):
        experiment("too-large", ("vit3",), views='"identity", "size64"')
    assert not (experiment.folder / "too-large").exists()
    run = experiment("fixed", ("resnet", "vit3"))
    with pytest.raises(UserError, match=rf"^member 'vit3': {line}"):
        add_views(Run(run), ["size64"], SILENT)
    assert not list(run.glob("*/fold*/views.safetensors"))  # not the resnet's either


def test_images_that_are_not_the_run_s_are_refused(experiment):
    run = experiment("changed", members=("resnet",))
    extra = run.parent / "images" / "a" / "extra.png"
    Image.new("RGB", (40, 40)).save(extra)
    try:
        with pytest.raises(UserError, match=r"images: not the images that .*changed was trained on"):
            add_views(Run(run), ["vflip"], SILENT)
    finally:
        extra.unlink()


def test_a_search_adds_views_scores_them_and_is_saved(experiment):
    run = experiment("search")
    events = Recorder()
    found, path = tta_search(Run(run), ["vflip"], "log_loss", events)
    assert path == run / "tta-search.json" and read_json(path)["chosen"] == list(found.chosen)
    assert found.base == "identity" and len(found.sizes) == 3
    assert [size.ms for size in found.sizes] == sorted(size.ms for size in found.sizes) and found.sizes[0].ms > 0
    assert {"out-of-fold logits of new views", "timing the views"} <= {text for text, *_ in events.steps}


def test_a_search_among_one_view_says_what_to_do(experiment):
    run = experiment("one", members=("resnet",))
    for fold in (0, 1):
        path = Run(run).member("resnet").fold(fold).oof_file
        logits = load_logits(path)
        dataclasses.replace(logits, views=("identity",), values=logits.values[:1]).save(path)
        done = path.with_name("done.json")
        facts = read_json(done)
        facts["files"][path.name] = path.stat().st_size
        write_json(done, facts)
    with pytest.raises(UserError, match="has only the view identity; name others with --views, as in --views d4"):
        tta_search(Run(run), None, "log_loss", SILENT)


def test_a_run_without_a_finished_member_is_refused(experiment):
    run = experiment("unfinished", members=("resnet",))
    Run(run).member("resnet").fold(1).done_json.unlink()
    with pytest.raises(UserError, match="no member has all its folds finished; train on with: ens train-folds"):
        add_views(Run(run), ["vflip"], SILENT)
