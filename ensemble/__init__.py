"""ens: several fine-tuned backbones, k folds, an honest blend, test-time augmentation.

    import ensemble as ens

    run = ens.train_folds("art.toml")              # or ens.Run("runs/art") of one that is there
    run.members                                    # out-of-fold scores with intervals
    blend = run.blend("stack")                     # .scores, .gains, .weights
    blend.predict(["a.jpg", "b.jpg"]).labels

Each name is imported when it is first asked for: torch takes seconds, and fitting a blend does without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.api.arrays import FittedBlend as FittedBlend
    from ensemble.api.arrays import fit_blend as fit_blend
    from ensemble.api.blending import RunBlend as RunBlend
    from ensemble.api.classifier import BlendClassifier as BlendClassifier
    from ensemble.api.data import DataCheck as DataCheck
    from ensemble.api.data import check_data as check_data
    from ensemble.api.data import init_config as init_config
    from ensemble.api.prediction import load as load
    from ensemble.api.prediction import predict as predict
    from ensemble.api.reports import RunComparison as RunComparison
    from ensemble.api.reports import compare_runs as compare_runs
    from ensemble.api.reports import write_report as write_report
    from ensemble.api.training import train_folds as train_folds
    from ensemble.api.views import apply_views as apply_views
    from ensemble.config import Config as Config
    from ensemble.errors import RunFailure as RunFailure
    from ensemble.errors import UserError as UserError
    from ensemble.events import Events as Events
    from ensemble.events import Silent as Silent
    from ensemble.exported.model import ExportedModel as ExportedModel
    from ensemble.predictions.images import Prediction as Prediction
    from ensemble.run import Run as Run
    from ensemble.tta.predictor import Predictor as Predictor

__version__ = "0.1.0"

_MODULES = {  # where each public name is defined
    "BlendClassifier": "ensemble.api.classifier",
    "Config": "ensemble.config",
    "DataCheck": "ensemble.api.data",
    "Events": "ensemble.events",
    "ExportedModel": "ensemble.exported.model",
    "FittedBlend": "ensemble.api.arrays",
    "Prediction": "ensemble.predictions.images",
    "Predictor": "ensemble.tta.predictor",
    "Run": "ensemble.run",
    "RunBlend": "ensemble.api.blending",
    "RunComparison": "ensemble.api.reports",
    "RunFailure": "ensemble.errors",
    "Silent": "ensemble.events",
    "UserError": "ensemble.errors",
    "apply_views": "ensemble.api.views",
    "check_data": "ensemble.api.data",
    "compare_runs": "ensemble.api.reports",
    "fit_blend": "ensemble.api.arrays",
    "init_config": "ensemble.api.data",
    "load": "ensemble.api.prediction",
    "predict": "ensemble.api.prediction",
    "train_folds": "ensemble.api.training",
    "write_report": "ensemble.api.reports",
}

__all__ = [*_MODULES, "__version__"]


if not TYPE_CHECKING:  # which would take every name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
