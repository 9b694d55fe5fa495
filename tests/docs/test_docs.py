"""The pages of docs and the README: made from the code where they can be, and in step with it where they can't."""

import ast
import importlib
import json
import re
import shlex
import tomllib

import click
import pytest
import yaml
from doc_pages import ROOT, TEXTS, blocks, command_lines, notebook, script
from pydantic import ValidationError

import ensemble
from ensemble import cli
from ensemble.config import load_config
from ensemble.config import tables as config

READERS = {  # of the languages that blocks have; "" are commands
    "": lambda text: shlex.split(text, comments=True),
    "bibtex": str,
    "json": json.loads,
    "python": str,  # has tests of its own
    "text": str,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))


@pytest.mark.parametrize("name", ["commands.md", "experiment.md", "python.md"])
def test_the_reference_is_in_step_with_the_code(name):
    made = script("reference")
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


@each_text
def test_every_block_of_a_page_can_be_read_in_its_language(path):
    for part in blocks(path):
        assert part.language in READERS, part.line
        READERS[part.language](part.text)


@each_text
def test_every_command_line_of_a_page_is_one_that_ens_takes(path):
    for part in blocks(path):
        for line in command_lines(part):
            words = shlex.split(line, comments=True)
            if words[0] == "ens":
                end = words.index(">") if ">" in words else None
                # Below the group, whose -h the command would else never get: click remembers an option of help.
                group = click.Context(cli.ens, info_name="ens", help_option_names=["-h", "--help"])
                cli.ens.commands[words[1]].make_context(words[1], words[2:end], parent=group).close()


@each_text
def test_every_experiment_file_of_a_page_has_only_keys_and_values_that_there_are(path, tmp_path):
    for part in blocks(path):
        if part.language != "toml":
            continue
        if name := notebook.file_name(part):
            (tmp_path / name).write_text(part.text, encoding="utf-8")
            load_config(tmp_path / name)
            continue
        try:
            config.Config.model_validate(tomllib.loads(part.text))
        except ValidationError as error:  # a part of a file lacks the others
            assert [one for one in error.errors() if one["type"] != "missing"] == []


@each_text
def test_the_python_of_a_page_compiles_and_its_names_are_there(path):
    if path.name == "python.md" and path.parent.name == "reference":
        return  # made of the docstrings, whose examples tests/api runs
    for part in blocks(path):
        for node in ast.walk(ast.parse(part.text)) if part.language == "python" else ():
            if isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for name in (name.name for name in node.names if not hasattr(module, name.name)):
                    importlib.import_module(f"{node.module}.{name}")  # a module that nothing has imported yet
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ens":
                assert node.attr in ensemble.__all__


@each_text
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


@pytest.mark.parametrize("name", ["art", "food", "masks"])
def test_the_notebook_of_a_tutorial_has_all_of_its_page(name):
    cells = notebook.notebook(name)["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    page = ROOT / "docs" / "pages" / "tutorials" / f"{name}.md"
    begin = sources.index(f"!python example_data.py {name}")
    assert sources[begin - 1].startswith("%%writefile example_data.py\n") and f"data/{name}" in sources[begin - 2]
    ast.parse(sources[begin - 1].partition("\n")[2])
    assert not any("docs/" in source or "<!--" in source for source in sources[: begin - 1] + sources[begin + 1 :])
    shown = ["".join(output["text"]) for cell in cells for output in cell.get("outputs", ())]
    for part in blocks(page)[1:]:
        file = notebook.file_name(part)
        if part.language == "text":
            assert f"{part.text}\n" in shown
        elif part.remark == notebook.STOPPED:
            assert any(
                source.startswith("# timeout presses Ctrl-C after 15 seconds; ")
                and source.endswith(f"\n!timeout -s INT 15 {part.text}")
                for source in sources
            )
        else:
            commands = "\n".join(f"!{line}" for line in part.text.splitlines())
            assert (f"%%writefile {file}\n{part.text}" if file else commands) in sources
    prose = "\n\n".join(source for cell, source in zip(cells, sources, strict=True) if cell["cell_type"] == "markdown")
    for part in notebook.parts(page.read_text(encoding="utf-8")):
        for paragraph in part.text.split("\n\n") if part.language is None else ():
            assert paragraph.startswith(("<!--", "Run the commands in a checkout")) or paragraph.strip() in prose
    assert len({cell["id"] for cell in cells}) == len(cells)
