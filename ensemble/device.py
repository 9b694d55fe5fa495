"""The device that computes, and how it computes."""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of errors that are no torch.OutOfMemoryError: the CPU's allocator; and what takes a GPU's memory by itself, which is
# short where several processes share it (contexts, pinned memory, handles of libraries).
OUT_OF_MEMORY = ("allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")


def choose_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


_tf32_lock = threading.Lock()
_tf32_settings: list[str] = []  # PyTorch's own, while float32 is computed without TF32
_without_tf32 = 0  # how many threads compute so


@contextmanager
def without_tf32(device: torch.device) -> Iterator[None]:
    """Compute float32 with all its bits: NVIDIA's convolutions else take 10 of the 23 bits of a number's fraction.

    The setting is the whole process's. Where several threads are inside, the last one to leave restores it.
    """
    global _without_tf32
    if device.type != "cuda":
        yield
        return
    backends: tuple[Any, Any] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    with _tf32_lock:
        if _without_tf32 == 0:
            _tf32_settings[:] = [backend.fp32_precision for backend in backends]
            for backend in backends:
                backend.fp32_precision = "ieee"
        _without_tf32 += 1
    try:
        yield
    finally:
        with _tf32_lock:
            _without_tf32 -= 1
            if _without_tf32 == 0:
                for backend, precision in zip(backends, _tf32_settings, strict=True):
                    backend.fp32_precision = precision


def streams(device: torch.device) -> int:
    """How many batches to compute side by side: on a CPU one for each thread.

    The layers of small networks are too small to be divided, and threads that share a layer wait for each other at its
    end (224 px, two cores, images/s of two batches by a thread each and of one by both: mobilenetv3_small_100 422 and
    400, resnet18 in bfloat16 110 and 92). A batch by one thread also gives the same bits on any number of cores.
    """
    return torch.get_num_threads() if device.type == "cpu" else 1


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item], device: torch.device, share_threads: bool = False
) -> list[Result]:
    """`work` of each item, in order, as many at a time as there are `streams`. What one of them raises ends all.

    share_threads: where there are fewer items than threads, each is computed by several, which may change last bits
    """
    if device.type != "cpu":
        return [work(item) for item in items]
    count = streams(device)
    each = max(count // max(len(items), 1), 1) if share_threads else 1
    with _pool(count // each, each) as pool:
        try:
            return list(pool.map(work, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def one_thread_each(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads that each work alone: torch would start a team of threads for each."""
    with _pool(count, 1) as pool:
        yield pool


@contextmanager
def _pool(count: int, each: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads, in each of which torch computes with `each` threads."""
    usual = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(usual)  # threads that are started later would take over the pool's number


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for an allocation that failed, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def free_cached_memory(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later: other processes may need it, or a smaller batch."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may still take."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device.index) * total
    return min(free, int(allowed) - torch.cuda.memory_reserved(device))


def array_on(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """The array as a tensor on the device. To a GPU it is copied out of pinned memory, without waiting for what the GPU
    has still to do: a copy out of other memory waits for all of it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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
