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
        (
            "next: ens blend runs/art --views identity,hflip --name two",
            ["next:", "  ens blend runs/art --views identity,hflip --name two"],
        ),
        (
            "use ens blend RUN, or: ens runs RUN; an older ens that reads",
            ["use ens blend RUN,", "  or:", "  ens runs RUN; an", "  older ens that", "  reads"],
        ),
        ("그림 그림 그림 그림", ["그림 그림 그림", "  그림"]),
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


def test_a_script_may_put_its_own_output_in_place(monkeypatch):
    class Tee:
        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    tee = Tee()
    monkeypatch.setattr("sys.stdout", tee)
    terminal.print_line("a line")
    assert tee.text == "a line\n"
    monkeypatch.setattr("sys.stdout", None)  # ens ... >&-
    terminal.print_line("a line")
