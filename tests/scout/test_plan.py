"""What fits a budget."""

import pytest

from ensemble.config import Backbone
from ensemble.errors import UserError
from ensemble.scout.plan import Usual, make_plan, parse_budget


def usual(name, size=192, epochs=4):
    return Usual(Backbone(name=name, timm=f"timm_{name}"), size, epochs)


RATES = {"fast": 1.0, "slow": 10.0}  # seconds of an epoch at 192 px


def seconds(backbone, size, epochs):
    return RATES[backbone.name] * epochs * (size / 192) ** 2


def plan(blends, budget, works_at=lambda name, size: True):
    return make_plan(blends, budget, seconds, works_at)


def told(made):
    return [(member.name, member.image_size, member.epochs) for member in made.members]


BOTH, FAST = [usual("fast"), usual("slow")], [usual("fast")]


@pytest.mark.parametrize(
    ("text", "want"), [("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), (" 2H ", 7200)]
)
def test_times(text, want):
    assert parse_budget(text) == want


@pytest.mark.parametrize("text", ["", "2", "h", "two hours", "0m", "-1h", "1m2h"])
def test_what_is_no_time(text):
    with pytest.raises(UserError, match="must be a time, as 90m, 2h or 1h30m"):
        parse_budget(text)


def test_the_usual_schedule_takes_44_seconds_and_longer_ones_fill_what_is_there():
    made = plan([BOTH, FAST], 44)
    assert told(made) == [("fast", 192, 4), ("slow", 192, 4)]
    assert (made.seconds, made.left_out) == (44, ())
    assert told(plan([BOTH, FAST], 87)) == [("fast", 256, 4), ("slow", 256, 4)]
    assert told(plan([BOTH, FAST], 88)) == [("fast", 192, 8), ("slow", 192, 8)]
    assert told(plan([BOTH, FAST], 1e6)) == [("fast", 256, 8), ("slow", 256, 8)]


def test_less_time_halves_the_epochs_then_leaves_members_out_and_last_shrinks_the_images():
    made = plan([BOTH, FAST], 43)
    assert told(made) == [("fast", 192, 2), ("slow", 192, 2)]
    assert made.left_out == (
        "fast: less than the usual 0:04 at 192 px for 4 epochs",
        "slow: less than the usual 0:40 at 192 px for 4 epochs",
    )
    made = plan([BOTH, FAST], 20)
    assert told(made) == [("fast", 256, 8)]
    assert made.left_out == ("left out: slow (takes 0:40 at 192 px for 4 epochs)",)
    assert told(plan([BOTH], 21)) == [("fast", 160, 2), ("slow", 160, 2)]
    assert told(plan([BOTH, FAST], 2)) == [("fast", 192, 2)]
    assert told(plan([BOTH, FAST], 1.9)) == [("fast", 160, 2)]


def test_an_image_size_that_a_network_does_not_take_is_kept():
    made = plan([BOTH], 50, lambda name, size: name == "timm_fast")
    assert told(made) == [("fast", 256, 4), ("slow", 192, 4)]
    assert told(plan([[usual("slow", 224)]], 1e6, lambda name, size: size == 288)) == [("slow", 288, 8)]


def test_a_cheaper_blend_of_others_is_named():
    made = plan([[usual("slow")], FAST], 10)
    assert told(made) == [("fast", 192, 8)]
    assert made.left_out == ("left out: slow (takes 0:40 at 192 px for 4 epochs)", "in their place: fast")


def test_too_little_for_anything_names_the_least():
    blends = [[usual("slow", epochs=60)], [usual("fast", epochs=60)]]
    with pytest.raises(UserError, match="is too little for anything; the least is 1m, for fast at 160 px for 30 ep"):
        plan(blends, 1)
