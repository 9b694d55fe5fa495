"""Lines on a terminal are broken between words."""

import pytest

from ensemble import terminal


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("", [""]),
        ("the best of the three\nand so on", ["the best of the", "  three", "and so on"]),
        ("  the best of the three", ["  the best of the", "    three"]),
        ("next: ens blend runs/art --views identity", ["next:", "  ens blend runs/art --views identity"]),
        ("runs/a_very_long_name_of_a_run", ["runs/a_very_long_name_of_a_run"]),
    ],
)
def test_a_line_is_broken_between_words_but_not_in_a_command_or_a_path(text, lines):
    assert terminal.wrapped(text, 18).split("\n") == lines


def test_only_a_terminal_breaks_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    terminal.print_line("eleven and more")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    terminal.print_line("eleven and more")
    assert capsys.readouterr().out == "eleven and more\neleven and\n  more\n"
