"""Numeric settings: found on real networks, and kept, so that one machine makes one choice."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from recorder import Recorder

from ensemble.backbones import timm_model
from ensemble.config import load_config
from ensemble.data.logits import load_logits
from ensemble.errors import RunFailure, UserError
from ensemble.run import Run
from ensemble.train import numerics
from ensemble.train.jobs import train_folds
from ensemble.train.numerics import (
    Numerics,
    autocast_as,
    candidates,
    describe,
    in_memory_format,
    known_file,
    load_numerics,
    save_numerics,
)

CPU = torch.device("cpu")
PLAIN = Numerics("float32", "channels_last", False, 0, 0.0)


def find_numerics(*words):
    """The choice alone."""
    return numerics.find_numerics(*words)[0]


@pytest.fixture
def idle(monkeypatch):
    """A machine with nothing else to do, which that of the tests may not be."""
    monkeypatch.setattr(numerics, "was_busy", lambda begun: False)


def network():
    return timm_model.create("test_resnet", 3, 32)


def limited(most):
    """A network that more than `most` images at a time don't fit into."""

    def refuse(module, inputs):
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError(f"no room for {len(inputs[0])}")

    def create():
        model = network()
        model.register_forward_pre_hook(refuse)
        return model

    return create


# ---- what is timed -------------------------------------------------------------------------------------------------


def test_a_cpu_tries_both_types_in_both_layouts_uncompiled():
    assert candidates(CPU, "auto", "auto", "auto") == [
        Numerics("float32", "channels_last", False, 0, 0.0),
        Numerics("float32", "contiguous", False, 0, 0.0),
        Numerics("bfloat16", "channels_last", False, 0, 0.0),
        Numerics("bfloat16", "contiguous", False, 0, 0.0),
    ]


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_set_by_hand_is_not_varied(compiled):
    assert candidates(CPU, "bfloat16", "contiguous", compiled) == [Numerics("bfloat16", "contiguous", compiled, 0, 0.0)]
    kinds = {(each.dtype, each.memory_format) for each in candidates(CPU, "auto", "contiguous", compiled)}
    assert kinds == {("float32", "contiguous"), ("bfloat16", "contiguous")}
    assert {each.compile for each in candidates(CPU, "auto", "auto", compiled)} == {compiled}


def test_apples_gpu_has_one_layout_and_type():
    plan = candidates(torch.device("mps"), "auto", "auto", "auto")
    assert plan == [Numerics("float32", "contiguous", False, 0, 0.0)]


