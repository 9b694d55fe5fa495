"""One job: micro-batches that add up, memory that runs out, the epoch that is kept, stops that leave no trace."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recorder import Recorder

from ensemble.backbones import timm_model
from ensemble.config import Train
from ensemble.data.logits import load_logits
from ensemble.data.pixels.decode import Pixels
from ensemble.data.pixels.preprocess import Preprocess
from ensemble.errors import RunFailure
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.predict import Group, forward_views
from ensemble.launch.ranks import Ranks
from ensemble.run import Run
from ensemble.train.evaluate import Evaluation
from ensemble.train.fit import fit, scored_epochs
from ensemble.train.job import Job
from ensemble.train.losses import fold_loss, make_loss
from ensemble.train.numerics import Numerics
from ensemble.train.rows import Rows, SoftTargets, TrainingData
from ensemble.train.step import Stepper, Target, gradients

CPU = torch.device("cpu")
EXACT = {"float32": 1.0}
PREPROCESS = Preprocess(32, 36, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
PLAIN = Numerics("float32", "channels_last", compile=False, micro_batch=8, images_per_second=0.0)
EVERYTHING = {
    "mixup": 0.4, "cutmix": 1.0, "trivial_augment": True, "erase": 0.5, "rotate": 30.0, "vflip": True,
    "sampler": "balanced", "layer_decay": 0.75, "loss": "focal", "keep": "best",
}  # fmt: skip
NET = {
    "resnet": lambda: timm_model.create("test_resnet", 3, 32),
    "vit": lambda: timm_model.create("test_vit", 3, 32),
    "vit that drops": lambda: timm_model.create("test_vit", 3, 32, drop_path=0.3),
}


class Stopped(Exception):
    """As a kill: nothing in `fit` sees to it."""


def made(**changes):
    """48 noisy images, 6, 16 and 26 of 3 classes, in two folds of 24. changes: of the rows."""
    rng = np.random.default_rng(0)
    shapes = rng.permuted(np.stack([np.full(48, 36), rng.integers(36, 44, 48)], axis=1), axis=1)
    sizes = shapes.prod(1) * 3
    flat = rng.integers(0, 256, sizes.sum(), dtype=np.uint8)
    pixels = Pixels((flat,), np.zeros(48, np.int32), np.cumsum(sizes) - sizes, shapes)
    ids = np.array([f"{row:02}.png" for row in range(48)])
    labels = np.repeat([0, 1, 2], [6, 16, 26])[rng.permutation(48)]
    rows = Rows(ids, (), labels, np.arange(48, dtype=np.int8) % 2, ("a", "b", "c"))
    return TrainingData(dataclasses.replace(rows, **changes), pixels, {PREPROCESS.decoding: pixels})


def with_unlabelled(weights=1.0, probabilities=(0.2, 0.7, 0.1)):
    """`made`, but its last 16 rows have no label."""
    data = made()
    rows = data.rows
    labels, folds = rows.labels.copy(), rows.folds.copy()
    labels[32:], folds[32:] = -1, -1
    soft = SoftTargets(
        np.broadcast_to(np.array(probabilities, dtype=np.float32), (2, 16, 3)),
        np.broadcast_to(np.float32(weights), (2, 16)),
    )
    return dataclasses.replace(data, rows=dataclasses.replace(rows, labels=labels, folds=folds, soft=soft))


def fold_in(folder):
    return Run(folder).member("net").fold(0)


def run(folder, net="resnet", data=None, numerics=PLAIN, hook=None, stop_at=None, speeds=EXACT, **changes):
    """Train fold 0 of a run; returns its events, and the shape of each forward pass. hook: called before every forward
    pass in training, with the images. stop_at: the number of the forward pass, from 1, at which the job is killed."""
    events, passes = Recorder(), []

    def create():
        model = NET[net]()

        def before(model, inputs):
            if model.training:
                passes.append(inputs[0].shape)
                if len(passes) == stop_at:
                    raise Stopped
                if hook:
                    hook(inputs[0])

        model.register_forward_pre_hook(before)
        return model

    settings = Train(**{"strategy": "scratch", "epochs": 3, "batch_size": 8, "lr": 0.01, **changes})
    evaluation = Evaluation(PREPROCESS, ("hflip", "identity"), 16, CPU)
    job = Job(fold_in(folder), create, settings, numerics, None, evaluation, speeds, seed=0)
    fit(job, data or made(), events)
    return events, passes


def oof(folder):
    return load_logits(fold_in(folder).oof_file)


def bits(folder):
    """The logits' and the weights' bytes of a finished job."""
    return oof(folder).values.tobytes(), fold_in(folder).model_file.read_bytes()


def log(folder):
    return [json.loads(line) for line in fold_in(folder).log_file.read_text().splitlines()]


def timeless(lines):
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def out_of_memory(above):
    def hook(images):
        if len(images) > above:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return hook


# ---- micro-batches -------------------------------------------------------------------------------------------------


def grads_of(model, *args):
    model.zero_grad()
    loss = gradients(model, *args)
    return loss, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_micro_batches_add_up_to_the_gradients_of_the_whole_batch():
    torch.manual_seed(0)
    model = NET["vit"]()
    images = torch.randn(8, 3, 32, 32)
    first, second = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.tensor([2, 2, 1, 1, 0, 0, 2, 1])
    share, weight = torch.rand(8), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 0.1, 1.9, 1.0])
    loss_of = make_loss("class_balanced", np.array([3.0, 8.0, 13.0]), CPU, smoothing=0.1)
    targets = [Target(first, weight * share, loss_of), Target(second, weight.flip(0) * (1 - share), loss_of)]
    whole, expected = grads_of(model, images, targets, 8, PLAIN)
    logits = model(images)
    by_hand = (loss_of(logits, first) * weight * share + loss_of(logits, second) * weight.flip(0) * (1 - share)).mean()
    assert whole.item() == pytest.approx(by_hand.item(), abs=1e-6)
    for micro, parts in ((3, None), (5, None), (1, None), (100, None), (8, 3)):
        loss, found = grads_of(model, images, targets, micro, PLAIN, None, parts)
        assert loss.item() == pytest.approx(whole.item(), abs=1e-6) and not loss.requires_grad
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


def test_gradients_of_a_batch_by_hand():
    """A linear net without bias, one pixel: logits w x; softmax (1/2, 1/2) at w = 0; gradient (p - y) x / B."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2, bias=False))
    torch.nn.init.zeros_(model[1].weight)
    images = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 4.0]]).view(3, 3, 1, 1)
    loss_of = make_loss("cross_entropy", np.ones(2), CPU)
    targets = [Target(torch.tensor([0, 1, 1]), torch.tensor([1.0, 1.0, 3.0]), loss_of)]
    loss = gradients(model, images, targets, 2, PLAIN)
    expected = np.array([[-0.5, 0.5 * 2, 0.5 * 4 * 3], [0.5, -0.5 * 2, -0.5 * 4 * 3]]) / 3
    np.testing.assert_allclose(model[1].weight.grad.numpy(), expected, rtol=1e-6)
    assert loss.item() == pytest.approx(5 * np.log(2) / 3)


