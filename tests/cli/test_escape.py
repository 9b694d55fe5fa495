"""Names that others gave reach no terminal, log or page as they are, if a terminal would obey them."""

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import noisy_logits, write_run

from ensemble.cli import ens
from ensemble.escape import escaped
from ensemble.run import Run

EVIL = "cat\x1b]0;gone\x07\x1b[2J\u202egnp.\x9b31m"
SEEN = "cat\\x1b]0;gone\\x07\\x1b[2J\\u202egnp.\\x9b31m"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (EVIL, SEEN),
        ("고양이 café 🧑‍🚀 🏳️‍🌈 می‌خواهم עברית", "고양이 café 🧑‍🚀 🏳️‍🌈 می‌خواهم עברית"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\ufeffid\u200b\u2066\u2069\u2028\udc80\x7f\xad", "\\ufeffid\\u200b\\u2066\\u2069\\u2028\\udc80\\x7f\\xad"),
    ],
)
def test_what_can_not_be_seen_is_written_out(text, seen):
    assert escaped(text) == seen
    assert escaped("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A run whose classes, and one of whose members, have escape codes in their names."""
    folder = tmp_path_factory.mktemp("evil")
    labels = np.arange(60) % 3
    members = {name: noisy_logits(labels, 3, 2, seed) for seed, name in enumerate((EVIL, "plain"))}
    return write_run(folder / "run", (EVIL, "dog", "고양이"), labels, np.arange(60) // 3 % 3, members)


def told(*words):
    result = CliRunner().invoke(ens, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def hidden(text):
    return [character for character in text if escaped(character, lines=True) != character]


@pytest.mark.parametrize(
    "words",
    [
        ("blend", "RUN", "--method", "mean"),
        ("blend", "RUN", "--method", "stack", "--prune"),
        ("compare", "RUN"),
        ("runs", "RUN"),
        ("report", "RUN"),
        ("relabel", "RUN", "-o", "DIR/relabel.csv"),
    ],
)
def test_commands_show_names_escaped(evil_run, tmp_path, words):
    words = [word.replace("RUN", str(evil_run)).replace("DIR", str(tmp_path)) for word in words]
    assert hidden(told(*words)) == []
    assert hidden(Run(evil_run).ens_log.read_text()) == []


def test_the_page_shows_names_escaped(evil_run):
    told("blend", evil_run, "--method", "mean")
    told("report", evil_run)
    page = Run(evil_run).report_html.read_text(encoding="utf-8")
    assert hidden(page) == [] and SEEN in page and "고양이" in page


@pytest.mark.parametrize(
    "words",
    [
        ["blend", f"/nowhere/{EVIL}"],
        ["check", f"/nowhere/{EVIL}"],
        [EVIL],
        ["blend", "/nowhere", EVIL],
        ["runs", "--sort", EVIL],
        ["train-folds", f"{EVIL}.toml"],
    ],
)
def test_errors_are_one_line_without_escape_codes(words, capfd, monkeypatch):
    from ensemble import cli

    monkeypatch.setattr(sys, "argv", ["ens", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capfd.readouterr().err
    assert ended.value.code == 2 and hidden(out) == [] and ("cat\\x1b]0" in out or "cat\\\\x1b]0" in out)


def test_a_mistake_of_ens_itself_is_told_escaped(capfd, monkeypatch):
    from ensemble import cli

    def fail(**_):
        raise RuntimeError(EVIL)

    monkeypatch.setattr(cli, "ens", fail)
    monkeypatch.setattr(sys, "excepthook", None)
    with pytest.raises(RuntimeError) as error:
        cli.main()
    sys.excepthook(error.type, error.value, error.tb)  # as Python does at its end
    out = capfd.readouterr().err
    assert out.startswith("Traceback") and hidden(out) == [] and SEEN in out


def test_progress_is_told_escaped():
    """In a process: a pipe gets a line a minute, whose clock is set forward here."""
    code = (
        "from ensemble import bar; bar.QUIET_SECONDS = -1.0\n"
        f"with bar.progress_bar() as progress: progress({EVIL!r}, 1, 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert hidden(done.stderr) == [] and SEEN in done.stderr