@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_tries_compiling_too_and_bfloat16_first_where_it_has_it(half, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: half and not including_emulation)
    plan = candidates(torch.device("cuda"), "auto", "auto", "auto")
    assert [each.compile for each in plan] == [False] * (len(plan) // 2) + [True] * (len(plan) // 2)
    assert len(plan) == (8 if half else 4)
    assert {each.dtype for each in plan} == ({"bfloat16", "float32"} if half else {"float32"})
    assert plan[0] == Numerics("bfloat16" if half else "float32", "channels_last", False, 0, 0.0)


# ---- timing --------------------------------------------------------------------------------------------------------


def test_one_of_the_plan_is_found_by_real_steps():
    plan = candidates(CPU, "auto", "auto", "auto")
    found = find_numerics(network, 32, 3, 4, CPU, plan)
    assert replace(found, micro_batch=0, images_per_second=0.0) in plan
    assert found.micro_batch == 4 and found.images_per_second > 0


def test_steps_are_those_of_training_and_change_no_weight():
    seen = []

    def create():
        model = network()
        weight = next(model.parameters())
        before = weight.detach().clone()

        def look(module, inputs):
            layout = inputs[0].is_contiguous(memory_format=torch.channels_last)
            same = torch.equal(weight, before)
            seen.append((inputs[0].shape, layout, module.training, torch.is_autocast_enabled("cpu"), same))

        model.register_forward_pre_hook(look)
        return model

    plan = [PLAIN, replace(PLAIN, dtype="bfloat16", memory_format="contiguous")]
    find_numerics(create, 32, 3, 4, CPU, plan)
    assert set(seen) == {((4, 3, 32, 32), True, True, False, True), ((4, 3, 32, 32), False, True, True, True)}
    rounds = 2 * numerics.ROUNDS
    assert rounds * (numerics.WARMUP + 1) <= len(seen) <= rounds * (numerics.WARMUP + numerics.STEPS)


@pytest.mark.parametrize("fast", ["float32", "bfloat16"])
def test_the_faster_one_is_taken(fast, monkeypatch):
    monkeypatch.setattr(numerics, "ROUNDS", 1)

    def wait(module, inputs):
        if torch.is_autocast_enabled("cpu") != (fast == "bfloat16"):
            time.sleep(0.5)

    def create():
        model = network()
        model.register_forward_pre_hook(wait)
        return model

    plan = [PLAIN, replace(PLAIN, dtype="bfloat16")]
    assert find_numerics(create, 32, 3, 2, CPU, plan).dtype == fast


@pytest.mark.parametrize(("speeds", "taken"), [((100.0, 109.0), 0), ((100.0, 111.0), 1), ((100.0, 111.0, 121.0), 1)])
def test_a_later_one_has_to_be_faster_by_a_tenth(speeds, taken, monkeypatch):
    plan = candidates(CPU, "auto", "auto", "auto")[: len(speeds)]
    given = dict(zip(plan, speeds, strict=True))
    monkeypatch.setattr(numerics, "_speed", lambda *words: given[replace(words[-1], micro_batch=0)])
    found = find_numerics(network, 32, 3, 4, CPU, plan)
    assert found == replace(plan[taken], micro_batch=4, images_per_second=speeds[taken])


@pytest.mark.parametrize(
    ("rounds", "taken", "doubt"),
    [
        ([(100, 120), (90, 110), (95, 130)], "bfloat16", ""),
        ([(100, 90), (90, 80), (95, 100)], "float32", ""),
        (
            [(20, 120), (130, 120), (130, 120)],
            "float32",
            "the trials did not agree",
        ),  # float32's first turn was unlucky
        ([(100, 120), (100, 120), (100, 105)], "float32", "the trials did not agree"),
    ],
)
def test_a_faster_one_has_to_be_so_in_every_round(rounds, taken, doubt, monkeypatch, idle):
    turns = {name: iter([pair[number] for pair in rounds]) for number, name in enumerate(("float32", "bfloat16"))}
    monkeypatch.setattr(numerics, "_speed", lambda *words: next(turns[words[-1].dtype]))
    plan = [PLAIN, replace(PLAIN, dtype="bfloat16")]
    found, why = numerics.find_numerics(network, 32, 3, 4, CPU, plan)
    assert (found.dtype, why) == (taken, doubt)
    assert found.images_per_second == max(pair[("float32", "bfloat16").index(taken)] for pair in rounds)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts how long a thread waits")
def test_a_busy_machine_is_noticed():
    """Another process computes on the only core that this one may use."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        words = [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            try:
                assert numerics.find_numerics(network, 64, 3, 32, CPU, [PLAIN])[1] == "the machine was busy"
            finally:
                other.kill()
    finally:
        os.sched_setaffinity(0, cores)


def test_slow_is_not_0(monkeypatch):
    monkeypatch.setattr(numerics, "_speed", lambda *_: 1 / 30)
    assert find_numerics(network, 32, 3, 4, CPU, [PLAIN]).images_per_second == 0.03333


# ---- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "most", "found"), [(16, 16, 16), (16, 15, 8), (16, 4, 4), (16, 2, 2), (12, 3, 3), (2, 2, 2)]
)
def test_the_batch_is_halved_until_it_fits(batch, most, found):
    assert find_numerics(limited(most), 32, 3, batch, CPU, [PLAIN]).micro_batch == found


@pytest.mark.parametrize(("batch", "least"), [(16, 2), (12, 3), (3, 3), (2, 2)])
def test_where_not_even_the_least_fits_the_size_is_to_blame(batch, least):
    with pytest.raises(RunFailure) as error:
        find_numerics(limited(1), 32, 3, batch, CPU, [PLAIN])
    assert str(error.value) == f"not even {least} images of 32 px fit into memory; lower the image_size"


def test_a_candidate_that_never_fits_leaves_the_ones_that_do():
    def refuse(module, inputs):
        if torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("no room")

    def create():
        model = network()
        model.register_forward_pre_hook(refuse)
        return model

    half = replace(PLAIN, dtype="bfloat16")
    found = find_numerics(create, 32, 3, 8, CPU, [PLAIN, half])
    assert (found.dtype, found.micro_batch) == ("float32", 8)
    with pytest.raises(RunFailure, match="not even 2 images"):
        find_numerics(create, 32, 3, 8, CPU, [half])


def test_other_errors_are_not_taken_for_want_of_memory():
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        find_numerics(fail, 32, 3, 8, CPU, [PLAIN])


def test_a_compiler_that_fails_is_done_without_where_it_may_be():
    def broken():
        raise RuntimeError("no compiler")

    def create():
        model = network()
        model.compile = broken
        return model

    compiled = replace(PLAIN, compile=True)
    assert not find_numerics(create, 32, 3, 4, CPU, [PLAIN, compiled]).compile
    with pytest.raises(RunFailure) as error:
        find_numerics(create, 32, 3, 4, CPU, [compiled])
    assert str(error.value) == "torch.compile failed; set compile = false"


def test_compiling_is_tried_with_the_best_of_the_other_settings_alone(monkeypatch):
    speeds = {("float32", "channels_last"): 100.0, ("float32", "contiguous"): 150.0, ("bfloat16", "contiguous"): 90.0}
    timed = []

    def speed(create, size, classes, batch, device, how):
        timed.append(how)
        return speeds[how.dtype, how.memory_format] * (2 if how.compile else 1)

    monkeypatch.setattr(numerics, "_speed", speed)
    plan = [Numerics(*each, compiled, 0, 0.0) for compiled in (False, True) for each in speeds]
    found = find_numerics(network, 32, 3, 4, CPU, plan)
    assert found == Numerics("float32", "contiguous", True, 4, 300.0)
    plain = [replace(own, micro_batch=4) for own in plan[:3]]
    assert timed == [*plan[:3], *plain, *plain, plan[4]]
    timed.clear()
    assert find_numerics(network, 32, 3, 4, CPU, plan[3:]) == found  # compile = true, set by hand: all are timed
    assert timed == plan[3:]
    assert not numerics.find_numerics(network, 32, 3, 4, CPU, plan, 600 * 150)[0].compile  # of a job of ten minutes
    assert numerics.find_numerics(network, 32, 3, 4, CPU, plan, 601 * 150)[0].compile


# ---- layouts and types ---------------------------------------------------------------------------------------------


def test_images_are_in_memory_format_and_computed_as_found():
    images = torch.randn(2, 3, 8, 8)
    last, first = in_memory_format(images, PLAIN), in_memory_format(images, replace(PLAIN, memory_format="contiguous"))
    assert torch.equal(last, images) and torch.equal(first, images)
    assert last.is_contiguous(memory_format=torch.channels_last) and first.is_contiguous()
    for dtype in ("float32", "bfloat16"):
        with autocast_as(CPU, replace(PLAIN, dtype=dtype)):
            assert str(torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype) == f"torch.{dtype}"


def test_describe():
    assert describe(Numerics("bfloat16", "contiguous", True, 32, 812.6)) == (
        "bfloat16, contiguous, compiled, 32 images at a time: 813 images/s in the trial"
    )
    assert describe(replace(PLAIN, micro_batch=8, images_per_second=5.0)) == (
        "float32, channels_last, 8 images at a time: 5 images/s in the trial"
    )


# ---- files ---------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read(tmp_path):
    found = Numerics("bfloat16", "contiguous", True, 32, 812.6)
    save_numerics(tmp_path / "numerics.json", found)
    assert load_numerics(tmp_path / "numerics.json") == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("{}", "has no key 'dtype'"),
        (
            json.dumps({**vars(PLAIN), "speed": 1}),
            "has the unknown key 'speed'; known are: dtype, memory_format, compile, micro_batch, images_per_second",
        ),
        (json.dumps({**vars(PLAIN), "micro_batch": 1.5}), "key 'micro_batch' should be a valid integer, but is 1.5"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, reason):
    file = tmp_path / "numerics.json"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_numerics(file)
    assert str(error.value) == f"{file}: {reason}; delete it, and the numeric settings are found again"


def test_a_list_is_no_settings(tmp_path):
    file = tmp_path / "numerics.json"
    file.write_text("[1]")
    with pytest.raises(UserError, match="should be an object"):
        load_numerics(file)


def test_the_same_facts_have_one_file_and_others_another(tmp_path, monkeypatch):
    facts = {"timm": "resnet18", "size": 224, "batch": 64, "plan": ["a", "b"], "device": "cpu", "threads": 2}
    file = known_file(tmp_path, **facts)
    assert file == known_file(tmp_path, **dict(reversed(facts.items())))
    assert file.parent == tmp_path and file.suffix == ".json" and len(file.stem) == 24
    changes = {"timm": "resnet34", "size": 160, "batch": 32, "plan": ["b", "a"], "device": "H100", "threads": 1}
    others = {known_file(tmp_path, **facts | {key: value}) for key, value in changes.items()}
    assert len(others | {file}) == 7
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert known_file(tmp_path, **facts) not in others | {file}


# ---- in a run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def experiment(tmp_path, paint, monkeypatch):
    """experiment(name, *changes): train it in a run directory of its own; what is said and shown, and the directory."""
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
    for index in range(12):
        paint(tmp_path / "images" / "ab"[index % 2] / f"{index}.png")

    def train(name, *changes):
        file = tmp_path / f"{name}.toml"
        file.write_text(
            f'run = "{tmp_path / name}"\nworkers = 1\n[data]\ntrain = "{tmp_path / "images"}"\nimage_size = 32\n'
            "[folds]\nk = 2\n[train]\nepochs = 2\nbatch_size = 4\n"
            '[[backbone]]\nname = "net"\ntimm = "test_resnet"\npretrained = false\n'
        )
        events = Recorder()
        assert train_folds(load_config(file, changes), events) == []
        return tmp_path / name, [text for text, *_ in events.steps], events.messages

    return train


def oof(run):
    return [load_logits(Run(run).member("net").fold(fold).oof_file).values for fold in (0, 1)]


@pytest.fixture
def agreed(idle, monkeypatch):
    """Trials that agree, and are slower than training: on a busy machine neither is sure."""
    monkeypatch.setattr(numerics, "_speed", lambda *words: 1.0)


def test_another_run_of_the_same_takes_the_kept_choice_and_gives_the_same_bits(experiment, tmp_path, agreed):
    one, shown, said = experiment("one")
    assert "net: finding the fastest numeric settings" in shown
    (known,) = (tmp_path / "cache" / "numerics").iterdir()
    kept = load_numerics(known)
    assert load_numerics(Run(one).member("net").numerics_json) == kept
    assert f"net: {describe(kept)}" in said
    save_numerics(known, replace(kept, images_per_second=12.345))
    two, shown, said = experiment("two")
    assert "net: finding the fastest numeric settings" not in shown
    assert load_numerics(Run(two).member("net").numerics_json) == replace(kept, images_per_second=12.345)
    assert any("12 images/s in the trial" in line for line in said)
    assert all((a == b).all() for a, b in zip(oof(one), oof(two), strict=True))


def test_a_choice_that_is_in_doubt_is_the_runs_alone(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(numerics, "was_busy", lambda begun: True)
    line = "net: the machine was busy while the numeric settings were timed; they will be timed again in the next run"
    run, _, said = experiment("one", "train.dtype=float32")
    assert line in said
    assert Run(run).member("net").numerics_json.is_file() and not list((tmp_path / "cache" / "numerics").glob("*"))
    by_hand = experiment("two", "train.dtype=float32", "train.memory_format=contiguous")[2]
    assert line not in by_hand  # nothing was chosen


def test_settings_by_hand_are_not_doubted(experiment, idle, monkeypatch):
    monkeypatch.setattr(numerics, "_speed", lambda *words: 1e6)
    by_hand = ("train.dtype=float32", "train.memory_format=contiguous", "train.batch_size=2")
    assert not any("where the trial had" in line for line in experiment("one", *by_hand)[2])


def test_a_choice_that_training_belies_is_forgotten_by_the_machine_and_kept_by_the_run(
    experiment, tmp_path, idle, monkeypatch
):
    monkeypatch.setattr(numerics, "_speed", lambda *words: 1e6)
    run, _, said = experiment("one", "train.batch_size=2")
    (line,) = [line for line in said if "where the trial had" in line]
    assert re.fullmatch(
        r"net: its steps reached \d+ images/s, where the trial had 1000000: the numeric settings \(float32, "
        r"channels_last\) may be wrong; this run keeps them, and they will be timed again in the next run",
        line,
    )
    assert load_numerics(Run(run).member("net").numerics_json).images_per_second == 1e6
    assert not list((tmp_path / "cache" / "numerics").glob("*"))
    monkeypatch.setattr(numerics, "_speed", lambda *words: 0.5)
    _, shown, said = experiment("two", "train.batch_size=2")
    assert "net: finding the fastest numeric settings" in shown
    assert not any("where the trial had" in line for line in said)
    assert len(list((tmp_path / "cache" / "numerics").glob("*"))) == 1


def test_other_settings_are_timed_anew(experiment, tmp_path, agreed):
    experiment("one", "train.dtype=float32", "train.memory_format=contiguous")
    changes = ("train.dtype=float32", "train.memory_format=contiguous", "train.micro_batch=2")
    two, shown, _ = experiment("two", *changes)
    assert "net: finding the fastest numeric settings" in shown
    assert len(list((tmp_path / "cache" / "numerics").iterdir())) == 2
    found = load_numerics(Run(two).member("net").numerics_json)
    assert (found.dtype, found.memory_format, found.compile, found.micro_batch) == ("float32", "contiguous", False, 2)
    log = [json.loads(line) for line in Run(two).member("net").fold(0).log_file.read_text().splitlines()]
    assert [line["micro_batch"] for line in log] == [2, 2]


def test_an_epoch_of_one_step_belies_nothing(experiment, idle, monkeypatch):
    """The first step of a network also allocates."""
    monkeypatch.setattr(numerics, "_speed", lambda *words: 1e6)
    said = experiment("one")[2]
    assert not any("where the trial had" in line for line in said)
