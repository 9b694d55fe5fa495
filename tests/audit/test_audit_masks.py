"""`ens check` on the masks: copies on both sides of every split."""

from pathlib import Path

import pytest

from ensemble.audit.check import check
from ensemble.events import SILENT

MASKS = Path(__file__).parents[3] / "shared" / "data" / "masks"
pytestmark = pytest.mark.skipif(not MASKS.is_dir(), reason="the masks are not here")


def test_the_masks_hold_copies_on_both_sides(tmp_path):
    train, test = MASKS / "train" / "train.csv", MASKS / "eval" / "info.csv"
    fix = tmp_path / "clean.csv"
    audit = check(train, test, None, fix, tmp_path / "audit.json", (), SILENT)
    kinds = {one.kind: one.count for one in audit.findings}
    assert (kinds["exact-copies"], kinds["exact-across-groups"], kinds["test-in-train"]) == (66, 113, 27)
    assert audit.worst == "warning" and audit.images == 1099 and audit.test_images == 277
    assert len(fix.read_text(encoding="utf-8").splitlines()) == 1 + 1099 - 66
