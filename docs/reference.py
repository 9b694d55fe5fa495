"""Writes the pages of docs/pages/reference that are made from the code: python docs/reference.py

commands.md from each command's own help, experiment.md from the model of the experiment file, python.md from the
docstrings of the public names. A test holds them in step with the code.
"""

import ast
import inspect
import json
import re
import textwrap
import types
from pathlib import Path
from typing import Any

import click

import ensemble
from ensemble.cli import ens
from ensemble.config import Config

FOLDER = Path(__file__).parent / "pages" / "reference"
WIDTH, LINE = 96, 100  # characters of a command's help, and of a signature
METHODS = ("members", "blend", "predict", "predict_proba", "refresh", "save")  # of classes; the rest are their files


def commands() -> str:
    """commands.md"""
    parts = ["# Commands", "What `ens COMMAND --help` says."]
    parent = click.Context(ens, info_name="ens", help_option_names=["-h", "--help"])
    for name, command in sorted(ens.commands.items()):
        context = click.Context(command, parent, name, max_content_width=WIDTH, terminal_width=WIDTH)
        parts += [f"## ens {name}", f"```text\n{command.get_help(context).rstrip()}\n```"]
    return _page(parts)


def experiment() -> str:
    """experiment.md"""
    parts = [
        "# The experiment file",
        "A TOML file. Unknown keys are errors that name the nearest known one. Any key can be set for one run: `--set "
        "train.epochs=3`, `--set backbone.swin.train.lr=1e-4` for one backbone. Paths start where the command is run. "
        "`configs/` holds complete files.",
    ]
    schema = Config.model_json_schema()
    tables = {"": schema, **{name: _resolved(value, schema) for name, value in schema["properties"].items()}}
    for name, table in tables.items():
        if "properties" not in table:
            continue
        title = f"`[[{name}]]`, one for each member" if _is_list(name, schema) else f"`[{name}]`"
        parts.append(f"## {title}" if name else "## Above the tables")
        if name == "train":
            parts.append("A backbone's own `train = { ... }` goes before it.")
        rows = ["| key | values | default | |", "|---|---|---|---|"]
        for key, of_key in table["properties"].items():
            if "properties" in _resolved(of_key, schema):  # a table, which follows
                continue
            default = "needed" if key in table.get("required", ()) else _written(of_key.get("default"))
            about = " ".join(of_key.get("description", "").split()).replace("|", "\\|")
            rows.append(f"| `{key}` | {_values(of_key)} | {default} | {about} |")
        parts.append("\n".join(rows))
    return _page(parts)


def python() -> str:
    """python.md"""
    parts = [
        "# Python",
        "```python\nimport ensemble as ens\n```",
        "These are the functions behind the commands. What the user can mend is raised as `ens.UserError`; a job that "
        "failed although its input was right as `ens.RunFailure`.",
    ]
    for name in sorted((name for name in ensemble.__all__ if name != "__version__"), key=str.lower):
        thing = getattr(ensemble, name)
        parts += [f"## {name}", _signature(name, thing), _markdown(inspect.getdoc(thing) or "")]
        for method in METHODS if inspect.isclass(thing) else ():
            found = inspect.getattr_static(thing, method, None)
            if found is None or not inspect.getdoc(found):
                continue
            title = f"{name}.{method}"
            parts.append(f"### {title}")
            if isinstance(found, types.FunctionType):
                parts.append(_signature(title, found))
            parts.append(_markdown(inspect.getdoc(found) or ""))
    return _page(parts)


PAGES = {"commands.md": commands, "experiment.md": experiment, "python.md": python}


def _page(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _resolved(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The table that a key of the schema refers to, or the value itself."""
    of_items = value.get("items", value)
    # of a table that may be left out
    of_items = next((one for one in of_items.get("anyOf", ()) if "$ref" in one), of_items)
    name = of_items.get("$ref", "").rpartition("/")[2]
    return dict(schema["$defs"][name]) if name else value


def _is_list(name: str, schema: dict[str, Any]) -> bool:
    return bool(name) and schema["properties"][name].get("type") == "array"


def _values(of_key: dict[str, Any]) -> str:
    """What a key takes, in few words."""
    if "anyOf" in of_key:
        found = [_values(one) for one in of_key["anyOf"] if one.get("type") != "null"]
        return ", or ".join(dict.fromkeys(found))
    if "const" in of_key or "enum" in of_key:
        return ", ".join(f"`{json.dumps(one)}`" for one in of_key.get("enum", [of_key.get("const")]))
    kind = of_key.get("type")
    if kind == "array":
        pair = of_key.get("prefixItems")
        return f"a pair: {_values(pair[0])}" if pair else f"a list: {_values(of_key['items'])}"
    if kind in ("integer", "number"):
        return {"integer": "whole number", "number": "number"}[kind] + _range(of_key)
    names = {"boolean": "`true`, `false`", "object": "a table"}
    return names.get(str(kind), "path" if of_key.get("format") == "path" else "text")


def _range(of_key: dict[str, Any]) -> str:
    least, above = of_key.get("minimum"), of_key.get("exclusiveMinimum")
    most, below = of_key.get("maximum"), of_key.get("exclusiveMaximum")
    low = f" from {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
    return low + (f" to {most:g}" if most is not None else f" below {below:g}" if below is not None else "")


def _written(default: Any) -> str:
    if default is None or default in ([], {}):
        return ""
    return f"`{json.dumps(default)}`"


def _signature(name: str, thing: Any) -> str:
    """As it is written in the source, where `inspect` would write out what ArrayLike stands for; "" of a protocol."""
    if getattr(thing, "_is_protocol", False):
        return ""
    function = thing.__init__ if inspect.isclass(thing) and "__init__" in vars(thing) else thing
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError):
        return ""
    if not isinstance(node, ast.FunctionDef):
        return ""
    written = [part for part in _arguments(node.args) if part != "self"]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and function is thing else ""
    line = f"{name}({', '.join(written)}){returns}"
    if len(line) > LINE:
        inner = "".join(f"    {part},\n" for part in written)
        line = f"{name}(\n{inner}){returns}"
    return f"```python\n{line}\n```"


def _arguments(arguments: ast.arguments) -> list[str]:
    every = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(every) - len(arguments.defaults)) + list(arguments.defaults)
    found = [_argument(one, default) for one, default in zip(every, defaults, strict=True)]
    if arguments.vararg is not None:
        found.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        found.append("*")
    found += [_argument(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return found if arguments.kwarg is None else [*found, f"**{arguments.kwarg.arg}"]


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    equals = " = " if argument.annotation is not None else "="
    return ast.unparse(argument) + (f"{equals}{ast.unparse(default)}" if default is not None else "")


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: its fields as a list, its examples as code."""
    blocks = []
    for block in docstring.strip().split("\n\n"):
        if block.lstrip().startswith(">>>"):
            blocks.append(f"```python\n{block}\n```")
        elif re.match(r"[a-z_]\w*(, \w+)*: ", block):
            fields = re.sub(r"\n(?=[a-z_]\w*(, \w+)*: )", "\n- ", f"- {block}")
            blocks.append(re.sub(r"^- ([\w, ]+): ", r"- `\1`: ", fields, flags=re.MULTILINE))
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
