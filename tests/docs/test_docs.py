"""The pages of docs and the README: made from the code where they can be, and in step with it where they can't."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from ensemble import cli
from ensemble.config import tables as config

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "README.ko.md", *PAGES]


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "experiment.md", "python.md"])
def test_the_reference_is_in_step_with_the_code(name):
    made = reference()
    assert made.PAGES[name]() == (made.FOLDER / name).read_text(encoding="utf-8"), "run: python docs/reference.py"


def test_every_key_of_the_experiment_file_is_described():
    for table in (config.Config, config.Data, config.Folds, config.Train, config.Tta, config.Log, config.Backbone):
        for key, field in table.model_fields.items():
            is_table = isinstance(field.default, config.Table) or key in ("data", "log", "backbone")
            assert field.description or is_table, (table.__name__, key)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_every_command_has_help_with_an_example_and_a_place_in_the_guide():
    guide = (ROOT / "docs/pages/guides/commands.md").read_text(encoding="utf-8")
    for name, command in cli.ens.commands.items():
        assert command.help and "Example: ens" in command.help, name
        assert f"ens {name}" in guide, name
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (name, option.name)


def command_lines(text):
    """The lines of a page's blocks without a language, or of bash, that begin with ens."""
    language, lines = None, []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.startswith("```"):
            language = line[3:].strip() if language is None else None
        elif language in ("", "bash") and line.startswith("ens "):
            lines.append(line)
    return lines


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_line_of_a_page_has_only_options_that_there_are(path):
    for line in command_lines(path.read_text(encoding="utf-8")):
        words = shlex.split(line, comments=True)
        command = cli.ens.commands[words[1]]
        known = {name for option in command.params for name in option.opts}
        assert [word for word in words[2:] if re.match(r"--?[a-z]", word) and word not in known] == [], line


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not re.match(r"https?://|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), target


def texts(file):
    """The texts of a module, but for its docstrings; an f-string's parts, with {} between them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree)
                  if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def test_every_message_of_the_troubleshooting_page_is_one_of_ens():
    source = "\n".join(text for file in sorted((ROOT / "ensemble").rglob("*.py")) for text in texts(file))
    page = (ROOT / "docs/pages/guides/troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(messages) > 10 and [message for message in messages if message not in source] == []
