"""The public names as a user who has mypy check the own code calls them. It is checked, not run."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

import ensemble as ens
from ensemble.run.shapes import Epoch


class Listener:
    def message(self, line: str) -> None: ...
    def progress(self, text: str, done: float, total: float) -> None: ...
    def epoch_finished(self, member: str, fold: int, epoch: Epoch) -> None: ...
    def job_finished(self, member: str, fold: int, seconds: float, error: str | None) -> None: ...


run: ens.Run = ens.train_folds("art.toml", changes=["train.epochs=3"], events=Listener())
members: pd.DataFrame = run.members
blend: ens.RunBlend = ens.Run(Path("runs/art")).blend("stack", metric="macro_f1")
shared: ens.RunBlend = run.blend("mean", name="both", members=["a"], costs="costs.csv", with_runs=["runs/b", run])
labels: list[str] = blend.predict(["a.jpg", Path("b.jpg"), np.zeros((8, 8, 3), np.uint8)]).labels
fitted: ens.FittedBlend = ens.fit_blend({"a": np.zeros((4, 2))}, ["x", "y"], groups=[1, 2], kind="probabilities")
frames: list[pd.DataFrame] = [fitted.scores, fitted.gains, fitted.weights]
views: torch.Tensor = ens.apply_views(torch.zeros(2, 3, 8, 8), ["hflip", "d4"])
config: ens.Config = ens.init_config("data", label=["a", "b"], events=ens.Silent())
found: ens.DataCheck = ens.check_data("data", test="test")
page: Path = ens.write_report(run)
compared: ens.RunComparison = ens.compare_runs(run, "runs/b")
prediction: ens.Prediction = ens.predict(ens.load(run), torch.zeros(3, 8, 8))
probabilities: np.ndarray = (
    ens.BlendClassifier(kind="logits").fit(np.zeros((4, 4)), [0, 1, 0, 1]).predict_proba([[0.0]])
)

ens.fit_blend([], [], kind="odds")  # type: ignore[arg-type]
ens.train_folds(3)  # type: ignore[arg-type]
run.blend(["stack"])  # type: ignore[arg-type]
run.blend(views=3)  # type: ignore[arg-type]
run.blend(nmae="mine")  # type: ignore[call-arg]
ens.blend_all  # type: ignore[attr-defined]  # noqa: B018