def test_no_micro_batch_is_a_single_image(tmp_path):
    """8 as 3, 3, 2 is fine, 7 as 3, 3, 1 is not: a batch norm over one image of 1 x 1 pixels has no variance."""
    for batch_size, parts in ((7, [3, 2, 2]), (8, [3, 3, 2]), (4, [2, 2]), (5, [3, 2])):
        numerics = dataclasses.replace(PLAIN, micro_batch=3)
        _, passes = run(tmp_path / str(batch_size), batch_size=batch_size, numerics=numerics, epochs=1)
        assert [shape[0] for shape in passes] == (24 // batch_size) * parts


def test_less_memory_halves_the_micro_batch_and_changes_nothing_else(tmp_path):
    hook = out_of_memory(above=3)
    events, _ = run(tmp_path / "a", "vit", hook=hook)
    assert events.messages == [
        f"net fold 0: out of memory; continues with {images} images at a time, whose gradients add up to batches of 8 "
        "as before"
        for images in (4, 2)
    ]
    assert [line["micro_batch"] for line in log(tmp_path / "a")] == [2, 2, 2]
    events, _ = run(tmp_path / "b", "vit", numerics=dataclasses.replace(PLAIN, micro_batch=2))
    assert events.messages == [] and bits(tmp_path / "a") == bits(tmp_path / "b")


def test_processes_divide_shares_that_differ_by_an_image_into_as_many_parts(monkeypatch):
    """Batch norms that measure the images of all processes wait for each other in each part."""
    monkeypatch.setattr(Ranks, "any", lambda ranks, flag: flag)
    monkeypatch.setattr(Ranks, "add", lambda ranks, values: None)
    passes: list[list[int]] = []
    for rank in (0, 1):  # of 5 images these take 2 and 3
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
        model[0].norm = torch.nn.SyncBatchNorm(3)  # is there, and never asked: it takes GPUs
        passes.append([])
        model.register_forward_pre_hook(lambda _, inputs: passes[-1].append(len(inputs[0])))
        images = torch.randn(len(Ranks(rank, 2).part(5)), 3, 1, 1)
        loss_of = make_loss("cross_entropy", np.ones(2), CPU)
        target = Target(torch.arange(len(images)) % 2, torch.ones(len(images)), loss_of)
        optimizer = torch.optim.AdamW(model.parameters())
        Stepper(model, optimizer, PLAIN, 2, lambda micro_batch: None, Ranks(rank, 2)).step(images, [target], 5)
    assert passes == [[1, 1], [2, 1]]


def test_memory_that_one_process_lacks_ends_those_whose_batch_norms_wait_for_each_other(monkeypatch):
    """A GPU that waits in a batch norm for what another one will never send would wait for ever, and so would whoever
    asks its process for memory."""
    monkeypatch.setattr(Ranks, "any", lambda ranks, flag: pytest.fail("nobody answers"))
    model = torch.nn.Sequential(torch.nn.SyncBatchNorm(3))
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory")))
    stepper = Stepper(model, torch.optim.AdamW(model.parameters()), PLAIN, 64, lambda micro_batch: None, Ranks(0, 2))
    target = Target(torch.zeros(16).long(), torch.ones(16), make_loss("cross_entropy", np.ones(3), CPU))
    with pytest.raises(RunFailure) as error:
        stepper.step(torch.randn(16, 3, 1, 1), [target], 32)
    assert str(error.value) == (
        "out of memory in one of 2 processes, whose batch norms measure their images together; set micro_batch = 8"
    )


def test_gradients_of_an_attempt_that_ran_out_of_memory_are_dropped(tmp_path):
    failed = []

    def hook(images):
        if len(failed) == 1 and len(images) == 4:
            failed.append("the second part")
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory")
        if not failed:
            failed.append("")

    events, passes = run(tmp_path / "a", "vit", numerics=dataclasses.replace(PLAIN, micro_batch=4), hook=hook)
    assert len(events.messages) == 1 and [shape[0] for shape in passes[:7]] == [4, 4, 2, 2, 2, 2, 2]
    run(tmp_path / "b", "vit", numerics=dataclasses.replace(PLAIN, micro_batch=2))
    assert bits(tmp_path / "a") == bits(tmp_path / "b")


def test_a_resumed_fold_keeps_the_smaller_micro_batch(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path / "a", "vit", hook=out_of_memory(above=4), stop_at=8)
    assert [line["micro_batch"] for line in log(tmp_path / "a")] == [4]
    events, passes = run(tmp_path / "a", "vit", hook=out_of_memory(above=4))
    assert events.messages == [] and {shape[0] for shape in passes} == {4}
    run(tmp_path / "b", "vit", hook=out_of_memory(above=4))
    assert bits(tmp_path / "a") == bits(tmp_path / "b")


@pytest.mark.parametrize(("batch_size", "left"), [(8, 2), (3, 3), (24, 3)])
def test_two_images_that_do_not_fit_end_the_job(tmp_path, batch_size, left):
    with pytest.raises(RunFailure) as failure:
        numerics = dataclasses.replace(PLAIN, micro_batch=64)
        run(tmp_path, hook=out_of_memory(above=1), batch_size=batch_size, numerics=numerics)
    assert str(failure.value) == f"net fold 0: out of memory at {left} images; lower image_size"
    assert not fold_in(tmp_path).log_file.exists()  # nothing is trained yet: its settings may still change


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    def hook(_):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match=r"^a bug$"):
        run(tmp_path, hook=hook)


