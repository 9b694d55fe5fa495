"""The columns `unknown_score` and `unknown`, see `ensemble.tta.certainty`. Never imports torch."""

from collections.abc import Mapping

import numpy as np

from ensemble.blend import Blend
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.errors import UserError
from ensemble.ood.saved import load_detector
from ensemble.ood.suitable import require_suitable
from ensemble.predictions.certainty import CertaintyRequest
from ensemble.run import Run
from ensemble.tta.certainty import BlendedRows, CertaintyColumns


def unknown_columns(
    run: Run, name: str, blend: Blend, networks: str, asked: CertaintyRequest
) -> tuple[CertaintyColumns, ...]:
    """See `ensemble.tta.certainty.certainty_columns`."""
    rate = asked.unknown
    if rate is None:
        return ()
    if not 0 < rate < 1:
        raise UserError(f"--unknown {rate:g}: must be between 0 and 1, such as 0.01")
    if networks != "folds":
        raise UserError(
            f"--unknown: --networks {networks} have no out-of-fold rows to set the threshold by; predict by the "
            "networks of the folds"
        )
    require_suitable(run, name, blend)
    saved = load_detector(run, name, blend)
    detector, threshold = saved.detector, saved.detector.threshold(rate)
    trained = [number for number, views in enumerate(blend.views) if views != EXTERNAL_VIEW]

    def compute(some: BlendedRows) -> dict[str, np.ndarray]:
        scores = detector.score([some.logits[number] for number in trained], some.features)
        return {"unknown_score": scores.astype(np.float32), "unknown": scores > threshold}

    best = saved.trials[0]
    shares = {"images of a class that was left out": best.flagged_left_out, best.foreign_images: best.flagged_foreign}
    found = ", ".join(f"{share:.0%} of {what}" for what, share in shares.items() if share is not None)
    note = (
        f"unknown: score above {threshold:.3g}, as {100 * rate:g}% of images like the training rows have by chance "
        f"({' + '.join(detector.parts)}); at 1% it flagged {found}"
    )
    settings: Mapping[str, object] = {"unknown": rate, "detector": saved.checksum}
    width = 0 if detector.features is None else detector.features.rows.shape[1]
    return (CertaintyColumns(("unknown_score", "unknown"), settings, (note,), compute, width),)
