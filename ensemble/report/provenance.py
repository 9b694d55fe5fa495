"""With what, from what and how the run was made, and the commands that make it again."""

import shlex
from typing import Any

from ensemble.blend.fit import plain_name
from ensemble.files.mirror import folder_of
from ensemble.report.run import RunResults


def section(results: RunResults) -> dict[str, Any] | None:
    """Commands, versions, times, files, config."""
    made = results.provenance.get("made with", {})
    known: dict[str, Any] = {**results.provenance["facts"]}
    return {
        "commands": commands(results),
        "made": {str(key): str(value) for key, value in made.items()},
        "identity": {key: _in_words(value) for key, value in known.items()},
        "seconds": sum(sum(member.seconds.values()) for member in results.members),
        "files": files(results),
    }


def commands(results: RunResults) -> list[tuple[str, str]]:
    """(what, the command) to make the run, its best blend, a prediction and this page again."""
    run = shlex.quote(str(results.run))
    out = [("train", train_again(results))]
    best = results.best
    if best is not None and results.saved:
        line = f"ens blend {run} --method {best.fitted.method}"
        if best.fitted.metric != "log_loss":
            line += f" --metric {best.fitted.metric}" + " --costs FILE" * (best.fitted.costs is not None)
        if best.fitted.calibration != "temperature":
            line += f" --calibration {best.fitted.calibration}"
        trained = [member.name for member in results.members if member.whole]
        members = [member for member in best.members if member not in best.external]
        if sorted(members) != sorted(trained):
            line += f" --members {shlex.quote(','.join(members))}"
        views = best.views.get(members[0], ()) if members else ()
        if results.oof is not None and views and results.oof.views and tuple(views) != tuple(results.oof.views[0]):
            line += f" --views {shlex.quote(','.join(views))}"
        line += "".join(f" --add {shlex.quote(f'{name}=OOF,TEST')}" for name in best.external)
        if best.name != plain_name(best.fitted.method, best.fitted.metric, best.fitted.calibration):
            line += f" --name {shlex.quote(best.name)}"
        out.append(("blend", line))
    elif results.oof is not None:
        out.append(("blend", f"ens blend {run}"))
    name = best.name if best is not None and results.saved else "auto"
    out.append(("predict", f"ens tta-predict {run} IMAGES --blend {shlex.quote(name)} -o submission.csv"))
    out.append(("this page", f"ens report {run}"))
    return out


def train_again(results: RunResults) -> str:
    """The command that trains on. The run may have been moved since its config named it: it then has to be named."""
    line = f"ens train-folds {experiment(results)}"
    if results.config is not None and folder_of(results.config.run).resolve() != results.run.path.resolve():
        line += f" --set {shlex.quote(f'run={results.run}')}"
    return line


def experiment(results: RunResults) -> str:
    """The run's experiment file, as a word of a command."""
    return shlex.quote(str(results.run.config_toml))


def files(results: RunResults) -> list[dict[str, Any]]:
    """What the run holds: the files of its own folder, then a line a folder."""
    out = []
    for path in sorted(results.run.path.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        inside = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path] * path.is_file()
        size = sum(one.stat().st_size for one in inside)
        out.append({"name": path.name + "/" * path.is_dir(), "files": len(inside), "megabytes": size / 1e6})
    return out


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        text = ", ".join(str(item) for item in value[:20])
        return text + (f" and {len(value) - 20:,} more" if len(value) > 20 else "")
    return "none" if value is None else str(value)
