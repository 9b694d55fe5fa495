"""Near copies among the art paintings."""

from pathlib import Path

import pytest

from ensemble.data.copies.near import near_copies
from ensemble.data.scan import scan
from ensemble.events import SILENT

ART = Path(__file__).parents[3] / "shared" / "data" / "art-painting"
pytestmark = pytest.mark.skipif(not ART.is_dir(), reason="the paintings are not here")


def test_the_paintings_have_a_few_near_copies_and_no_exact_ones(tmp_path):
    paths = sorted(ART.rglob("*.jpg"))
    scanned = scan(paths, tmp_path, SILENT)
    found = near_copies(scanned, SILENT)
    assert len(paths) == 2048 and scanned.errors == (None,) * 2048
    assert found.kinds.count("exact") == 0 and 10 <= len(found.kinds) <= 25
    assert 3 <= found.copies.sum() <= 6  # the others are other photos of the same paintings
    assert (found.similarity >= 0.75).all() and (found.first < found.second).all()
