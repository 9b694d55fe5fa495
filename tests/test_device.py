"""Settings of the whole process, which threads share."""

import torch

from ensemble.device import without_tf32

BACKENDS = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)


def settings():
    return [backend.fp32_precision for backend in BACKENDS]


def test_tf32_comes_back_when_the_last_thread_has_left():
    """As two threads would: the first one leaves while the second one still computes."""
    before = settings()
    try:
        for backend in BACKENDS:
            backend.fp32_precision = "tf32"
        first, second = without_tf32(torch.device("cuda")), without_tf32(torch.device("cuda"))
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert settings() == ["ieee", "ieee"]
        second.__exit__(None, None, None)
        assert settings() == ["tf32", "tf32"]
        with without_tf32(torch.device("cpu")):
            assert settings() == ["tf32", "tf32"]
    finally:
        for backend, precision in zip(BACKENDS, before, strict=True):
            backend.fp32_precision = precision
