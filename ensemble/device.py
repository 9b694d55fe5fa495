"""Where the work runs, and with which numbers."""

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def choose_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 on GPUs that have it; older ones (T4, P100) only emulate it, slower than float32. On the CPU it is
    slower for half the small nets (tf_mobilenetv3_small_100 at 128 px: 65 images/s against 129): fp32 stays there."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def to_device(model: torch.nn.Module, device: torch.device, memory_format: str = "channels_last") -> torch.nn.Module:
    """Move a model. channels_last, where that is supported, is 1.2-1.4x as fast on the CPU for mobilenets, and what
    evaluation always uses; training may have found another (ensemble/train/numerics.py)."""
    if device.type == "mps":
        return model.to(device)
    layout = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    return model.to(device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def in_layout(images: torch.Tensor) -> torch.Tensor:
    """A batch in the memory format that `to_device` gives models."""
    mps = images.device.type == "mps"
    return images.contiguous(memory_format=torch.contiguous_format if mps else torch.channels_last)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock read next is right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of giving them back to the kernel, which has to clear them again for
    every next activation: training on 2 cores becomes 1.40x, 1.17x and 1.02x as fast (three mobilenets, 128 px, batches
    of 32: benchmarks/memory.py). Other C libraries are left as they are."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping, which is unmapped when freed
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: 2 GiB of free heap before any is given back
