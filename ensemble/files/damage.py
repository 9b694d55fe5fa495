"""What is lost with a file of a run, and which command makes it again."""

import re
from pathlib import Path

from ensemble.errors import Damaged

NOT_AS_WRITTEN = "damaged: its bytes are not those that ens wrote"

# By the name of the file: what is lost, and what makes it again. {member} and {fold} are those of its folders.
_OF_FOLD = {
    "model.safetensors": ("the weights of {member}, fold {fold}", "ens train-folds {config} trains that fold again"),
    "oof.safetensors": (
        "the out-of-fold logits of {member}, fold {fold}",
        "ens train-folds {config} trains that fold again",
    ),
    "views.safetensors": (
        "the out-of-fold logits of the views that were added to {member}, fold {fold}",
        "ens tta-oof {run} --views NAMES computes them again",
    ),
    "log.jsonl": (
        "the learning curve of {member}, fold {fold}, and no more",
        "to have it again, delete the file and run: ens train-folds {config}",
    ),
    "inference.json": ("the number format of {member}, fold {fold}", "delete the file, and float32 is used"),
    "done.json": ("the mark that {member}, fold {fold} is whole", "ens train-folds {config} writes it again"),
    "last.safetensors": (
        "the epochs so far of {member}, fold {fold}",
        "ens train-folds {config} begins that fold again",
    ),
}
_OF_MEMBER = {
    "settings.json": "the settings of {member}",
    "preprocess.json": "the preprocessing of {member}",
    "numerics.json": "the numeric settings of {member}",
    "speeds.json": "the speeds of {member}",
    "probe.safetensors": "the probes of {member}",
    "refit-probe.safetensors": "the probe of {member} on all rows",
}
_OF_RUN = {
    "folds.csv": ("which fold each row is in", "ens train-folds {config} works it out again"),
    "classes.json": ("the names of the classes", "ens train-folds {config} writes them again"),
    "provenance.json": ("the run's fingerprint and versions", "ens train-folds {config} writes them again"),
    "contents.json": ("the digest of the images", "ens train-folds {config} writes it again"),
    "config.toml": (
        "the experiment as it was last trained",
        "run ens train-folds with your own experiment file, or with this one if it was you who edited it",
    ),
    "tta-search.json": ("what each set of views is worth", "ens tta-search {run} finds it again"),
    "slices.json": ("in which parts of the images accuracy is worse", "ens slices {run} finds them again"),
    "audit.json": ("what ens check found", "ens check {config} finds it again"),
}


def loss_of(path: Path) -> tuple[str, str]:
    """What is lost with a file ("" where that is not known), and how it is made again, in words."""
    fold = path.parent.parent if path.parent.name == "state" else path.parent
    number = re.fullmatch(r"fold(\d+)", fold.name)
    kind = re.fullmatch(r"(soup|refit)\d*", fold.name)
    if kind and fold.with_name("settings.json").is_file() and path.name != "inference.json":
        lost, again = "the {kind} of {member}", "ens {kind} {run} --members {member} makes it again"
        run, member = fold.parent.parent, fold.parent.name
    elif number and path.name in _OF_FOLD:
        lost, again = _OF_FOLD[path.name]
        run, member = fold.parent.parent, fold.parent.name
    elif path.name in _OF_MEMBER:
        lost, again = _OF_MEMBER[path.name], "ens train-folds {config} writes the file again"
        run, member = path.parent.parent, path.parent.name
    elif "unknown" in (path.parent.name, path.parent.parent.name):
        lost, again = "what tells unknown images", "delete it, and make it again with: ens unknown {run}"
        run, member = path.parents[2 if path.parent.name == "blends" else 1], ""
    elif path.parent.name == "blends":
        lost, again = f"the blend {path.stem}", "fit it again with: ens blend {run}"
        run, member = path.parent.parent, ""
    elif path.parent.name == "held-out":
        lost = f"the out-of-fold probabilities of the blend {path.stem}, which sets and abstention need"
        again, run, member = "fit it again with: ens blend {run}", path.parents[2], ""
    elif "predictions" in (above := [folder.name for folder in list(path.parents)[:3]]):  # predictions/logits/<set>
        lost, again = "predictions", "ens tta-predict {run} with the same images makes them again"
        run, member = path.parents[above.index("predictions") + 1], ""
    elif path.parent.name == ".trackers":
        lost, again = f"what {path.stem} was sent", f"delete it to begin another run of {path.stem}"
        run, member = path.parent.parent, ""
    elif path.name in _OF_RUN:
        lost, again = _OF_RUN[path.name]
        run, member = path.parent, ""
    else:
        return "", "put it back from a copy, or delete it and make it again"
    words = {"member": member, "fold": number[1] if number else "", "run": run, "config": run / "config.toml"}
    words["kind"] = kind[1] if kind else ""
    return lost.format(**words), again.format(**words)


def damaged(path: Path, what: str = NOT_AS_WRITTEN) -> Damaged:
    """The error of a file that can't be trusted: one line that says which, what is lost and what makes it again."""
    lost, again = loss_of(path)
    return Damaged("; ".join([f"{path}: {what}", *([f"lost: {lost}"] if lost else []), again]))