# ---- events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["last", "best"])
def test_each_epoch_is_told_of_once_with_its_line_of_the_log(tmp_path, keep):
    events, _ = run(tmp_path, keep=keep)
    assert events.epochs == [("net", 0, line) for line in log(tmp_path)]
    assert "held_out_log_loss" in events.epochs[-1][2] and events.jobs == []  # who gives out jobs tells of their end
    steps = [step for step in events.steps if "held-out images" not in step[0]]
    answers = [step for step in events.steps if step not in steps]
    assert [(done, total) for _, done, total in steps] == [(24, 72), (48, 72), (72, 72)]
    assert answers[-1][0].startswith("net fold 0: 24 of 24 held-out images answered") and answers[-1][1:] == (1, 1)
    assert (("net fold 0: 24 of 24 held-out images answered", 24, 72) in answers) == (
        "held_out_log_loss" in log(tmp_path)[0]
    )
    assert steps[1][0] == f"net fold 0 epoch 2/3  loss {log(tmp_path)[1]['loss']:.3f}"


def test_epochs_that_were_trained_before_a_stop_are_not_told_of_again(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, stop_at=5)
    events, _ = run(tmp_path)
    assert [line["epoch"] for _, _, line in events.epochs] == [2, 3]


# ---- the epoch that is kept ----------------------------------------------------------------------------------------


