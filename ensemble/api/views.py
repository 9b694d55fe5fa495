"""Test-time views of a batch of images, on the device that holds it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble.errors import UserError
from ensemble.inference.views import Geometry, check_views, cut, expand, size_of


def apply_views(batch: Tensor, views: str | Sequence[str], size: int | None = None) -> Tensor:
    """Every view of every image, (V, B, 3, size, size), on the batch's device: the pixels that prediction shows.

    batch: square images, (B, 3, S, S): uint8, or floats of any scale, normalised or not.
    views: names of views and of sets ("d4", "flips", "five-crop", ...), in a list or with commas between them. V is
    their number; they are in the order of the names, each once.
    size: side of the views in pixels, at most S; None: S. Corner views and zooming out need a size below S.

    Of uint8, views that move whole pixels are uint8; where one is interpolated, all are float32 in [0, 255] on a GPU or
    turned by an angle, else uint8. Floats keep their type, and nothing of them is clipped.

    Raises UserError for a batch of another shape or type, a view that is unknown or shows more than there is, and two
    views that show the same.

    >>> import torch, ensemble as ens
    >>> batch = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    >>> ens.apply_views(batch, "identity,hflip")[:, 0, 0].tolist()
    [[[0, 1], [2, 3]], [[1, 0], [3, 2]]]
    >>> ens.apply_views(batch, "d4").shape
    torch.Size([8, 1, 3, 2, 2])

    Predictions under several views are averaged so (`model` is any network that gives logits):

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    >>> views = ens.apply_views(batch.float(), "d4")
    >>> model(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(dim=0).shape
    torch.Size([1, 4])
    """
    if not isinstance(batch, Tensor):
        raise UserError(f"batch: {type(batch).__name__}; want a tensor (B, 3, S, S), as torch.from_numpy gives")
    if batch.ndim != 4 or batch.shape[1] != 3 or batch.shape[2] != batch.shape[3] or 0 in batch.shape:
        raise UserError(f"batch: a tensor {tuple(batch.shape)}; want square images, (B, 3, S, S)")
    if batch.dtype != torch.uint8 and not batch.dtype.is_floating_point:
        raise UserError(f"batch: a tensor of {batch.dtype}; want torch.uint8, or floats")
    side = batch.shape[-1]
    if size is not None and not 0 < size <= side:
        raise UserError(f"size = {size}: want 1 to {side}, the side of the images")
    geometry = Geometry(size or side, side, side)
    names = [name.strip() for name in views.split(",")] if isinstance(views, str) else views
    for name in expand(names):
        if size_of(name) is not None:
            raise UserError(f"view {name!r}: all views are shown at one size here; give it as size = {size_of(name)}")
    shown = check_views(names, geometry)
    if not shown:
        raise UserError("views: none is named; name one or more, as in 'identity,hflip'")
    return torch.stack([cut(batch, view, geometry) for view in shown])
