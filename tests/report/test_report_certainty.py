"""The report's section on certainty, and what `ens blend` prints of it."""

import re

import numpy as np
from report_runs import noisy_logits, write_run

from ensemble.blend import BlendOptions, blend_run
from ensemble.events import SILENT
from ensemble.report import read_run
from ensemble.report.certainty import section
from ensemble.report.page import environment
from ensemble.run import Run
from ensemble.tables.blend import show_blend, show_details


def made(folder, groups=None, rows=150):
    labels = np.arange(rows) % 3
    members = {name: noisy_logits(labels, 3, 2.5, seed) for seed, name in enumerate("ab")}
    return Run(write_run(folder / "run", ("x", "y", "z"), labels, np.arange(rows) // 3 % 5, members, groups))


def test_the_curve_and_sets_of_a_blend(tmp_path, capsys):
    run = made(tmp_path)
    blend = blend_run(run, BlendOptions("mean"))
    show_details(blend)
    assert f"AURC {100 * blend.selective.area:.3f} %" in " ".join(capsys.readouterr().out.split())
    show_blend(blend)
    assert f"curve (AURC) {100 * blend.selective.area:.3f} %" in " ".join(capsys.readouterr().out.split())
    results = read_run(run, SILENT)
    content = section(results)
    assert abs(content["curve"].area - blend.selective.area) < 1e-9
    assert [row["level"] for row in content["sets"]] == [0.9, 0.95, 0.99]
    sizes = [row["found"].size for row in content["sets"]]
    assert sizes == sorted(sizes) and content["sets"][0]["found"].coverage >= content["sets"][0]["found"].accuracy
    page = environment().get_template("certainty.html").render(results=results, **content)
    assert f"{100 * blend.selective.area:.3f} %" in page and "count as one" not in page


def test_groups_count_as_one_and_few_rows_have_no_sets(tmp_path):
    grouped = section(read_run(made(tmp_path / "a", groups=[f"g{row // 3}" for row in range(150)]), SILENT))
    assert grouped["grouped"] and len(grouped["sets"]) == 3  # 50 groups
    page = environment().get_template("certainty.html").render(results=None, **grouped)
    assert re.search(r"Images of a group count as one", page)
    assert section(read_run(made(tmp_path / "b", rows=30), SILENT))["sets"] == []
