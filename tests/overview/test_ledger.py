"""The ledger of submissions: what is entered, which row is meant, and that a user's own edits stay."""

import csv
import hashlib
import math
import multiprocessing
import shutil

import pytest

from ensemble.errors import UserError
from ensemble.files.sealed import write_json
from ensemble.overview import ledger
from ensemble.overview.trust import trust
from ensemble.run import Run
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import computed

SCORES = {"accuracy": Score(0.9, 0.85, 0.95, (0.9,)), "log_loss": Score(0.3, 0.25, 1 / 3, (0.3,))}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def submit(run, name, text="id,label\n", accuracy=0.9, **facts):
    path = run.parent / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    scores = SCORES | {"accuracy": Score(accuracy, 0, 1, (accuracy,))}
    ledger.record(Run(run).submissions_csv, path, {"run": run, "blend": "stack", **facts}, scores)
    return path


def rows(run):
    with Run(run).submissions_csv.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def boards(run):
    return [row["board"] for row in rows(run)]


# ---- writing -------------------------------------------------------------------------------------------------------


def test_a_row_says_all_of_a_submission(run):
    path = submit(run, "s.csv", "a\n", views="identity,hflip", members="a,b", images="test", rows=7)
    (row,) = rows(run)
    assert tuple(row) == ledger.columns_of(computed())
    assert row["file"] == str(path) and row["sha256"] == hashlib.sha256(b"a\n").hexdigest()
    assert (row["views"], row["members"], row["images"], row["rows"]) == ("identity,hflip", "a,b", "test", "7")
    assert (row["log_loss"], row["log_loss_low"], row["log_loss_high"]) == ("0.3", "0.25", "0.333333")
    assert row["macro_f1"] == row["board"] == row["note"] == "" and row["run"] == str(run)
    assert row["written"].endswith("+00:00")


def append(run, number):
    for turn in range(10):
        submit(run, f"{number}-{turn}.csv", f"{number} {turn}")


@pytest.mark.process
def test_two_writers_lose_no_row(run):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append, args=(run, number)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    names = {row["file"].rpartition("/")[2] for row in rows(run)}
    assert names == {f"{number}-{turn}.csv" for number in range(2) for turn in range(10)}


@pytest.mark.parametrize(("delimiter", "mark", "newline"), [(",", "", "\n"), (";", "\ufeff", "\r\n")])
def test_what_a_spreadsheet_made_of_it_stays(run, delimiter, mark, newline):
    first = submit(run, "s.csv")
    held = rows(run)[0]
    columns = ["mine", "file", "note", "sha256", "written", "board", "blend"]  # another order, some gone, one new
    cells = ["이것", str(first), f'a "b"{delimiter} c', held["sha256"], held["written"], "0.5", "stack"]
    path = Run(run).submissions_csv
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file, delimiter=delimiter, lineterminator=newline).writerows([columns, cells, [""] * 7])
    before = path.read_bytes().split(newline.encode())
    submit(run, "t.csv")
    after = path.read_bytes().split(newline.encode())
    missing = [name for name in ledger.columns_of(computed()) if name not in columns]
    assert after[0] == before[0] + (delimiter + delimiter.join(missing)).encode()
    assert after[1] == before[1] + delimiter.encode() * len(missing)
    table = ledger.read_table(path)
    assert [line["mine"] for line in table.lines] == ["이것", ""] and len(after) == 4
    assert table.lines[1]["accuracy"] == "0.9" and table.lines[0]["note"] == f'a "b"{delimiter} c'


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("이름,file\n".encode("cp949"), "not UTF-8; in the spreadsheet, save it as CSV UTF-8"),
        (b"id,label\n1,2\n", "not a ledger of submissions (a column named file, no name twice); move it away"),
        (b"file,file\n", "not a ledger of submissions (a column named file, no name twice); move it away"),
        (b"file,board\na,1\nb,0,8286\n", "line 3 has 3 cells, the header 2; correct it"),
        (
            b'file,note\na,x\nb,"a "better" one"\n',
            "line 3 is not readable as CSV (',' expected after '\"'); correct it",
        ),
        (b'file,note\na,"x\n', "line 2 is not readable as CSV (unexpected end of data); correct it"),
        (
            b"file,note\na," + b"x" * 140_000 + b"\n",
            "line 2 is not readable as CSV (field larger than field limit (131072)); correct it",
        ),
    ],
)
def test_a_ledger_that_is_none_is_left_alone(run, content, line):
    path = Run(run).submissions_csv
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        submit(run, "s.csv")
    assert str(error.value) == f"{path}: {line}" and path.read_bytes() == content


