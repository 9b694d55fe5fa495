"""`ens cascade`: measured, saved as a blend, refused where it can't be honest."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import ens

from ensemble.blend import BlendOptions, blend_run, load_blend
from ensemble.blend.metric_bias import MetricBias
from ensemble.cascade.result import read_cascade
from ensemble.errors import UserError
from ensemble.overview.ledger import scores_of
from ensemble.run import Run


@pytest.fixture(scope="module")
def run(noise_run, paint):
    """Its blend "mean", and "plain", of one member under one view."""
    for index in range(4):
        paint(noise_run.parent / "test" / f"{index}.png", 40, 40)
    blend_run(Run(noise_run), BlendOptions("mean", name="plain", members=["vit"], views=["identity"]))
    return noise_run


def test_a_cascade_is_saved_as_a_blend_that_the_other_commands_take(run, monkeypatch, capfd, tmp_path):
    status, out, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "mean", "--max-loss", 9, "--json")
    assert status == 0, err
    document = json.loads(out)["result"]
    assert document["name"] == "mean-cascade" and document["path"] == str(Run(run).blend_json("mean-cascade"))
    assert document["worth"]["ms"] < document["whole"]["ms"] and len(document["stages"]) == 3
    assert document["networks"] == 2 and document["whole"]["changed"] == 0
    blend = load_blend(Run(run), "mean-cascade")
    assert [stage.views for stage in blend.stages] == [(("identity",),), (("identity",), ("identity",))]
    assert scores_of(run, "mean-cascade")["log_loss"].value == document["worth"]["scores"]["log_loss"]["value"]

    words = ("tta-predict", run, run.parent / "test", "--blend", "mean-cascade", "-o", tmp_path / "s.csv")
    status, out, err = ens(monkeypatch, capfd, *words)
    assert status == 0 and "of 4 images, so many exited at each stage of the cascade: " in out
    assert "mean-cascade" in (run / "submissions.csv").read_text()
    status, out, err = ens(monkeypatch, capfd, "verify", run)
    assert status == 0, out + err
    status, out, err = ens(monkeypatch, capfd, "runs", run.parent)
    assert status == 0 and "mean-cascade" not in out
    status, out, err = ens(monkeypatch, capfd, "report", run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert status == 0 and "<h3>mean-cascade</h3>" in page and "cascade that may lose 0.001" in page


def test_the_name_that_exits_had_before_is_read(run, monkeypatch, capfd):
    status, _, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "mean", "--max-loss", 9, "--name", "older")
    assert status == 0, err
    path, found = Run(run).blend_json("older"), read_cascade(Run(run), "older")
    described = json.loads(path.read_text())
    del described["checksum"]
    path.write_text(json.dumps(described).replace('"exits"', '"settled"'))
    assert read_cascade(Run(run), "older") == found
    assert sum(stage.exits for stage in found.stages) == pytest.approx(1)
    described["scores"]["stages"] = 3
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match="key 'stages' should be a valid array"):
        read_cascade(Run(run), "older")
    path.unlink()


def test_the_table_says_what_is_gained_and_what_it_is_compared_with(run, monkeypatch, capfd):
    status, out, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "mean", "--max-loss", 9, "--name", "fast")
    assert status == 0, err
    for line in (
        "cascades of blend 'mean', and sets of its members, out of fold, 24 rows,",
        "lose 0.001",
        "always resnet",
        "the stages of this cascade, in order",
        "--max-loss 9: an image exits as soon as its most probable class has ",
        "prediction averages 2, at every stage, and the average decides",
        f"saved {Run(run).blend_json('fast')}; next: ens tta-predict {run} IMAGES --blend fast",
    ):
        assert line in out


def test_nothing_is_saved_where_nothing_is_cheaper(run, monkeypatch, capfd):
    status, _, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "mean", "--max-ms", 1e9, "--name", "none")
    assert status == 1 and not Run(run).blend_json("none").is_file()
    assert "nothing was saved: no cascade is cheaper than mean within --max-ms 1e+09; allow more" in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--max-ms", 1e-9), "--max-ms 1e-09: the cheapest cascade takes "),
        (("--max-ms", 1, "--max-loss", 1), "--max-loss and --max-ms: name one of the two"),
        (("--name", "plain"), "'plain' is a blend that is no cascade; give the cascade another --name"),
        (
            ("--blend", "plain"),
            "blend 'plain' is of vit under one view alone; a cascade needs at least two members or views",
        ),
        (("--blend", "absent"), "no blend 'absent'; there are: "),
    ],
)
def test_what_makes_no_cascade_is_one_line(run, monkeypatch, capfd, words, line):
    words = words if "--blend" in words else ("--blend", "mean", *words)
    status, _, err = ens(monkeypatch, capfd, "cascade", run, *words)
    assert status == 2 and line in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"costs": np.array([[0.0, 2.0], [1.0, 0.0]])}, "decides by what mistakes cost, and a cascade by confidence"),
        ({"external": ("vit",)}, "holds vit, which ens did not train"),
    ],
)
def test_a_blend_whose_confidence_says_nothing_is_refused(run, monkeypatch, capfd, change, line):
    replace(load_blend(Run(run), "mean"), **change).save(Run(run), "odd")
    status, _, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "odd")
    Run(run).blend_json("odd").unlink()
    assert status == 2 and f"blend 'odd' {line}" in err


def test_a_biased_blend_is_refused(run, monkeypatch, capfd):
    whole = load_blend(Run(run), "mean")
    bias = MetricBias(metric_bias_family="class", metric_bias=np.zeros(2))
    replace(whole, metric="macro_f1", chain=replace(whole.chain, metric_bias=bias)).save(Run(run), "odd")
    status, _, err = ens(monkeypatch, capfd, "cascade", run, "--blend", "odd")
    Run(run).blend_json("odd").unlink()
    assert status == 2 and "is biased for macro_f1, so that its confidence is not the chance to be right" in err


def test_the_only_blend_that_is_no_cascade_is_meant(own_started_run, monkeypatch, capfd):
    for _ in range(2):
        status, out, err = ens(monkeypatch, capfd, "cascade", own_started_run, "--max-loss", 9)
        assert status == 0 and "blend 'mean'" in out, err
    status, _, err = ens(monkeypatch, capfd, "cascade", own_started_run, "--blend", "mean-cascade")
    assert status == 2 and "blend 'mean-cascade' is a cascade already" in err
