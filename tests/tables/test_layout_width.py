"""Tables fit their place, and nothing is lost in them."""

import re

import pytest
from rich.console import Console
from rich.text import Text

from ensemble.tables import layout
from ensemble.tables.breaking import Breakable
from ensemble.tables.layout import new_table, print_table

NAMES = ("others/tf_mobilenetv3_large_minimal_100", "plain", "말말말말말말말말말말말말", "[b]:cat:")
NUMBERS = ("97.06 ±1.26\n[96.03, 97.82]", "0.0978 ±0.0274\n[0.0757, 0.1272]", "+0.0929 [+0.0795, +0.1043]")


def printed(capsys, *numbers):
    table = new_table("", "member", *("head" for _ in numbers))
    for name in NAMES:
        table.add_row(name.replace("[", "\\["), *numbers)
    print_table(table)
    return capsys.readouterr().out


def on_a_terminal(monkeypatch, width):
    monkeypatch.setattr(layout, "Console", lambda **_: Console(width=width, force_terminal=True, no_color=True))


def cells(line):
    return re.sub(r"\x1b\[\d*m", "", line)


def test_a_pipe_has_80_columns_in_which_names_are_broken_at_separators(capsys):
    lines = printed(capsys, *NUMBERS).splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    column = " ".join(line.split("  ")[0].strip() for line in lines if line.strip())
    assert "others/tf_ mobilenetv3_ large_minimal_ 100" in column
    for number in "\n".join(NUMBERS).split("\n"):
        assert sum(number in line for line in lines) == len(NAMES)
    assert "[b]:cat:" in "".join(lines)  # neither markup nor a picture of a cat


def test_a_terminal_has_its_own_width_and_columns_stand_apart_where_they_can(capsys, monkeypatch):
    on_a_terminal(monkeypatch, 120)
    lines = [cells(line) for line in printed(capsys, *NUMBERS, "0.25").splitlines()]
    assert f" {NAMES[0]}   " in "\n".join(lines) and 80 < max(map(len, lines)) <= 120


def test_in_a_terminal_that_is_too_narrow_for_numbers_they_are_broken_and_not_cut(capsys, monkeypatch):
    on_a_terminal(monkeypatch, 40)
    out = printed(capsys, *NUMBERS, "0.25")
    lines = [cells(line) for line in out.splitlines()]
    assert max(map(len, lines)) <= 40 and "…" not in out
    assert sum(line.count("]") for line in lines) == 3 * len(NAMES) + 1  # three intervals in each, and [b]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("horse/pic_082.jpg ~ 0/0220.jpg", 20, ["horse/pic_082.jpg ~", "0/0220.jpg"]),
        ("runs/art-painting", 14, ["runs/", "art-painting"]),
        ("runs/art-painting", 9, ["runs/art-", "painting"]),
        ("tf_efficientnet_lite2", 16, ["tf_efficientnet_", "lite2"]),
        ("  best single resnet", 14, ["  best single", "  resnet"]),
        ("-> one label is wrong", 14, ["-> one label", "   is wrong"]),
        ("no separators", 5, ["no", "separ", "ators"]),
        ("말말말말/말", 6, ["말말말", "말/말"]),
        ("two\nlines", 9, ["two", "lines"]),
        ("", 9, [""]),
    ],
)
def test_where_a_name_is_broken(text, width, lines):
    assert Breakable(Text(text))._broken(width).plain.split("\n") == lines
