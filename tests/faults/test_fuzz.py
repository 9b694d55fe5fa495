"""The short form of the fuzzed readers: each is given a few inputs. The full one: python tests/faults/fuzz.py."""

from fuzz import QUICK, fuzz


def test_readers_raise_only_errors_of_their_own(tmp_path):
    targets = fuzz(tmp_path, 600, seed=0)
    odd = {own.name: own.odd for own in targets if own.odd}
    assert odd == {} and all(own.counts["tried"] for own in targets if own.share >= QUICK)
    assert sum(own.counts["refused"] for own in targets) > 200
