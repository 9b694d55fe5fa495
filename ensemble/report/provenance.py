"""With what, from what and how the run was made, and the commands that make it again."""

import shlex
from typing import Any

from ensemble.report.run import RunFacts


def section(facts: RunFacts) -> dict[str, Any] | None:
    """Commands, versions, times, files, config."""
    made = facts.provenance.get("made with", {})
    known: dict[str, Any] = {**facts.provenance["facts"]}
    return {
        "commands": commands(facts),
        "made": {str(key): str(value) for key, value in made.items()},
        "facts_of_run": {key: _in_words(value) for key, value in known.items()},
        "seconds": sum(sum(own.seconds.values()) for own in facts.members),
        "files": files(facts),
    }


def commands(facts: RunFacts) -> list[tuple[str, str]]:
    """(what, the command) to make the run, its best blend, a prediction and this page again."""
    run = shlex.quote(str(facts.run))
    out = [("train", train_again(facts))]
    best = facts.best
    if best is not None and facts.saved:
        line = f"ens blend {run} --method {best.fitted.method}"
        if best.fitted.metric != "log_loss":
            line += f" --metric {best.fitted.metric}" + " --costs FILE" * (best.fitted.costs is not None)
        trained = [own.name for own in facts.members if own.whole]
        own = [member for member in best.members if member not in best.external]
        if sorted(own) != sorted(trained):
            line += f" --members {shlex.quote(','.join(own))}"
        views = best.views.get(own[0], ()) if own else ()
        if facts.oof is not None and views and facts.oof.views and tuple(views) != tuple(facts.oof.views[0]):
            line += f" --views {shlex.quote(','.join(views))}"
        line += "".join(f" --add {shlex.quote(f'{name}=OOF,TEST')}" for name in best.external)
        plain = best.fitted.method if best.fitted.metric == "log_loss" else f"{best.fitted.method}-{best.fitted.metric}"
        if best.name != plain:
            line += f" --name {shlex.quote(best.name)}"
        out.append(("blend", line))
    elif facts.oof is not None:
        out.append(("blend", f"ens blend {run}"))
    name = best.name if best is not None and facts.saved else "stack"
    out.append(("predict", f"ens tta-predict {run} IMAGES --blend {shlex.quote(name)} -o submission.csv"))
    out.append(("this page", f"ens report {run}"))
    return out


def train_again(facts: RunFacts) -> str:
    """The command that trains on. The run may have been moved since its config named it: it then has to be named."""
    line = f"ens train-folds {experiment(facts)}"
    if facts.config is not None and facts.config.run.resolve() != facts.run.path.resolve():
        line += f" --set {shlex.quote(f'run={facts.run}')}"
    return line


def experiment(facts: RunFacts) -> str:
    """The run's experiment file, as a word of a command."""
    return shlex.quote(str(facts.run.config_toml))


def files(facts: RunFacts) -> list[dict[str, Any]]:
    """What the run holds: the files of its own folder, then a line a folder."""
    out = []
    for path in sorted(facts.run.path.iterdir()):
        if path.name.startswith(".") or path.name == "report.html":
            continue
        inside = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path] * path.is_file()
        size = sum(one.stat().st_size for one in inside)
        out.append({"name": path.name + "/" * path.is_dir(), "files": len(inside), "megabytes": size / 1e6})
    return out


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(own)}" for key, own in value.items() if own is not None)
    if isinstance(value, list):
        text = ", ".join(str(own) for own in value[:20])
        return text + (f" and {len(value) - 20:,} more" if len(value) > 20 else "")
    return "none" if value is None else str(value)
