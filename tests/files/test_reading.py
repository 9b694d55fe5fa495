"""JSON held to a type: whatever is wrong with it is one line that names the file and the key."""

from dataclasses import dataclass
from typing import NotRequired

import numpy as np
import pytest
from typing_extensions import TypedDict

from ensemble.blend import methods
from ensemble.blend.methods.trees import UNSPLIT
from ensemble.errors import UserError
from ensemble.files.reading import Count, Finite, read_json
from ensemble.files.sealed import write_json
from ensemble.run import Run


class Facts(TypedDict):
    files: dict[str, Count]
    seconds: NotRequired[Finite]


@dataclass(frozen=True)
class Square:
    side: int
    mean: tuple[float, float]
    name: str = "square"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "should be an object, but is []"),
        ("{}", "has no key 'files'"),
        ('{"files": {"a": 1.0}}', "key 'files.a' should be a valid integer, but is 1.0"),
        ('{"files": {"a": true}}', "key 'files.a' should be a valid integer, but is true"),
        ('{"files": {"a": -1}}', "key 'files.a' should be greater than or equal to 0, but is -1"),
        ('{"files": {}, "seconds": 1e999}', "key 'seconds' should be a finite number, but is Infinity"),
        ('{"files": {}, "seconds": NaN}', "key 'seconds' should be a finite number, but is NaN"),
        ('{"files": {}, "seconds": "3"}', "key 'seconds' should be a valid number, but is \"3\""),
        ('{"files": {}, "files": {}}', "not valid JSON (the key 'files' is there twice)"),
        ("[" * 100_000, "not valid JSON that ens reads (nested too deeply)"),
        ('{"files": {}, "x": ' + "[" * 300 + "]" * 300 + "}", "not valid JSON (recursion limit exceeded"),
        ('{"files": {"a": 1' + "0" * 5000 + "}}", "not valid JSON (Exceeds the limit"),
        ('{"files": {"a": 9223372036854775808}}', "key 'files.a' should be less than 9223372036854775808, but is 922"),
        ('{"files": {}, "x": "\\ud800"}', "not valid JSON (unexpected end of hex escape"),
        ('{"files"', "not valid JSON (Expecting ':' delimiter: line 1 column 9 (char 8))"),
    ],
)
def test_json_that_is_not_of_its_type(tmp_path, text, fault):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_json(path, Facts, "make it again")
    assert str(error.value).startswith(f"{path}: {fault}") and str(error.value).endswith("; make it again")


def test_what_is_right_comes_back_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('\ufeff{"files": {"\uace0\uc591\uc774.png": 3}, "seconds": 2, "more": [1]}', encoding="utf-8")
    held = {"files": {"\uace0\uc591\uc774.png": 3}, "seconds": 2, "more": [1]}
    assert read_json(path, Facts) == held
    path.write_text('{"side": 3, "mean": [0, 0.5]}')
    assert read_json(path, Square) == Square(3, (0.0, 0.5))
    path.write_text('{"side": 3, "mean": [0, 0.5], "edge": 1}')
    with pytest.raises(UserError, match=r"has the unknown key 'edge'; known are: side, mean, name"):
        read_json(path, Square)
    path.write_bytes(b'{"files": {"\xff": 1}}')
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 12 is 0xff\)"):
        read_json(path, Facts)


