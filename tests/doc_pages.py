"""The pages of docs and the READMEs in their parts, for the tests of them."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pages"
TEXTS = [ROOT / "README.md", ROOT / "README.ko.md", *sorted(PAGES.rglob("*.md"))]


def script(name):
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebook = script("notebook")


def blocks(path):
    return [part for part in notebook.parts(path.read_text(encoding="utf-8")) if part.language is not None]


def command_lines(part):
    """The lines of a block of commands, each whole."""
    return re.sub(r"\\\n", " ", part.text).splitlines() if part.language == "" else []
