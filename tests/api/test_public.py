"""The public names: what they load, and what they are called. (mypy checks their types in typed_use.py.)"""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ensemble as ens

PACKAGE = Path(ens.__file__).parent
FIT = (
    "import ensemble as ens, numpy as np; y = np.arange(40) % 2; "
    "x = np.eye(2)[y] + np.random.default_rng(0).normal(size=(3, 40, 2)); "
)


def test_every_name_is_found_and_listed():
    for name in ens.__all__:
        assert getattr(ens, name) is not None and name in dir(ens)
    with pytest.raises(AttributeError, match=r"^module 'ensemble' has no attribute 'blend_all'$"):
        _ = ens.blend_all


def test_type_checkers_see_the_names_that_there_are():
    block = next(node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == ens._MODULES


def test_no_name_is_that_of_a_module_which_would_replace_it():
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert not modules & set(ens.__all__)
    for name in modules - {"__init__", "__pycache__"}:
        importlib.import_module(f"ensemble.{name}")
    assert all(callable(getattr(ens, name)) for name in ens.__all__ if name != "__version__")


@pytest.mark.parametrize(
    "statement",
    [
        "import ensemble as ens; ens.Run, ens.Config, ens.UserError, ens.train_folds, ens.check_data, ens.compare_runs",
        FIT + "ens.fit_blend(list(x), y, method='vote').predict_proba(list(x))",
        FIT + "ens.BlendClassifier().fit(np.hstack(x), y).predict(np.hstack(x))",
    ],
)
def test_torch_is_not_loaded_by(statement):
    code = f"{statement}\nimport sys; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