def test_scored_epochs():
    assert [scored_epochs(epochs, "last") for epochs in (1, 2, 3, 4, 7)] == [set(), {1}, {1}, {2}, {3}]
    assert scored_epochs(8, "last") == {2, 4, 6} and scored_epochs(12, "last") == {3, 6, 9}
    assert scored_epochs(9, "last") == {2, 4, 6} and scored_epochs(100, "last") == {25, 50, 75}
    assert scored_epochs(1, "best") == {1} and scored_epochs(5, "best") == {1, 2, 3, 4, 5}


def held_out_loss(folder, data):
    logits = oof(folder)
    values = torch.from_numpy(logits.values[logits.views.index("identity")]).double()
    return F.cross_entropy(values, torch.from_numpy(data.rows.labels[data.rows.folds == 0])).item()


@pytest.mark.parametrize(("ema", "lr", "warmup", "best"), [(0.0, 0.01, 4, 1), (0.5, 0.01, 4, 1), (0.0, 0.02, 1, 0)])
def test_the_best_epoch_is_kept_and_the_last_one_else(tmp_path, ema, lr, warmup, best):
    """Labels of noise: every epoch that learns them makes the held-out rows worse."""
    data = made()
    settings = {"epochs": 6, "lr": lr, "warmup_epochs": warmup, "label_smoothing": 0.0, "ema": ema, "data": data}
    run(tmp_path / "best", keep="best", **settings)
    run(tmp_path / "last", keep="last", **settings)
    losses = [line["held_out_log_loss"] for line in log(tmp_path / "best")]
    assert len(losses) == 6 and min(losses) < losses[-1] - 0.01 and losses.index(min(losses)) == best
    assert held_out_loss(tmp_path / "best", data) == pytest.approx(min(losses), abs=6e-6)
    assert held_out_loss(tmp_path / "last", data) == pytest.approx(losses[-1], abs=6e-6)
    last = log(tmp_path / "last")
    assert [line["epoch"] for line in last if "held_out_log_loss" in line] == [3, 6]
    assert [line["held_out_log_loss"] for line in last[2::3]] == [losses[2], losses[5]]
    assert last[5]["held_out_accuracy"] == log(tmp_path / "best")[5]["held_out_accuracy"]
    assert [line["loss"] for line in last] == [line["loss"] for line in log(tmp_path / "best")]  # looking has no effect


def test_the_prior_is_given_back_to_logit_adjusted_logits_in_the_log(tmp_path):
    data = made()
    run(tmp_path, data=data, loss="logit_adjusted", epochs=1)
    logits = oof(tmp_path)
    train = data.rows.labels[data.rows.folds != 0]
    prior = np.log(np.bincount(train, minlength=3) / len(train))
    values = torch.from_numpy(logits.values[logits.views.index("identity")] + prior)
    loss = F.cross_entropy(values, torch.from_numpy(data.rows.labels[data.rows.folds == 0])).item()
    assert log(tmp_path)[0]["held_out_log_loss"] == pytest.approx(loss, abs=6e-6)
    assert abs(loss - held_out_loss(tmp_path, data)) > 1e-3