# ---- which one is meant --------------------------------------------------------------------------------------------


def test_the_newest_of_a_file_is_meant(run, monkeypatch):
    submit(run, "s.csv", "old")
    submit(run, "t.csv", "other")
    path = submit(run, "s.csv", "new")
    ledger.enter(run, "s.csv", "board", "0.8286")
    assert boards(run) == ["", "", "0.8286"]
    ledger.enter(run, str(path), "note", "three members")
    monkeypatch.chdir(run.parent)
    ledger.enter(run, "./t.csv", "board", "82.5")
    assert boards(run) == ["", "82.5", "0.8286"] and rows(run)[2]["note"] == "three members"


def test_a_file_that_was_written_over_is_found_by_what_it_holds(run):
    path = submit(run, "s.csv", "first")
    submit(run, "s.csv", "second")
    path.write_text("first")  # a copy of the first one was put back
    assert ledger.enter(run, "s.csv", "board", "0.5").line == 0
    path.write_text("by hand")  # nothing that is known: the newest of that name
    entry = ledger.enter(run, "s.csv", "board", "0.6")
    assert (entry.line, entry.state) == (1, "changed") and boards(run) == ["0.5", "0.6"]
    path.unlink()
    assert ledger.enter(run, "s.csv", "board", "0.7").state == "gone"
    copy = run.parent / "copy of s.csv"
    copy.write_text("first")  # of another name
    ledger.enter(run, str(copy), "board", "0.8")
    assert boards(run) == ["0.8", "0.7"]


def test_the_digits_of_a_digest_do_too(run):
    submit(run, "s.csv", "first")
    submit(run, "t.csv", "second")
    ledger.enter(run, hashlib.sha256(b"first").hexdigest()[:8], "board", "0.5")
    assert boards(run) == ["0.5", ""]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("s.csv", "0.5", "s.csv: 2 files have that name ({a}, {b}); write the whole path"),
        ("none.csv", "0.5", "none.csv: no such submission; there are: s.csv"),
        ("s.csv", "high", "--board s.csv=high: the score must be a number"),
        ("s.csv", "nan", "--board s.csv=nan: the score must be a number"),
    ],
)
def test_what_is_not_clear_is_asked_for(run, file, text, line):
    a, b = submit(run, "a/s.csv"), submit(run, "b/s.csv", "other")
    with pytest.raises(UserError) as error:
        ledger.enter(run, file, "board", text)
    assert str(error.value) == line.format(a=a, b=b) and boards(run) == ["", ""]


def test_nothing_is_recorded_yet(run):
    assert ledger.entries(run) == []
    with pytest.raises(UserError, match=r"^s.csv: no submission is recorded; ens tta-predict records"):
        ledger.enter(run, "s.csv", "board", "0.5")
    with pytest.raises(UserError, match=r"no such folder; name a run, or a folder of runs$"):
        ledger.entries(run / "none")


def test_a_folder_shows_all_runs_below_it_the_newest_last(tmp_path):
    for number, name in enumerate(("b", "deep/a")):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "folds.csv").write_text("")
        path = submit(run, f"{number}.csv")
        table = Run(run).submissions_csv
        written = rows(run)[0]["written"]
        table.write_text(table.read_text().replace(written, f"2026-01-0{2 - number}T00:00:00+00:00"))
    path.write_text("changed")
    found = ledger.entries(tmp_path)
    assert [(entry.ledger.parent.name, entry.state) for entry in found] == [("a", "changed"), ("b", "")]


# ---- out of fold against the board ---------------------------------------------------------------------------------


