"""A blend's result as data frames, as one line and as HTML."""

import pandas as pd

from ensemble.api import html
from ensemble.api.frames import gains_frame, scores_frame
from ensemble.blend import BlendResult
from ensemble.scoring.metrics import HEADLINE, METRICS, columns
from ensemble.tables.layout import gain_cell, score_cell


def blend_scores(result: BlendResult) -> pd.DataFrame:
    """The cross-fitted scores of the blend, beside those of the plain mean and of each member."""
    return scores_frame({"blend": result.blend, "plain mean": result.mean, **result.members}, "of")


def blend_gains(result: BlendResult) -> pd.DataFrame:
    """What the blend gains over the plain mean ("mean") and over the best single member, by each metric."""
    return gains_frame(result.gains)


def blend_weights(result: BlendResult) -> pd.DataFrame:
    """Each member's weight and, where the method has one, its temperature."""
    return pd.DataFrame.from_dict(result.weights, orient="index", dtype=float).rename_axis("member")


def blend_line(result: BlendResult) -> str:
    """What it is and what it scores, in one line."""
    scores = []
    for metric in HEADLINE:
        cell = score_cell(metric, result.blend[metric]).replace("\n", " ")
        scores.append(f"{METRICS[metric].title} {cell}{' %' if METRICS[metric].factor == 100 else ''}")
    return f"{result.name!r} of {len(result.members)} members, cross-fitted on {result.rows} rows: {', '.join(scores)}"


def blend_html(result: BlendResult) -> str:
    """The tables that `ens blend` prints: scores with weights, gains, and notes."""
    metrics = columns(result.fitted.metric)
    units = f"{result.rows} rows" + (f" in {result.groups} groups" if result.groups else "")
    title = (
        f"Blend {result.name!r}, cross-fitted over {result.folds} folds, {units}: score ± over folds, [95% interval]"
    )
    systems = {f"blend {result.name}": result.blend, "plain mean": result.mean, **result.members}
    rows = [
        [
            name,
            *(score_cell(metric, scores[metric]) for metric in metrics),
            "\n".join(f"{value:.3f}" for value in result.weights.get(name, {}).values()),
        ]
        for name, scores in systems.items()
    ]
    gains = [
        [
            "the plain mean" if gain.against == "mean" else f"the best single, {gain.against}",
            METRICS[gain.metric].heading,
            gain_cell(gain),
            f"{gain.p_better:.3f}",
        ]
        for metric in metrics
        for gain in result.gains
        if gain.metric == metric
    ]
    zero_weight = [f"zero weight; skipped at prediction: {', '.join(result.unused)}"] if result.unused else []
    return (
        html.table(title, ["", *(METRICS[metric].heading for metric in metrics), "weight, temperature"], rows)
        + html.table("Gain [95% interval, paired]; positive is better", ["over", "metric", "gain", "P(better)"], gains)
        + html.lines([*result.notes, *zero_weight])
    )