# ---- stopped and started again -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "stops", "changes"),
    [
        ("resnet", [2, 5], {}),
        ("resnet", [4], {"ema": 0.0}),
        ("resnet", [8, 5], {"keep": "best", "lr": 0.02, "epochs": 4}),
        ("vit that drops", [5, 5], EVERYTHING),
        ("resnet", [4, 6], {**EVERYTHING, "ema": 0.0, "loss": "logit_adjusted", "sampler": "shuffle", "crop_size": 40}),
    ],
    ids=["average", "no average", "best", "everything", "everything, no average"],
)
def test_stopped_and_started_again_it_gives_the_same_bits(tmp_path, net, stops, changes):
    settings = {"epochs": 3, **changes}
    for stop in stops:
        with pytest.raises(Stopped):
            run(tmp_path / "a", net, stop_at=stop, **settings)
    _, rest = run(tmp_path / "a", net, **settings)
    _, whole = run(tmp_path / "b", net, **settings)
    assert 0 < len(rest) < len(whole)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    assert timeless(log(tmp_path / "a")) == timeless(log(tmp_path / "b"))


def test_every_chance_counts(tmp_path):
    """Each of what is on in EVERYTHING has a part in the bits: else the test above would say nothing of it."""
    run(tmp_path / "all", "vit that drops", **EVERYTHING, epochs=1)
    found = {bits(tmp_path / "all")}
    off = {"sampler": "shuffle", "layer_decay": 1.0, "loss": "cross_entropy"}
    for key in EVERYTHING.keys() - {"keep"}:
        run(tmp_path / key, "vit that drops", **{**EVERYTHING, key: off.get(key, 0)}, epochs=1)
        found.add(bits(tmp_path / key))
    run(tmp_path / "drop", "vit", **EVERYTHING, epochs=1)
    assert len(found | {bits(tmp_path / "drop")}) == len(EVERYTHING) + 1


# ---- sample weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"loss": "class_balanced", "mixup": 0.4}, {"loss": "logit_adjusted"}])
def test_the_label_of_a_row_without_weight_changes_nothing(tmp_path, changes):
    """Row 1 is one that fold 0 trains on."""
    weights = np.linspace(0.5, 2, 48)
    weights[1] = 0
    other = made().rows.labels.copy()
    other[1] = (other[1] + 1) % 3
    run(tmp_path / "a", data=made(weights=weights), epochs=2, **changes)
    run(tmp_path / "b", data=made(weights=weights, labels=other), epochs=2, **changes)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")
    run(tmp_path / "c", data=made(labels=other), epochs=2, **changes)
    run(tmp_path / "d", epochs=2, **changes)
    assert bits(tmp_path / "c") != bits(tmp_path / "d") and bits(tmp_path / "d") != bits(tmp_path / "a")


def test_the_unit_of_the_weights_is_nothing(tmp_path):
    """4 x is exact in binary."""
    weights = np.linspace(0.5, 2, 48)
    for name, scaled in (("a", weights), ("b", 4 * weights)):
        run(tmp_path / name, data=made(weights=scaled), epochs=1)
    assert bits(tmp_path / "a") == bits(tmp_path / "b")


# ---- numbers and sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numerics",
    [dataclasses.replace(PLAIN, dtype="bfloat16", memory_format="contiguous"), PLAIN],
    ids=["bfloat16 contiguous", "float32 channels_last"],
)
def test_out_of_fold_logits_are_those_of_the_weights_that_are_saved(tmp_path, numerics):
    seen = set()

    def hook(images):
        seen.add((images.is_contiguous(), images.is_contiguous(memory_format=torch.channels_last)))

    data = made()
    run(tmp_path, numerics=numerics, hook=hook, keep="best", data=data)
    plain = numerics.memory_format == "contiguous"
    assert seen == {(plain, not plain)}
    model = NET["resnet"]()
    timm_model.fill(model, fold_in(tmp_path).model_file)
    assert all(value.dtype != torch.bfloat16 for value in model.state_dict().values())
    held_out = data.rows.held_out_rows(0)
    saved = oof(tmp_path)
    assert saved.ids.tolist() == data.rows.ids[held_out].tolist()
    views = ("hflip", "identity")
    group = Group(PREPROCESS, views, (prepared(model, Inference("cpu"), PREPROCESS.image_size, CPU),))
    values = forward_views(group, data.squares(PREPROCESS, views, held_out), 16, CPU)[0][0]
    assert np.array_equal(saved.values, values)


