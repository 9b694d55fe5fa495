"""The front of an exported file: the views and the normalisation of prediction, in a runtime's operations."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ensemble.data.pixels.preprocess import Preprocess
from ensemble.export.front import Front
from ensemble.inference.network_input import normalise, view_of
from ensemble.inference.to_onnx import graph_of, with_weights
from ensemble.inference.views import SETS

PREPROCESS = Preprocess(48, 54, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MOVED = (*SETS["d4"], *SETS["ten-crop"], "top-left*transverse")
MADE = (
    "scale1.15",
    "scale0.9",
    "scale1.3*hflip",
    "top-right*scale1.2",
    "rotate15",
    "rotate-40*scale0.9",
    "centre*rotate8",
)


def squares_of(front, kind):
    draw = np.random.default_rng(0)
    found = {}
    for decoding in front.decodings:
        side = decoding.size
        if kind == "noise":  # far rougher than any picture: every rounding shows
            pixels = draw.integers(0, 256, (5, side, side, 3), dtype=np.uint8)
        else:
            across, down = np.meshgrid(np.linspace(0, 3, side), np.linspace(0, 2, side))
            waves = np.stack([np.sin(across + n) * np.cos(down - n) for n in range(15)]).reshape(5, 3, side, side)
            pixels = (127.5 + 127.5 * waves).round().astype(np.uint8).transpose(0, 2, 3, 1).copy()
        found[decoding] = torch.from_numpy(pixels)
    return found


def bytes_of(images):
    """What was normalised, in bytes."""
    mean, std = (torch.tensor(value)[:, None, None] * 255 for value in (PREPROCESS.mean, PREPROCESS.std))
    return images * std + mean


@pytest.mark.parametrize("kind", ["noise", "smooth"])
@pytest.mark.parametrize(("views", "most"), [(MOVED, 1e-4), (MADE, 1.001)])
def test_views_are_those_of_prediction(kind, views, most):
    front = Front(PREPROCESS, views)
    squares = squares_of(front, kind)
    made = front(*squares.values()).unflatten(0, (len(views), 5))
    apart = []
    for view, images in zip(views, made, strict=True):
        want = view_of(squares, PREPROCESS, view, slice(None), 5)
        apart.append((bytes_of(images) - bytes_of(want)).abs())
        assert apart[-1].max() < most, view
    assert (torch.stack(apart) > 1e-3).float().mean() < 1e-4  # a tie in rounding, at most


def test_the_graph_gives_what_the_module_gives():
    views = (*MOVED[:4], "top-left", "scale1.15", "rotate15", "size64")
    for some in (views[:-1], views[-1:]):
        front = Front(PREPROCESS, some)
        squares = squares_of(front, "noise")
        names = [f"squares_{decoding.size}" for decoding in squares]
        graph = graph_of(front, dict(zip(names, squares.values(), strict=True)), "images")
        model = with_weights(graph, front)
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for count in (1, 5):
            given = {name: pixels[:count].numpy() for name, pixels in zip(names, squares.values(), strict=True)}
            want = front(*(pixels[:count] for pixels in squares.values()))
            assert np.abs(session.run(None, given)[0] - want.numpy()).max() < 1e-4


def test_normalisation_is_that_of_prediction_to_the_bit():
    front = Front(PREPROCESS, ("identity",))
    squares = squares_of(front, "noise")
    pixels = next(iter(squares.values())).permute(0, 3, 1, 2)[..., 3:51, 3:51]
    assert torch.equal(
        front(*squares.values()), normalise(pixels.contiguous(memory_format=torch.channels_last), PREPROCESS)
    )
