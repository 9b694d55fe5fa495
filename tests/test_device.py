"""Settings of the whole process, which threads share."""

import numpy as np
import pytest
import torch

from ensemble.device import array_on, is_out_of_memory, without_tf32

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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_an_array_is_copied_to_the_device():
    array = np.arange(3)
    tensor = array_on(array, torch.device("cpu"))
    assert tensor.dtype == torch.int64 and tensor.tolist() == [0, 1, 2]
