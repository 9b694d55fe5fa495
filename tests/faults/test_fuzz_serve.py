"""The short form of the fuzzed server. The full one: python tests/faults/fuzz_serve.py."""

import asyncio

from fuzz_serve import fuzz


def test_every_request_ends_with_a_whole_answer(monkeypatch):
    monkeypatch.setenv("ENS_MAX_PIXELS", "4000000")
    counts, odd = asyncio.run(fuzz(600, seed=0))
    assert odd == {} and {200, 400, 413, 415, 422} <= set(counts)