def test_numbers_have_a_part_in_the_bits(tmp_path):
    run(tmp_path / "a", epochs=1)
    run(tmp_path / "b", epochs=1, numerics=dataclasses.replace(PLAIN, dtype="bfloat16"))
    assert bits(tmp_path / "a") != bits(tmp_path / "b")


@pytest.mark.parametrize("size", [24, 40])
def test_training_crops_of_another_size(tmp_path, size):
    _, passes = run(tmp_path, crop_size=size, epochs=1)
    assert {tuple(shape) for shape in passes} == {(8, 3, size, size)}
    assert oof(tmp_path).values.shape == (2, 24, 3)


def test_a_batch_of_more_than_all_rows_is_all_rows(tmp_path):
    _, passes = run(tmp_path, batch_size=64, epochs=2, numerics=dataclasses.replace(PLAIN, micro_batch=64))
    assert [shape[0] for shape in passes] == [24, 24]
    assert [line["micro_batch"] for line in log(tmp_path)] == [24, 24]


# ---- rows without a label ------------------------------------------------------------------------------------------


def test_rows_without_a_label_are_trained_on_and_never_held_out(tmp_path):
    data = with_unlabelled()
    assert data.rows.train_rows(0).tolist() == [*range(1, 32, 2), *range(32, 48)]
    run(tmp_path / "with", data=data)
    labelled = dataclasses.replace(data, rows=data.rows.labelled())
    run(tmp_path / "without", data=labelled)
    assert (
        oof(tmp_path / "with").ids.tolist() == oof(tmp_path / "without").ids.tolist() == data.rows.ids[:32:2].tolist()
    )
    assert bits(tmp_path / "with") != bits(tmp_path / "without")
    assert labelled.rows.soft is None and len(labelled.rows.ids) == 32


def test_a_weight_of_0_keeps_an_unlabelled_image_from_the_fold(tmp_path):
    data = with_unlabelled(weights=np.where(np.arange(32).reshape(2, 16) < 16, 0, 1))
    assert data.rows.train_rows(0).max() < 32 and data.rows.train_rows(1).max() == 47
    run(tmp_path / "a", data=data)
    run(tmp_path / "b", data=dataclasses.replace(data, rows=data.rows.labelled()))
    assert np.allclose(oof(tmp_path / "a").values, oof(tmp_path / "b").values, atol=1e-4)


def test_targets_of_a_batch_with_unlabelled_rows():
    rows = with_unlabelled().rows
    found = rows.targets(1, np.array([40, 3]))
    assert found.dtype == np.float32 and found[0].tolist() == pytest.approx([0.2, 0.7, 0.1])
    assert found[1].tolist() == np.eye(3)[rows.labels[3]].tolist()
    assert rows.likeliest(0).tolist() == [*rows.labels[:32], *[1] * 16]
    assert rows.labelled().targets(0, np.array([3])).tolist() == [rows.labels[3]]


def test_the_classes_shares_count_what_is_learned_without_a_label():
    rows = with_unlabelled(weights=0.5).rows
    settings = Train(loss="logit_adjusted")
    counts = np.bincount(rows.labels[1:32:2], minlength=3) + 16 * 0.5 * np.array([0.2, 0.7, 0.1])
    loss = fold_loss(rows, 0, settings, CPU)
    assert loss.log_prior.tolist() == pytest.approx(np.log(counts / 24).tolist())
    assert loss.row_weights.tolist() == [0.0, 1.0] * 16 + [0.5] * 16


@pytest.mark.parametrize("changes", [EVERYTHING, {"loss": "class_balanced"}, {"loss": "logit_adjusted"}])
def test_a_fold_with_unlabelled_rows_goes_on_to_the_same_bits(tmp_path, changes):
    run(tmp_path / "whole", data=with_unlabelled(), **changes)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", data=with_unlabelled(), stop_at=6, **changes)
    run(tmp_path / "stopped", data=with_unlabelled(), **changes)
    assert bits(tmp_path / "whole") == bits(tmp_path / "stopped")


def test_rarer_classes_may_be_augmented_more(tmp_path):
    run(tmp_path / "plain", epochs=1)
    run(tmp_path / "rare", epochs=1, augment_rare=True)
    run(tmp_path / "again", epochs=1, augment_rare=True)
    assert bits(tmp_path / "plain") != bits(tmp_path / "rare") == bits(tmp_path / "again")
