"""How far the work is and how long it still takes; where it is shown, and where not."""

import os
import pty
import subprocess
import sys

import pytest
from recorder import Recorder

from ensemble import bar
from ensemble.bar import timed
from ensemble.progress import duration, paced


def clocked(*seconds):
    """A `timed` show whose clock says these seconds, one after the other, and the list of what is shown."""
    shown, clock = [], iter(seconds)
    return timed(lambda *words: shown.append(words), lambda: next(clock)), shown


def test_the_time_left_is_that_of_the_pace_since_the_step_began():
    show, shown = clocked(0, 100, 100, 101, 106, 120)  # made; a step's begin is read twice
    show("filling", 20, 100)
    show("filling", 30, 100)  # one second: too early to tell
    show("filling", 32, 100)  # 12 in 6 seconds, 68 to go
    show("filling", 100, 100)
    assert [text for text, *_ in shown] == ["filling", "filling", "filling: 0:34 left", "filling"]
    assert [step[1:] for step in shown] == [(20, 100), (30, 100), (32, 100), (100, 100)]


def test_where_nothing_has_moved_nothing_is_foretold():
    show, shown = clocked(0, 0, 0, 10)
    show("filling", 20, 100)
    show("filling", 20, 100)
    assert [text for text, *_ in shown] == ["filling", "filling"]


def test_another_step_has_its_own_pace():
    for second in ((5, 50), (0, 100)):  # done falls, or the total is another one
        show, shown = clocked(0, 0, 0, 10, 10, 10, 13)
        show("first", 1, 100)
        show("first", 11, 100)
        show("second", second[0] - 1, second[1])
        show("second", second[0], second[1])
        assert shown[1][0] == "first: 1:29 left"
        assert shown[2][0] == "second"
        assert shown[3][0] == ("second: 2:15 left" if second == (5, 50) else "second: 5:00 left")


def test_who_knows_better_is_believed():
    show, shown = clocked(0, 0, 0, 10)
    show("training", 0, 10)
    show("training  9 images/s  0:07 left", 5, 10)
    assert shown[1][0] == "training  9 images/s  0:07 left"


def test_paced_counts_in_its_unit():
    events, clock = Recorder(), iter([0.0, 4.0])
    advance = paced(events, "fitting", 2, 10, lambda: next(clock), unit="fits")
    advance(2)
    assert events.steps == [("fitting", 2, 10), ("fitting: 0.5 fits/s, 0:12 left", 4, 10)]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_long_text_is_cut_in_its_middle_so_that_the_time_left_is_seen():
    text = "tf_mobilenetv3_large_minimal_100 fold 0 epoch 1/6  loss 2.377  699 images/s  0:28 left"
    assert bar.shortened(text, 61) == "tf_mobilenetv3_large…1/6  loss 2.377  699 images/s  0:28 left"
    assert bar.shortened(text, len(text)) == text
    assert bar.shortened("말말말말말: 0:28 left", 15) == "말말 …0:28 left"


@pytest.mark.parametrize(("quiet", "lines"), [(60.0, ""), (0.0, "  0% work\n 50% work\n")])
def test_without_a_terminal_there_is_a_line_a_minute(monkeypatch, capfd, quiet, lines):
    monkeypatch.setattr(bar, "QUIET_SECONDS", quiet)
    with bar.progress_bar() as progress:
        progress("work", 0, 2)
        progress("work", 1, 2)
    out, err = capfd.readouterr()
    assert (out, err) == ("", lines)


def on_a_terminal(delay, to_pipe=True, kind="xterm"):
    """What a process prints to a pipe, and what its terminal is sent, if it works for a second."""
    code = (
        "import time\nfrom ensemble import bar\nfrom ensemble.tables.layout import new_table, print_table\n"
        f"bar.DELAY_SECONDS = {delay}\nbar.QUIET_SECONDS = 0\ntable = new_table('a table', 'the column')\n"
        "with bar.progress_bar() as progress:\n"
        "    progress('[a] step', 1, 4)\n    time.sleep(1)\n    print('said', flush=True)\n    print_table(table)\n"
        "print('the end')\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": kind, "COLUMNS": "100"}
    stdout = subprocess.PIPE if to_pipe else theirs
    process = subprocess.Popen([sys.executable, "-c", code], stdout=stdout, stderr=theirs, env=environment)
    os.close(theirs)
    printed, seen = (process.communicate(timeout=60)[0] or b"").decode(), b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    assert process.returncode == 0
    return printed, seen.decode()


def test_a_terminal_shows_a_bar_of_long_work_only_and_a_pipe_never():
    printed, seen = on_a_terminal(delay=0.1)
    assert printed.startswith("said\na table\n") and " 25% [a] step" in seen and "said" not in seen
    printed, seen = on_a_terminal(delay=30)
    assert printed.startswith("said\na table\n") and "step" not in seen and "%" not in seen


def test_what_is_printed_while_there_is_a_bar_stands_above_it():
    _, seen = on_a_terminal(delay=0.1, to_pipe=False)
    erased = "\r\x1b[2K"  # the bar's line; it is drawn again below what is printed
    assert f"{erased}said\r\n" in seen and f"{erased}a table\r\n" in seen and "the column" in seen
    assert seen.endswith("\x1b[2Kthe end\r\n")


def test_a_terminal_that_moves_no_cursor_has_a_line_a_minute():
    _, seen = on_a_terminal(delay=0.1, to_pipe=False, kind="dumb")
    assert seen.startswith(" 25% [a] step\r\nsaid\r\n") and "\x1b" not in seen


def test_a_notebook_shows_one_line_that_is_written_again():
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel

    code = (
        "import time\nfrom ensemble import bar\nbar.DELAY_SECONDS = bar.NOTEBOOK_SECONDS = 0.05\n"
        "with bar.progress_bar() as progress:\n"
        "    for done in range(3):\n        time.sleep(0.2)\n        progress('<b>step</b> left', done, 4)\n"
        "with bar.progress_bar() as progress:\n    progress('a short step', 1, 2)\n"
    )
    manager, client = start_new_kernel(kernel_name="python3")
    shown = []
    try:
        client.execute_interactive(code, timeout=60, output_hook=shown.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    lines = [(one["msg_type"], one["content"]["data"]) for one in shown if "display" in one["msg_type"]]
    texts = ["  0% <b>step</b> left", " 25% <b>step</b> left", " 50% <b>step</b> left", ""]
    kinds = ["display_data"] + 3 * ["update_display_data"]
    assert lines == [(kind, {"text/plain": text}) for kind, text in zip(kinds, texts, strict=True)]