def test_whether_out_of_fold_scores_can_be_trusted(run):
    pairs = [(0.90, "0.80"), (0.92, "0.85"), (0.91, "0.86"), (0.95, "")]
    for number, (accuracy, board) in enumerate(pairs):
        submit(run, f"{number}.csv", f"{number}", accuracy)
        if board:
            ledger.enter(run, f"{number}.csv", "board", board)
        told = trust(ledger.entries(run))
        assert len(told) == (number >= 2)
    (found,) = told
    # two of the three pairs go the same way: (2 - 1) / 3; gaps -0.10, -0.07, -0.05
    assert found.n == 3 and found.tau == pytest.approx(1 / 3) and found.gap == pytest.approx(-0.22 / 3)
    assert found.lines == (
        "rank correlation (Kendall's tau) of accuracy out of fold and on the board: 0.33; n = 3, so it is rough",
        "mean of board minus out of fold: -7.33 points",
    )


def test_a_board_in_percent_and_scores_that_are_all_equal(run):
    for number, board in enumerate(("88", "87", "86")):
        submit(run, f"{number}.csv", f"{number}")
        ledger.enter(run, f"{number}.csv", "board", board)
    (found,) = trust(ledger.entries(run))
    assert math.isnan(found.tau) and found.gap == pytest.approx(-0.03)
    assert found.lines[0].startswith("no rank correlation of accuracy out of fold and on the board")
    (loss,) = trust(ledger.entries(run), "log_loss")
    assert loss.gap == pytest.approx(86.7) and loss.lines[1] == "mean of board minus out of fold: +86.7000"
    assert trust(ledger.entries(run), "macro_f1") == ()


def contest(folder, data, boards, start=0):
    """A run on `data` with submissions of 0.90, 0.91, ... out of fold and these scores on the board."""
    folder.mkdir()
    (folder / "folds.csv").write_text("")
    write_json(Run(folder).provenance_json, {"facts": {"data fingerprint": data * 64}})
    for number, board in enumerate(boards, start):
        submit(folder, f"{folder.name}-{number}.csv", f"{folder} {number}", 0.90 + 0.01 * number)
        if board:
            ledger.enter(folder, f"{folder.name}-{number}.csv", "board", board)


def test_each_data_set_is_told_by_itself_and_runs_on_the_same_together(tmp_path):
    contest(tmp_path / "a", "x", ["0.80", "0.81"])
    contest(tmp_path / "b", "x", ["0.82"], start=2)
    contest(tmp_path / "c", "y", ["0.30", "0.29", "0.28"])
    contest(tmp_path / "few", "z", ["0.5", "0.6"])
    first, second = trust(ledger.entries(tmp_path))
    assert (first.fingerprint, first.n, first.tau) == ("x" * 64, 3, 1) and first.gap == pytest.approx(-0.1)
    assert (second.fingerprint, second.n, second.tau) == ("y" * 64, 3, -1) and second.gap == pytest.approx(-0.62)
    assert first.lines[0].startswith("data xxxxxxxxxxxx: rank correlation")
    assert second.lines[1] == "data yyyyyyyyyyyy: mean of board minus out of fold: -62.00 points"
    (alone,) = trust(ledger.entries(tmp_path / "c"))
    assert alone.lines[0].startswith("rank correlation")


def test_the_ledger_of_a_copied_run_counts_once(tmp_path):
    contest(tmp_path / "b", "x", ["0.80", "0.81", ""])
    shutil.copytree(tmp_path / "b", tmp_path / "z")
    ledger.enter(tmp_path / "z", "b-2.csv", "board", "0.82")  # since it was copied
    submit(tmp_path / "z", "of-a.csv", "a's own")
    found = ledger.entries(tmp_path)
    names = [(entry.values["file"].rpartition("/")[2], entry.values["board"]) for entry in found]
    assert names == [("b-0.csv", "0.80"), ("b-1.csv", "0.81"), ("b-2.csv", "0.82"), ("of-a.csv", "")]
    (told,) = trust(found)
    assert told.n == 3


def test_lines_without_their_digest_are_no_copies_of_each_other(run):
    Run(run).submissions_csv.write_text("file,board\na.csv,0.5\na.csv,0.6\n")
    other = run.parent / "other"
    other.mkdir()
    (other / "folds.csv").write_text("")
    shutil.copy(Run(run).submissions_csv, Run(other).submissions_csv)
    (run / "folds.csv").write_text("")
    assert len(ledger.entries(run.parent)) == 4
