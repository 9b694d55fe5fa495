"""`ens check` on the art paintings: sound images raise no alarm."""

from pathlib import Path

import pytest

from ensemble.audit.check import check
from ensemble.events import SILENT

ART = Path(__file__).parents[3] / "shared" / "data" / "art-painting"
pytestmark = pytest.mark.skipif(not ART.is_dir(), reason="the paintings are not here")


def test_the_paintings_raise_no_alarm(tmp_path):
    output = tmp_path / "audit.json"
    audit = check(ART, ART / "test", ART / "sample_submission.csv", None, output, (), SILENT)
    assert audit.images == 1698 and audit.test_images == 350 and audit.worst in (None, "note", "warning")
    assert {one.kind for one in audit.findings} <= {
        "near-copies", "test-near-train", "look-alikes", "test-looks-like-train",
    }  # fmt: skip
    assert sum(one.count for one in audit.findings) <= 0.02 * 2048
    assert sum(pair["kind"] == "exact" for pair in audit.pairs) == 0
