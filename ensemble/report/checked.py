"""What `ens check` found, of what a score may rest on, and what nobody has looked at."""

from ensemble.data.labelled import names_base
from ensemble.data.name_groups import NAMED_GROUPS, name_groups
from ensemble.errors import UserError
from ensemble.report.provenance import experiment
from ensemble.report.run import RunFacts
from ensemble.report.signs import Finding
from ensemble.report.thumbnails import image_files

LEAKS = ("test-in-train", "test-near-train", "shift")  # kinds of ens check that a score may rest on


def audited(facts: RunFacts) -> list[Finding]:
    """The errors and warnings of audit.json, with its leaks and shift."""
    out = []
    for own in (facts.audit or {}).get("findings", []):
        if own["level"] in ("error", "warning"):
            side = own.get("side", "train")
            what = "" if side == "train" else f"{side}: "
            what += f"{own.get('count', 0):,} {own.get('what', own.get('kind', ''))}".rstrip(".") + "."
            level = "suspicious" if own["level"] == "error" or own.get("kind") in LEAKS else "hint"
            advice = str(own.get("advice", ""))
            out.append(Finding(level, f"From ens check: {what}", f"{advice[:1].upper()}{advice[1:].rstrip('.')}."))
    return out


def named_groups(facts: RunFacts) -> list[Finding]:
    """Groups that file names suggest and that the run does not use; left out where ens check has said it."""
    config = facts.config
    said = any(own.get("kind") == "suggested-groups" for own in (facts.audit or {}).get("findings", []))
    if config is None or said or config.data.group is not None or config.folds.fold is not None:
        return []
    try:
        files = image_files(config)
    except UserError:
        return []
    rows = facts.rows
    found = name_groups(
        [files.get(name) for name in rows.ids.tolist()],
        [rows.classes[label] for label in rows.labels.tolist()],
        names_base(config),
    )
    return [] if found is None else [Finding("suspicious", f"F{found.describe()[1:]}.", f"{NAMED_GROUPS}.")]


def not_looked_at(facts: RunFacts) -> list[str]:
    """What a reader may believe to have been looked at, and was not."""
    out = []
    look = f"(look with: ens check {experiment(facts)} --test TEST)"
    if facts.audit is None:
        out.append(f"copies, leaks and shift between training and test images {look}")
    elif facts.audit.get("test") is None:
        out.append(f"leaks to the test images and shift: ens check was not given them {look}")
    if not any(facts.run.path.glob("predictions/[!.]*.safetensors")):
        out.append("shares of the classes on new images (there are no predictions yet)")
    return out
