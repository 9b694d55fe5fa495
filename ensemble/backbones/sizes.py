"""At which sides of the input an architecture works."""

import torch

from ensemble.backbones import timm_model
from ensemble.errors import UserError


def works_at(name: str, image_size: int) -> bool:
    """Whether timm's architecture `name` can be made for images of this side, and takes them: found by shapes alone."""
    try:
        with torch.device("meta"), torch.inference_mode():
            timm_model.create(name, 2, image_size).eval()(torch.zeros(1, 3, image_size, image_size))
    except (UserError, RuntimeError, AssertionError, ValueError):
        return False
    return True
