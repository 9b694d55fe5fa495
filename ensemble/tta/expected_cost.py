"""The column `expected_cost`, see `ensemble.tta.certainty`: of a blend with costs, whose class need not be the most
probable one. Never imports torch."""

import numpy as np

from ensemble.blend import Blend
from ensemble.tta.certainty import BlendedRows, CertaintyColumns


def expected_cost_columns(blend: Blend) -> tuple[CertaintyColumns, ...]:
    """What the class that is decided for costs on average, by its probabilities; () of a blend without costs."""
    costs = blend.costs
    if costs is None:
        return ()

    def compute(some: BlendedRows) -> dict[str, np.ndarray]:
        return {"expected_cost": (some.probabilities @ costs).min(axis=1).astype(np.float32)}

    return (CertaintyColumns(("expected_cost",), {"costs": costs.tolist()}, (), compute),)
