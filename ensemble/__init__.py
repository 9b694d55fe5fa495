"""ens: several fine-tuned backbones, k folds, an honest blend, test-time augmentation.

`ensemble.predict(run, images)` predicts from Python; `ensemble.load(run)` keeps the networks for many calls.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.tta.images import Prediction, load, predict
    from ensemble.tta.predictor import Predictor

__version__ = "0.1.0"

__all__ = ["Prediction", "Predictor", "__version__", "load", "predict"]


def __getattr__(name: str) -> Any:
    """What predicts is imported when it is first asked for: torch takes seconds, and most of ens does without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ensemble.tta import images

    return getattr(images, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
