"""A metric that is added to the table is in every list, table and document of ens."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from report_runs import noisy_logits, write_run

# The options of commands are made when their modules are imported: the metric is there before, as one in the file is.
ADDED = """
import json, sys
from click.testing import CliRunner
from ensemble.scoring import counts
from ensemble.scoring.metric import Metric
from ensemble.scoring.metrics import METRICS
METRICS["error_rate"] = Metric(
    "error_rate", "error rate %", False, "counts", lambda own: 1 - counts.accuracy(own), default=True, column=True
)
from ensemble.cli import ens
out = {}
for words in json.loads(sys.argv[1]):
    made = CliRunner().invoke(ens, words)
    out[" ".join(words)] = [made.exit_code, made.stdout]
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    labels = np.arange(60) % 3
    members = {name: noisy_logits(labels, 3, 1.5, seed) for seed, name in enumerate("ab")}
    return write_run(
        tmp_path_factory.mktemp("table") / "run", ("cat", "dog", "owl"), labels, np.arange(60) % 2, members
    )


@pytest.fixture(scope="module")
def said(run):
    """What each command prints, once there is the metric."""
    commands = [
        ["blend", str(run), "--method", "greedy", "--metric", "error_rate"],
        ["blend", str(run), "--method", "auto", "--metric", "error_rate", "--name", "b", "--prune", "--json"],
        ["compare", str(run)],
        ["compare", str(run), "--json"],
        ["runs", str(run)],
        ["runs", str(run), "--json"],
        ["submissions", str(run), "--metric", "error_rate"],
        ["report", str(run)],
        *([name, "--help"] for name in ("blend", "tta-search", "submissions")),
    ]
    environment = os.environ | {"COLUMNS": "200"}
    words = [sys.executable, "-c", ADDED, json.dumps(commands)]
    made = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    answers = json.loads(made.stdout)
    assert [status for status, _ in answers.values()] == [0] * len(commands), answers
    return {tuple(line.replace(str(run), "RUN").split()): text for line, (_, text) in answers.items()}


def test_tables_have_a_column_of_it(said):
    for command in (("blend", "RUN", "--method", "greedy", "--metric", "error_rate"), ("compare", "RUN")):
        assert "error rate %" in said[command]
    assert "members selected by error_rate" in said["blend", "RUN", "--method", "greedy", "--metric", "error_rate"]


def test_documents_hold_it(said):
    name = ("blend", "RUN", "--method", "auto", "--metric", "error_rate", "--name", "b", "--prune", "--json")
    blend = json.loads(said[name])["result"]
    accuracy, error = (blend["blend"][metric]["value"] for metric in ("accuracy", "error_rate"))
    assert error == pytest.approx(1 - accuracy)
    assert "error_rate" in blend["members"]["a"] and "error_rate" in blend["best"]
    assert {own["metric"] for own in blend["gains"]} >= {"error_rate", "balanced_accuracy"}
    assert {own["metric"] for own in blend["diversity"]["costs"].values()} == {"error_rate"}
    block = json.loads(said["compare", "RUN", "--json"])["result"]["blocks"][0]
    assert "error_rate" in block["scores"][0]
    assert "error_rate" in json.loads(said["runs", "RUN", "--json"])["result"]["rows"][0]["blend_scores"]


def test_commands_offer_it(said):
    for command in ("blend", "tta-search", "submissions"):
        assert "error_rate" in said[command, "--help"]


def test_the_report_shows_it(run, said):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("Error rate\N{NO-BREAK SPACE}%") == 2  # of the members, of the blends
