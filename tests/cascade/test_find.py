"""A cascade from logits: what is asked first, how honest its numbers are, and what it is compared with."""

from dataclasses import replace

import numpy as np
import pytest

from ensemble.blend import methods
from ensemble.blend.crossfit import plain_average
from ensemble.blend.oof import Oof, Rows
from ensemble.blend.recipe import Recipe
from ensemble.blend.stages import describe_stages, load_stages, stage_arrays
from ensemble.cascade.find import FRONT, find_cascade
from ensemble.cascade.fixed import fixed_sets
from ensemble.cascade.order import Costs, in_order
from ensemble.cascade.policy import Limit
from ensemble.errors import UserError
from ensemble.events import SILENT

ROWS, CLASSES = 300, 3
COSTS = Costs({(name, view): ms for name, ms in zip("abc", (5.0, 1.0, 3.0)) for view in ("i", "h")}, 0.25)  # noqa: B905


def oof_of(signals=(3.0, 2.0, 2.5), views=1, seed=0, folds=5):
    """Members a, b and c, whose logits are noise and their signal at the true class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=ROWS)
    rows = Rows(
        ids=np.arange(ROWS).astype(str),
        labels=labels,
        folds=np.arange(ROWS) % folds,
        clusters=np.arange(ROWS),
        grouped=False,
        classes=("x", "y", "z"),
    )
    values = tuple(
        (signal * np.eye(CLASSES)[labels] + draw.normal(size=(views, ROWS, CLASSES))).astype(np.float32)
        for signal in signals
    )
    members = tuple("abc"[: len(signals)])
    return Oof(rows, members, (("i", "h")[:views],) * len(signals), values, {})


def test_cheapest_members_first_then_further_views_of_all():
    assert in_order(oof_of(views=2), COSTS) == [
        (("b", "i"),),
        (("c", "i"),),
        (("a", "i"),),
        tuple((m, "h") for m in "abc"),
    ]


def test_each_stage_is_the_blend_of_the_members_so_far():
    oof = oof_of()
    found, stages = find_cascade(oof, Recipe("mean"), COSTS, Limit(max_loss=0.02), SILENT)
    assert [stage.members for stage in stages] == [("b",), ("b", "c")][-len(stages) :] and stages
    assert {stage.threshold for stage in stages} == {found.threshold}
    last = stages[-1]
    z = plain_average(oof)[[1, 2]]
    rows = oof.rows
    want = methods.apply(methods.fit(Recipe("mean"), z, rows.labels, rows.folds, rows.clusters), z)
    assert np.array_equal(methods.apply(last.chain, z), want)


def test_costs_and_shares_add_up():
    found, _ = find_cascade(oof_of(views=2), Recipe("mean"), COSTS, Limit(max_loss=0.05), SILENT)
    assert found.whole.ms == pytest.approx(2 * (5 + 1 + 3) + 0.25)
    assert sum(stage.exits for stage in found.stages) == pytest.approx(1)
    decoded = 0.25 * len(found.stages)
    assert sum(stage.ms for stage in found.stages) == pytest.approx(18 + decoded)
    assert found.worth.ms < found.whole.ms and found.worth.p50_ms <= found.worth.p99_ms
    assert [point.max_loss for point in found.front] == list(FRONT)
    assert found.whole.changed == 0 and found.whole.gains["log_loss"].value == 0


def test_no_label_of_a_fold_decides_how_it_is_answered():
    """The thresholds that serve fold 2, and the stages behind it, are the same whatever fold 2's labels are."""
    oof = oof_of()
    labels = oof.rows.labels.copy()
    in_fold = np.flatnonzero(oof.rows.folds == 2)
    labels[in_fold] = (labels[in_fold] + 1) % CLASSES
    other = replace(oof, rows=replace(oof.rows, labels=labels))
    limit = Limit(max_loss=0.01)
    one, two = (find_cascade(each, Recipe("mean"), COSTS, limit, SILENT)[0] for each in (oof, other))
    assert one.by_fold[2] == two.by_fold[2]
    assert one.by_fold != two.by_fold  # those of other folds are fitted on fold 2


def test_a_limit_on_time_is_kept_on_the_rows_that_chose():
    oof = oof_of()
    dear, _ = find_cascade(oof, Recipe("mean"), COSTS, Limit(max_ms=9.0), SILENT)
    cheap, _ = find_cascade(oof, Recipe("mean"), COSTS, Limit(max_ms=2.0), SILENT)
    assert cheap.worth.ms < 2.5 < dear.worth.ms
    assert cheap.worth.scores["log_loss"].value > dear.worth.scores["log_loss"].value
    with pytest.raises(UserError, match=r"--max-ms 1: the cheapest cascade takes 1\.25 ms per image"):
        find_cascade(oof, Recipe("mean"), COSTS, Limit(max_ms=1.0), SILENT)


def test_no_cascade_is_as_cheap_as_its_first_member_where_none_is_sure():
    """Eight classes without a signal: the confidence is about 1 in 8."""
    draw = np.random.default_rng(0)
    rows = replace(oof_of().rows, labels=draw.integers(8, size=ROWS), classes=tuple("abcdefgh"))
    values = tuple(draw.normal(size=(1, ROWS, 8)).astype(np.float32) for _ in "abc")
    oof = replace(oof_of(), rows=rows, values=values)
    with pytest.raises(UserError, match=r"--max-ms 1\.3: the cheapest cascade takes 9\.\d+ ms per image"):
        find_cascade(oof, Recipe("mean"), COSTS, Limit(max_ms=1.3), SILENT)


def test_a_useless_cheap_member_makes_no_cascade_without_loss():
    found, stages = find_cascade(oof_of((4.0, 0.0), seed=1), Recipe("mean"), COSTS, Limit(max_loss=0.0), SILENT)
    assert stages == [] and len(found.stages) == 1 and found.threshold == 1


def test_one_member_under_two_views_is_enough():
    found, _ = find_cascade(oof_of((3.0,), views=2), Recipe("mean"), COSTS, Limit(max_loss=0.1), SILENT)
    assert found.worth.ms < found.whole.ms


@pytest.mark.parametrize("folds", [1, 2])
def test_few_folds(folds):
    found, _ = find_cascade(oof_of(folds=folds), Recipe("vote"), COSTS, Limit(max_loss=0.05), SILENT)
    assert found.worth.ms < found.whole.ms


def test_the_best_fixed_sets_by_brute_force():
    found = fixed_sets(oof_of((3.0, 0.1, 2.0)), Recipe("mean"), COSTS)
    assert [sorted(member for member, _ in each.pairs) for each in found] == [["a"], ["a", "c"]]
    assert [each.by_fold for each in found] == [5, 5]
    assert [set(each.ms.tolist()) for each in found] == [{5.25}, {8.25}]


def test_stages_of_a_scaled_blend_are_scaled_too():
    oof = oof_of(views=2)
    _, stages = find_cascade(oof, Recipe("mean", calibration="vector"), COSTS, Limit(max_loss=0.05), SILENT)
    assert stages and all(stage.chain.scaling.scaling_family == "vector" for stage in stages)
    again = load_stages(describe_stages(stages), stage_arrays(stages), oof.classes)
    z = np.random.default_rng(0).normal(size=(len(stages[0].members), 5, oof.classes)).astype(np.float32)
    assert np.array_equal(methods.apply(again[0].chain, z), methods.apply(stages[0].chain, z))
