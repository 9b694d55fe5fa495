"""Training rate with and without `keep_freed_memory`: python benchmarks/memory.py

Each side in a process of its own, alternating; the median rate of 5 rounds and the ratio with its spread."""

import statistics
import subprocess
import sys
import time

import timm
import torch

from ensemble.device import keep_freed_memory

MODELS = ("mobilenetv2_100", "tf_mobilenetv3_large_minimal_100", "mobilenet_edgetpu_100")
SIZE, BATCH, STEPS, ROUNDS = 128, 32, 5, 5


def rate(name: str) -> float:
    """Images/s of forward, backward and optimizer step on random pixels, the median of STEPS after one to warm up."""
    model = timm.create_model(name, num_classes=7).to(memory_format=torch.channels_last)
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 7, (BATCH,))
    optimizer = torch.optim.AdamW(model.parameters())
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds[1:])


if len(sys.argv) > 1:
    if sys.argv[1] == "keep":
        keep_freed_memory()
    print(*(rate(name) for name in MODELS))
else:
    seen: dict[str, list[list[float]]] = {"as it is": [], "keep": []}
    for _ in range(ROUNDS):
        for side, rounds in seen.items():
            out = subprocess.run([sys.executable, __file__, side], capture_output=True, text=True, check=True).stdout
            rounds.append([float(word) for word in out.split()])
    for index, name in enumerate(MODELS):
        plain, kept = ([rates[index] for rates in seen[side]] for side in seen)
        ratios = sorted(b / a for a, b in zip(plain, kept, strict=True))
        rates = f"{statistics.median(plain):.1f} -> {statistics.median(kept):.1f}"
        print(f"{name}: {rates}, {statistics.median(ratios):.2f}x [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
