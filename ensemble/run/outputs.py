"""Where a command may write: never over a file that a run owns, nor over one that it reads."""

from collections.abc import Iterable
from pathlib import Path

from ensemble.config import load_config
from ensemble.errors import UserError
from ensemble.files.atomic import require_writable
from ensemble.run.run import Run

HEAD = 4096  # bytes of a file that is there: what ens writes for people is text


def require_output(
    output: Path, inputs: Iterable[Path | None] = (), allowed: Path | None = None, begins: str = ""
) -> None:
    """Raise UserError unless the command may write its result to `output`. Called before the work begins.

    Links and relative paths are followed, and upper and lower case count as equal, as on some file systems. A file that
    the same command wrote may be written again.

    inputs: files that the command reads (images of a folder are not text, and so are refused anyway)
    allowed: the file of a run that this command writes, such as report.html
    begins: the first characters of everything that the command writes
    """
    require_place(output, inputs, allowed)
    real = output.resolve()
    head = _head(real)
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 is text too
        raise UserError(f"{output}: exists already and is not text, so ens did not write it; name another file")
    if head and not head.lower().startswith(begins.encode()):
        raise UserError(f"{output}: exists already and was not written by this command; name another file")


def require_place(output: Path, inputs: Iterable[Path | None] = (), allowed: Path | None = None) -> None:
    """As `require_output`, whatever a file that is there already holds."""
    real = output.resolve()
    for path in inputs:
        if path is not None and not path.is_dir() and _same(real, path):
            raise UserError(f"{output}: is what the command reads, {path}; name another file to write")
    run = next((Run(folder) for folder in real.parents if _is_run(folder)), None)
    if run is not None and (allowed is None or not _same(real, allowed)) and _owns(run, real):
        raise UserError(f"{output}: belongs to the run {run}; name a file outside of the run")
    require_writable(output)


def inputs_of(run: Run) -> list[Path]:
    """The files that the run's experiment names; none if its config can't be read."""
    try:
        config = load_config(run.config_toml)
    except UserError:
        return []
    named = [config.data.train, config.data.relabel, *(backbone.weights for backbone in config.backbone)]
    return [Path(one) for one in named if one is not None]


def _is_run(folder: Path) -> bool:
    run = Run(folder)
    return run.folds_csv.is_file() and run.classes_json.is_file()


def _owns(run: Run, path: Path) -> bool:
    """True for the files that `Run` names, whether they exist or not, and for everything in its folders."""
    first, *below = path.relative_to(run.path).parts
    if below:
        member = run.member(first)
        folders = (run.blend_json("x").parent.name, run.predictions_file("x", "x").parent.name)
        is_member = member.settings_json.is_file() or any(member.path.glob("fold[0-9]*"))
        return first.casefold() in folders or first.startswith(".") or is_member
    files = (
        run.config_toml, run.folds_csv, run.classes_json, run.provenance_json, run.contents_json, run.view_search_json,
        run.audit_json, run.slices_json, run.report_html, run.submissions_csv, run.ens_log,
    )  # fmt: skip
    return first.casefold() in [file.name for file in files] or first.startswith(".")


def _same(real: Path, path: Path) -> bool:
    if real.exists() and path.exists():
        return real.samefile(path)  # hard links too
    return str(real).casefold() == str(path.resolve()).casefold()


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD)
