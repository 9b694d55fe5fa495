"""The model card: what the Hugging Face Hub shows of a published model, as Markdown below its metadata as YAML."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ensemble.blend import BlendResult
from ensemble.blend.oof import Rows
from ensemble.escape import escaped
from ensemble.exported.description import Description
from ensemble.report.classes import by_class, confused_pairs, confusion
from ensemble.scoring.bootstrap import Score
from ensemble.scoring.metrics import METRICS

HUB_METRICS = {"accuracy": "accuracy", "macro_f1": "f1"}  # ens's name -> the Hub's, of those that it ranks by
MOST_CLASSES = 300  # of the table by class: of more, those of the lowest F1
PAIRS = 8


@dataclass(frozen=True)
class Published:
    """What a card tells.

    name: of the model.
    license: an identifier of the Hub, such as "apache-2.0"; None where the owner has chosen none yet.
    result: the blend with its scores.
    rows: the validated rows.
    predicted: int64 (N,), the class that each row is decided for by a fit without its fold; None where that can't be
        computed again.
    description: of the exported file.
    weights: member -> (what it started from, the license of that as far as timm knows it).
    groups: the column of the data whose groups share a fold; None where there is none.
    near_copies: whether near copies share a fold.
    commands: (what, the command), which make the model again.
    file: name and bytes of the exported file, or of the folder of a cascade.
    is_cascade: whether it is one.
    """

    name: str
    license: str | None
    result: BlendResult
    rows: Rows
    predicted: np.ndarray | None
    description: Description
    weights: Mapping[str, tuple[str, str | None]]
    groups: str | None
    near_copies: bool
    commands: Sequence[tuple[str, str]]
    file: tuple[str, int]
    is_cascade: bool = False


def model_card(published: Published) -> str:
    """The text of README.md."""
    pages = Environment(
        loader=PackageLoader("ensemble.publish"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # not HTML: the Hub makes that of the Markdown, and `text` leaves no markup in what users have named
    pages.filters |= {"text": text, "count": "{:,}".format, "share": share}
    rows, result = published.rows, published.result
    table: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    if published.predicted is not None:
        table = by_class(rows.labels, published.predicted, rows.clusters, rows.grouped, rows.classes)
        pairs = confused_pairs(confusion(rows.labels, published.predicted, len(rows.classes)), rows.classes, PAIRS)
    by_f1 = sorted(table, key=lambda row: (row["f1"], row["name"]))
    body = pages.get_template("card.md").render(
        published=published,
        result=result,
        description=published.description,
        counts=np.bincount(rows.labels, minlength=len(rows.classes)).tolist(),
        metrics=[METRICS[metric].heading for metric in result.blend],
        scores=scores_table(result),
        by_class=by_f1[:MOST_CLASSES] if len(table) > MOST_CLASSES else table,
        left_out=max(0, len(table) - MOST_CLASSES),
        pairs=pairs,
    )
    return f"---\n{metadata(published)}\n---\n\n{escaped(body, lines=True)}"


def metadata(published: Published) -> str:
    """The card's YAML, checked by the Hub's own library."""
    from huggingface_hub import EvalResult, ModelCardData

    scored = published.result.blend if published.description.scores is not None else {}
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="custom",
            dataset_name=f"{len(published.rows.ids):,} labelled images, out of fold",
            metric_type=hub_name,
            metric_name=f"{METRICS[metric].heading.removesuffix(' %')}, cross-validated",
            metric_value=round(scored[metric].value, 4),
        )
        for metric, hub_name in HUB_METRICS.items()
        if metric in scored
    ]
    data = ModelCardData(
        license=published.license,
        library_name="onnx",
        pipeline_tag="image-classification",
        tags=["image-classification", "ensemble", "onnx", "timm"],
        metrics=[hub_name for metric, hub_name in HUB_METRICS.items() if metric in scored] or None,
        model_name=published.name,
        eval_results=results or None,
    )
    return data.to_yaml()


def text(value: object) -> str:
    """What others have named, without markup, in one cell of a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", escaped(str(value)))


def scores_table(result: BlendResult) -> list[list[str]]:
    """Cells of the blend's and of each single member's scores with their intervals."""
    others = {f"{text(name)} alone": scores for name, scores in result.members.items()}
    systems = {"**this model**": result.blend, **(others if len(others) > 1 else {})}
    return [[name, *(_score(metric, scores) for metric in result.blend)] for name, scores in systems.items()]


def _score(metric: str, scores: Mapping[str, Score]) -> str:
    if metric not in scores:
        return "–"
    found = scores[metric]
    value, low, high = map(METRICS[metric].number, (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def share(value: float, ends: tuple[float, float]) -> str:
    """A share in percent with its interval; a dash where there is nothing to divide by."""
    if np.isnan(value):
        return "–"
    low, high = ends
    return f"{100 * value:.1f}" + ("" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")
