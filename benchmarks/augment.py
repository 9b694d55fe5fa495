"""What augmentation costs, ours and the libraries': python benchmarks/augment.py [side of the input, 128]

Batches of 32 out of images that are 8/7 as large, one thread, core milliseconds an image: the median of ROUNDS rounds,
in which all take turns, with the least and the greatest. The last row is what there is to compare with: one training
step of a small network. kornia's rows are left out where it is not installed.
"""

import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import timm
import torch
from torchvision.transforms import v2

from ensemble.device import keep_freed_memory
from ensemble.train.augment.crops import crops, gather
from ensemble.train.augment.mix import mix
from ensemble.train.augment.policy import Augmentation, draw, finish

SIZE = int(sys.argv[1]) if len(sys.argv) > 1 else 128
BATCH, ROUNDS = 32, 9
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AREA, JITTER = (0.35, 1.0), 0.2


def smooth_noise(count: int, side: int) -> np.ndarray:
    """Images with edges and colours of all sizes: uint8 (count, side, side, 3)."""
    noise = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0)) * 255
    images = torch.nn.functional.interpolate(noise, (side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous().numpy()


decoded = smooth_noise(BATCH, SIZE * 8 // 7)
pixels = SimpleNamespace(shapes=np.array([image.shape[:2] for image in decoded]), image=lambda row: decoded[row])
rows = np.arange(BATCH)
flat = torch.from_numpy(decoded.reshape(-1))
starts = torch.arange(BATCH) * decoded[0].size
whole = torch.from_numpy(decoded).permute(0, 3, 1, 2)
cropped = whole[:, :, :SIZE, :SIZE].contiguous()
floats = cropped.float() / 255
rng = np.random.default_rng(0)


def ours(gathered: bool = False, **chances: object) -> Callable[[], object]:
    def batch() -> object:
        draws = draw(rng, pixels.shapes, SIZE, Augmentation(crop_area=AREA, hflip=True, **chances))
        if gathered:
            made = gather(flat, starts, torch.from_numpy(pixels.shapes), draws, SIZE)
        else:
            made = crops(pixels, rows, draws, SIZE)
        return finish(made, draws, MEAN, STD)

    return batch


def each(*transforms: torch.nn.Module, images: torch.Tensor = whole) -> Callable[[], object]:
    one_by_one = v2.Compose(transforms)
    return lambda: torch.stack([one_by_one(image) for image in images])


def mixed(**alphas: float) -> Callable[[], object]:
    images = floats.contiguous(memory_format=torch.channels_last)
    return lambda: mix(rng, images, **alphas)


def training_step() -> Callable[[], object]:
    model = timm.create_model("mobilenetv3_small_100", num_classes=7).to(memory_format=torch.channels_last)
    images = floats.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        model.zero_grad()
        model(images).square().mean().backward()

    return step


torchvision_crop = (v2.RandomResizedCrop(SIZE, scale=AREA, antialias=True), v2.RandomHorizontalFlip())
torchvision_end = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))
torchvision_light = v2.ColorJitter(JITTER, JITTER, JITTER)
contenders = {
    "ours: crop, mirror, normalise": ours(),
    "ours: the same and colour jitter": ours(color_jitter=JITTER),
    "ours: the same and erasing of 25 %": ours(color_jitter=JITTER, erase=0.25),
    "ours: crop, mirror, normalise, rotation by up to 15 degrees": ours(rotate=15.0),
    "ours: crop, mirror, normalise, TrivialAugment": ours(trivial=True),
    "ours: crop, mirror, normalise, by the GPU's gather": ours(gathered=True),
    "ours: mixup": mixed(mixup=0.2, cutmix=0.0),
    "ours: CutMix": mixed(mixup=0.0, cutmix=1.0),
    "torchvision: crop, mirror, normalise": each(*torchvision_crop, *torchvision_end),
    "torchvision: the same and ColorJitter": each(*torchvision_crop, torchvision_light, *torchvision_end),
    "torchvision: TrivialAugmentWide alone": each(
        v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR), images=cropped
    ),
}
if find_spec("kornia"):
    import kornia.augmentation as kornia

    modules = {
        "RandomResizedCrop": kornia.RandomResizedCrop((SIZE, SIZE), scale=AREA, p=1.0),
        "RandomHorizontalFlip": kornia.RandomHorizontalFlip(),
        "ColorJiggle": kornia.ColorJiggle(JITTER, JITTER, JITTER, 0.0, p=1.0),
        "RandomAffine": kornia.RandomAffine(15.0, padding_mode="reflection", p=1.0),
        "Normalize": kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        "RandomErasing": kornia.RandomErasing(p=0.25),
    }
    larger = whole.float() / 255
    for name, module in modules.items():
        source = larger if name == "RandomResizedCrop" else floats
        contenders[f"kornia: {name} alone"] = lambda module=module, source=source: module(source)
contenders["mobilenetv3_small_100: forward and backward"] = training_step()

keep_freed_memory()
torch.set_num_threads(1)
seen: dict[str, list[float]] = {name: [] for name in contenders}
for turn in range(ROUNDS + 1):
    for name, run in contenders.items():
        start = time.process_time()
        run()
        if turn:
            seen[name].append((time.process_time() - start) / BATCH * 1000)
print(f"| {SIZE} px, batches of {BATCH} | core ms an image | least, greatest of {ROUNDS} |\n|---|---|---|")
for name, costs in seen.items():
    print(f"| {name} | {statistics.median(costs):.2f} | {min(costs):.2f}, {max(costs):.2f} |")