def test_a_line_of_a_log_is_named(tmp_path):
    fold = Run(tmp_path).member("swin").fold(0)
    fold.path.mkdir(parents=True)
    fold.log_file.write_text('{"epoch": 1, "loss": NaN}\n{"epoch": 2.5}\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: key 'epoch' should be a valid integer, but is 2\.5"):
        fold.read_log()
    fold.log_file.write_text('{"strategy": "probe"}\n{"epoch": 1}\n')
    assert fold.read_log() == [{"strategy": "probe"}, {"epoch": 1}]


def arrays(**changed):
    """A valid blend's params of three members and two classes by method, with changes."""
    trees = {key: np.repeat(own[None], 2, axis=0) for key, own in UNSPLIT.items()}
    third = np.full(3, 1 / 3)
    made = {
        "mean": {"inverse_temperature": 1.0},
        "vote": {"weights": third, "inverse_temperatures": np.ones(3), "certificate": 0.0},
        "pool": {"weights": third, "certificate": 0.0},
        "greedy": {"weights": third, "rounds": 3, "bags": 1, "seed": 0},
        "stack": {
            "weights": np.ones((3, 2, 2)),
            "bias": np.zeros(2),
            "family": "full",
            "centre": "mean",
            "strengths": {"pool": 1.0},
            "inner_log_loss": float("nan"),
        },
        "trees": trees | {"beta": 1.0, "lean": np.zeros(2, np.float32), "stages": 2, "weights": third},
        "auto": {"chosen": "mean", "tried": {"mean": 0.5}},
    }
    return {method: params | changed for method, params in made.items()}


def test_params_of_a_blend_are_held_to_members_and_classes():
    for method, params in arrays().items():
        chain = methods.load(method, params, 3, 2)
        assert chain.params().keys() == params.keys()
        if method not in ("mean", "auto"):
            with pytest.raises(ValueError, match="want floats"):
                methods.load(method, params, 4, 2)
    loop = np.zeros((2, 15), np.int64)  # the root is its own child: a walk without end
    for method, key, value, fault in [
        ("vote", "weights", np.full(1, 1.0), r"weights is float64 \(1,\), want floats \(3,\)"),
        ("vote", "weights", np.array([0.5, 0.5, np.nan]), "NaN or infinite"),
        ("vote", "inverse_temperatures", np.zeros(3), "not all above 0"),
        ("greedy", "weights", np.zeros(3), "negative, or all 0"),
        ("pool", "weights", "many", "weights is 'many', want an array"),
        ("stack", "bias", np.zeros(1), r"bias is float64 \(1,\), want floats \(2,\)"),
        ("stack", "centre", [], "centre is"),
        ("stack", "family", None, "family is None, want one of"),
        ("stack", "inner_log_loss", "low", "inner_log_loss is 'low', want a number"),
        ("greedy", "seed", 0.5, "seed is 0.5, want a whole number"),
        ("trees", "stages", 3, r"want integers \(3, 15\)"),
        ("trees", "left", loop, "not in order"),
        ("auto", "chosen", "trees", "chosen is 'trees', want one of"),
        ("mean", "inverse_temperature", float("inf"), "want a finite number"),
        ("mean", "prior_bias", np.full(2, -np.inf), "leaves no class"),
        ("mean", "metric_bias", np.zeros(3), r"want floats \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=fault):
            methods.load(method, arrays(**{key: value})[method], 3, 2)


def test_an_experiment_that_is_nested_deeply(tmp_path):
    from ensemble.config import load_config

    (tmp_path / "e.toml").write_text("run = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(UserError, match=r"e\.toml: not valid TOML that ens reads \(nested too deeply\)"):
        load_config(tmp_path / "e.toml")


@pytest.mark.parametrize("member", ["../../x", "a/b", "..", "", "é" * 300, "a\0b"])
def test_a_blend_names_no_member_outside_of_its_run(tmp_path, member):
    from ensemble.blend.described import read_described

    described = {
        "format": 2, "method": "mean", "metric": "log_loss", "members": [member], "views": [["identity"]],
        "view_weights": [[1.0]], "foreign": [], "classes": ["a", "b"], "params": {}, "arrays": {}, "sha256": "",
    }  # fmt: skip
    write_json(Run(tmp_path).blend_json("x"), described)
    with pytest.raises(UserError, match="a member's name can't be that of a folder"):
        read_described(Run(tmp_path), "x")
    write_json(Run(tmp_path).blend_json("x"), {**described, "members": ["고양이"]})
    assert read_described(Run(tmp_path), "x")["members"] == ["고양이"]
