"""What --on takes."""

import pytest
from commands import ens

from ensemble.errors import UserError
from ensemble.launch.engine import LOCAL, parse_engine


def test_the_engine_of_this_machine():
    assert parse_engine("local") == LOCAL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dask", "--on dask: there is no engine 'dask'; choose local or ray[=ADDRESS]"),
        ("", "--on : there is no engine ''; choose local or ray[=ADDRESS]"),
        ("local=here", "--on local=here: give local alone"),
    ],
)
def test_what_is_no_engine_is_refused(text, said):
    with pytest.raises(UserError) as error:
        parse_engine(text)
    assert str(error.value).startswith(said)


def test_nothing_is_begun_on_an_engine_that_is_none(tmp_path, monkeypatch, capfd):
    file = tmp_path / "e.toml"
    file.write_text(f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{tmp_path}"\n[[backbone]]\nname = "a"\ntimm = "b"\n')
    status, _, err = ens(monkeypatch, capfd, "train-folds", file, "--on", "dask")
    assert status == 2 and err.startswith("ens: --on dask: there is no engine 'dask'") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()
