"""What the report sets beside a run: another run, and the board's scores of its submissions."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import noisy_logits, write_run

from ensemble.cli import ens
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.report import comparison, read_run, submissions, write_report
from ensemble.report.page import environment
from ensemble.run import Run

LABELS = np.arange(90) % 3


def run_of(path, strength, names=("one", "two")):
    members = {name: noisy_logits(LABELS, 3, strength, seed) for seed, name in enumerate(names)}
    return write_run(path, ("a", "b", "c"), LABELS, np.arange(90) // 3 % 3, members)


def test_the_report_compares_two_runs(tmp_path):
    """Members of one name, and their plain means; what is gained is the run's."""
    weak, strong = run_of(tmp_path / "weak", 0.5), run_of(tmp_path / "strong", 4)
    result = CliRunner().invoke(ens, ["report", str(strong), "--against", str(weak)])
    assert result.exit_code == 0, result.output
    page = (strong / "report.html").read_text()
    assert 'href="#comparison"' in page and f"Gains over {weak}" in page
    assert page.count("better in accuracy, better in log loss") == 3
    content = comparison.section(replace(read_run(Run(strong), SILENT), against=Run(weak)))
    assert [row["name"] for row in content["gains"]] == ["one", "two", "plain mean of the 2"]
    assert all(row["gain"].value > 0.2 and row["here"].value > row["there"].value for row in content["gains"])
    assert content["axis"][0]["text"] == "0"


def test_without_a_common_name_only_the_members_of_the_run_are_shown(tmp_path):
    """`ens compare` puts all members into one block, beside the first of the other run."""
    weak, strong = run_of(tmp_path / "weak", 0.5), run_of(tmp_path / "strong", 4, ("three", "four"))
    content = comparison.section(replace(read_run(Run(strong), SILENT), against=Run(weak)))
    assert [row["name"] for row in content["gains"]] == [str(strong / "three"), str(strong / "four")]
    assert all(row["gain"].value > 0.2 for row in content["gains"])


def test_a_run_is_not_compared_with_itself(tmp_path):
    run = run_of(tmp_path / "run", 2)
    with pytest.raises(UserError, match="is the run itself; name another run"):
        write_report(Run(run), None, SILENT, Run(run / ".." / "run"))
    assert not (run / "report.html").exists()


def test_without_another_run_there_is_no_comparison(tmp_path):
    assert comparison.section(read_run(Run(run_of(tmp_path / "run", 2)), SILENT)) is None


def test_what_is_no_run_is_found_before_the_work(tmp_path):
    run = run_of(tmp_path / "run", 2)
    with pytest.raises(UserError, match=f"{tmp_path}: not a run directory"):
        write_report(Run(run), None, SILENT, Run(tmp_path))
    assert not (run / "report.html").exists()


def test_submissions_stand_beside_the_board(tmp_path):
    """A board that counts to 100 is read as percent; an entry without a score has none."""
    run = run_of(tmp_path / "run", 2)
    results = read_run(Run(run), SILENT)
    assert submissions.section(results) is None
    Run(run).submissions_csv.write_text(
        "written,file,sha256,run,blend,accuracy,accuracy_low,accuracy_high,board,note\n"
        "2026-11-20T10:00:00+00:00,/x/first.csv,aa,run,mean,0.9,0.85,0.95,88,a & b\n"
        "2026-11-21T10:00:00+00:00,/x/second.csv,ab,run,mean,0.92,0.87,0.97,91,\n"
        "2026-11-22T10:00:00+00:00,/x/third.csv,ac,run,pool,0.91,0.86,0.96,89,\n"
        "2026-11-23T10:00:00+00:00,/x/fourth.csv,ad,run,old,,,,,\n",
        encoding="utf-8",
    )
    content = submissions.section(results)
    assert [row["board"] for row in content["rows"]] == [0.88, 0.91, 0.89, None]
    assert content["rows"][0]["strip"]["zero"] < content["rows"][0]["strip"]["at"]
    assert content["rows"][3]["strip"] is None
    page = environment().get_template("submissions.html").render(results=results, **content)
    assert "first.<wbr>csv (gone)" in page and "mean, a &amp; b" in page and "<td>-2.00</td>" in page
    assert "Rank correlation (Kendall&#39;s tau) of accuracy out of fold and on the board: 1.00" in page


def test_a_broken_ledger_is_one_line(tmp_path):
    run = run_of(tmp_path / "run", 2)
    Run(run).submissions_csv.write_text("a,b\n1,2\n")
    assert submissions.section(read_run(Run(run), SILENT))["missing"].startswith("The submissions can’t be read: ")
