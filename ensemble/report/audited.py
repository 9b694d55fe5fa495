"""What `ens check` found that a score may depend on, and what was not checked."""

from ensemble.data.labelled import names_base
from ensemble.data.name_groups import NAMED_GROUPS, name_groups
from ensemble.report.provenance import experiment
from ensemble.report.run import RunResults
from ensemble.report.statistics import Issue

LEAKS = ("test-in-train", "test-near-train", "shift")  # kinds of findings that a score may depend on


def audited(results: RunResults) -> list[Issue]:
    """The errors and warnings of audit.json, with its leaks and shift."""
    out = []
    for finding in (results.audit or {}).get("findings", []):
        if finding["level"] in ("error", "warning"):
            side = finding.get("side", "train")
            what = "" if side == "train" else f"{side}: "
            what += f"{finding.get('count', 0):,} {finding.get('what', finding.get('kind', ''))}".rstrip(".") + "."
            level = "warning" if finding["level"] == "error" or finding.get("kind") in LEAKS else "note"
            advice = str(finding.get("advice", ""))
            out.append(Issue(level, f"From ens check: {what}", f"{advice[:1].upper()}{advice[1:].rstrip('.')}."))
    return out


def named_groups(results: RunResults) -> list[Issue]:
    """Groups that file names suggest and that the run does not use; none if ens check has reported them."""
    config = results.config
    reported = any(finding.get("kind") == "suggested-groups" for finding in (results.audit or {}).get("findings", []))
    if config is None or reported or config.data.group is not None or config.folds.fold is not None:
        return []
    if results.files_problem:
        return []
    rows = results.rows
    found = name_groups(
        [results.files.get(name) for name in rows.ids.tolist()],
        [rows.classes[label] for label in rows.labels.tolist()],
        names_base(config),
    )
    return [] if found is None else [Issue("warning", f"F{found.describe()[1:]}.", f"{NAMED_GROUPS}.")]


def not_checked(results: RunResults) -> list[str]:
    """What a reader may take to be checked, and was not."""
    out = []
    command = f"(to check them: ens check {experiment(results)} --test TEST)"
    if results.audit is None:
        out.append(f"copies, leaks and shift between training and test images {command}")
    elif results.audit.get("test") is None:
        out.append(f"leaks to the test images and shift, since ens check was not given them {command}")
    if not any(results.run.path.glob("predictions/[!.]*.safetensors")):
        out.append("class shares of predictions on new images (there are none yet)")
    return out
