"""Makes a notebook of a tutorial, for Jupyter, Colab or Kaggle: python docs/notebook.py art|food|masks -> art.ipynb

The page stays the one source. Its text becomes text, its commands become `!` lines with the output that the page shows,
and a block that begins with the name of a file writes it. Before the first command come cells that install ens and say
where one's own images go; the script that draws the images is in the notebook, so that it needs no checkout.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parent / "pages" / "tutorials"
SCRIPT = Path(__file__).parent / "example_data.py"
STOPPED = "stopped by Ctrl-C"
SECONDS = 15  # after which the notebook stops what a page stops by Ctrl-C: in the middle of a food tutorial's training

INSTALL = """\
**Install ens.** In a checkout of ens this works as it is. On Colab or Kaggle upload a wheel of it (in a checkout
`pip wheel --no-deps .` makes one), and write its path here; a repository's address (`git+https://...`) will do too."""
INSTALL_CODE = """\
ENS = "."
%pip install --quiet "{ENS}"

import os, sys
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]  # where `!ens` is looked for
os.environ["TERM"] = "dumb"  # in place of a moving bar a line a minute"""
YOUR_OWN = """\
**Your own images** take the place of the drawn ones. Leave out the two cells that draw, and put yours, or links to
them, into `data/{name}`, in the folders and tables that the text names:

- Kaggle: `!mkdir -p data/{name} && ln -s /kaggle/input/NAME/* data/{name}/`
- Colab: `from google.colab import drive; drive.mount("/content/drive")`, then
  `!mkdir -p data/{name} && ln -s /content/drive/MyDrive/NAME/* data/{name}/`

The networks of this notebook are tiny ones for drawn images. `!ens init IMAGES -o mine.toml` writes an experiment file
for yours."""


@dataclass(frozen=True)
class Part:
    """A piece of a page.

    text: of a block, what stands between its fences.
    language: what stands behind the fence, "" for commands; None for text outside of blocks.
    remark: what the comment above a block says of how it is run, "" without one.
    line: of the fence, or of the text's beginning, from 1.
    """

    text: str
    language: str | None
    remark: str
    line: int


def parts(page: str) -> list[Part]:
    """A page's text and blocks, in their order. Raises ValueError for a block without an end."""
    found: list[Part] = []
    lines: list[str] = []
    language, begin = None, 1
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
            continue
        text = "\n".join(lines)
        remark = ""
        if language is None:
            if text.strip():
                found.append(Part(text.strip("\n"), None, "", begin))
            language, begin = line[3:].strip(), number
        else:
            before = found[-1].text if found and found[-1].language is None else ""
            if comment := re.search(r"<!-- (.*?) -->\s*\Z", before):
                remark = " ".join(comment[1].split())
            found.append(Part(text, language, remark, begin))
            language, begin = None, number + 1
        lines = []
    if language is not None:
        raise ValueError(f"line {begin}: this block has no end")
    if text := "\n".join(lines).strip("\n"):
        found.append(Part(text, None, "", begin))
    return found


def notebook(name: str) -> dict[str, object]:
    """The notebook of a tutorial, as nbformat 4.5 has it."""
    cells: list[dict[str, object]] = []
    is_begun = False
    for part in parts((PAGES / f"{name}.md").read_text(encoding="utf-8")):
        if part.language is None:
            cells.append(_text(part.text))
        elif part.language == "text" and "outputs" in cells[-1]:
            cells[-1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": _lines(part.text + "\n")}]
        elif part.language == "":
            if not is_begun:
                drawing = f"%%writefile {SCRIPT.name}\n{SCRIPT.read_text(encoding='utf-8').rstrip()}"
                cells += [_text(INSTALL), _code(INSTALL_CODE), _text(YOUR_OWN.format(name=name)), _code(drawing)]
                is_begun = True
            cells.append(_code(_commands(part)))
        elif file := file_name(part):
            cells.append(_code(f"%%writefile {file}\n{part.text}"))
        else:
            cells.append(_text(f"```{part.language}\n{part.text}\n```"))
    numbered = [{"id": f"{name}-{number}", **cell} for number, cell in enumerate(cells) if cell["source"]]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": numbered, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def file_name(part: Part) -> str | None:
    """The file that a block is to be written into, which its first line names; None for other blocks."""
    name = re.match(r"# ([\w-]+\.\w+)\n", part.text)
    return name[1] if name and part.language == "toml" else None


def _commands(part: Part) -> str:
    lines = [f"!{line}" for line in part.text.replace(f"docs/{SCRIPT.name}", SCRIPT.name).splitlines()]
    if part.remark == STOPPED:
        note = (
            f"# timeout presses Ctrl-C after {SECONDS} seconds; where there is none (a Mac), stop the next cell instead"
        )
        lines = [note, *(line.replace("!", f"!timeout -s INT {SECONDS} ", 1) for line in lines)]
    return "\n".join(lines)


def _text(text: str) -> dict[str, object]:
    """Without comments, and without what is said to readers of the page alone: how to make this notebook."""
    paragraphs = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).split("\n\n")
    kept = [paragraph for paragraph in paragraphs if "docs/notebook.py" not in paragraph]
    return {"cell_type": "markdown", "metadata": {}, "source": _lines("\n\n".join(kept).strip())}


def _code(text: str) -> dict[str, object]:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": _lines(text)}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (PAGES / f"{sys.argv[1]}.md").is_file():
        sys.exit(__doc__)
    Path(f"{sys.argv[1]}.ipynb").write_text(
        json.dumps(notebook(sys.argv[1]), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
