"""What the tables of gpu.py share: which networks are timed on which pictures, and how rates are told."""

import statistics
from pathlib import Path

import torch
from gpu import Bench, Row
from gpu_data import pictures

NETWORKS = ("resnet50", "convnext_base", "vit_base_patch16_224")
TINY = ("test_resnet",)


def sizes(bench: Bench) -> tuple[tuple[str, ...], int, int, int, int]:
    """Networks, side of the images, how many there are, of a batch, rounds."""
    if bench.is_dry:
        return TINY, 32, 32, 8, 2
    memory = torch.cuda.mem_get_info(bench.device)[1]
    return NETWORKS, 224, 2000, 128 if memory > 60e9 else 64 if memory > 30e9 else 16, 5


def photos_of(bench: Bench, count: int) -> list[Path]:
    width, height = (50, 40) if bench.is_dry else (500, 375)
    return pictures(bench.folder.parent / "photos", count, width, height, "jpg")


def rates_row(what: str, rates: list[float], **others: list[float]) -> Row:
    """Images/s, and as shares of what else was timed, round by round."""
    text = f"{_spread(rates, 0)} images/s"
    for name, other in others.items():
        text += f"; {_spread([a / b for a, b in zip(rates, other, strict=True)], 2)} of {name}"
    return Row(what, text, numbers={"rates": rates})


def _spread(values: list[float], digits: int) -> str:
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} [{least}, {most}]"
