"""Draws small sets of images that are like those of the three tutorials: python docs/example_data.py art|food|masks

They show how a project goes, with its traps, in minutes and without a download. What networks reach on them says
nothing about real images.
"""

import csv
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

SIDE = 64
DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1))


def art(folder: Path) -> None:
    """Seven classes, a test folder, and a sample submission in another order than the files; one painting is there
    twice, under two labels."""
    chance = random.Random(0)
    classes = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    for number, name in enumerate(classes):
        for index in range(30):
            _save(_painting(chance, number), folder / "train" / name / f"{name}_{index:03}.jpg")
    (folder / "train" / "dog" / "dog_030.jpg").write_bytes((folder / "train" / "horse" / "horse_007.jpg").read_bytes())
    names = [f"{index:04}.jpg" for index in range(70)]
    rows = []
    for index, name in enumerate(names):
        _save(_painting(chance, index % 7), folder / "test" / "0" / name)
        rows.append((name, classes[index % 7]))
    chance.shuffle(names)
    _table(folder / "sample_submission.csv", ["file", "answer value"], [(name, 0) for name in names])
    _table(folder / "truth.csv", ["file", "label"], rows)


def food(folder: Path) -> None:
    """Eight dishes to train on from scratch, and a second set of four others to transfer to."""
    chance = random.Random(1)
    for part, dishes, count in (("first", range(8), 40), ("second", range(8, 12), 12)):
        for dish in dishes:
            for index in range(count):
                _save(_plate(chance, dish), folder / part / f"dish{dish:02}" / f"{index:03}.jpg")


def masks(folder: Path) -> None:
    """Photos of 72 persons, seven of each: mask (5), incorrect, normal; 18 classes of mask, gender and age."""
    chance = random.Random(2)
    rows = []
    for person in range(72):
        gender, age = person % 2, (0, 0, 0, 1, 1, 2)[person // 2 % 6]
        look = [chance.randrange(40) for _ in range(3)]
        for photo, worn in enumerate(("mask", "mask", "mask", "mask", "mask", "incorrect", "normal")):
            path = f"images/{person:06}/{photo}.jpg"
            _save(_face(chance, gender, age, worn, look), folder / path)
            label = ("mask", "incorrect", "normal").index(worn) * 6 + gender * 3 + age
            rows.append((path, label, f"{person:06}"))
    _table(folder / "train.csv", ["path", "label", "person"], rows)


def _painting(chance: random.Random, number: int) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(120, 256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(60):  # strokes, half of them in the direction of the class
        x, y, length = (chance.randrange(SIDE), chance.randrange(SIDE), chance.randrange(6, 18))
        dx, dy = DIRECTIONS[number if chance.random() < 0.5 else chance.randrange(7)]
        colour = tuple(chance.randrange(160) for _ in range(3))
        draw.line((x, y, x + dx * length // 2, y + dy * length // 2), fill=colour, width=2)
    return image


def _plate(chance: random.Random, dish: int) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(60, 200) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    draw.ellipse((4, 4, 60, 60), fill=(240, 240, 235))
    for _ in range(3 + dish):
        x, y, r = chance.randrange(14, 46), chance.randrange(14, 46), 3 + dish % 4
        colour = ((190, 60, 40), (70, 140, 50), (230, 190, 80))[dish % 3]
        shape = draw.ellipse if dish % 2 else draw.rectangle
        shape((x, y, x + r, y + r), fill=tuple(value + chance.randrange(-25, 26) for value in colour))
    return image


def _face(chance: random.Random, gender: int, age: int, worn: str, look: list[int]) -> Image.Image:
    image = Image.new("RGB", (SIDE, SIDE), (150 + look[0], 160 + look[1], 170 + look[2]))
    draw = ImageDraw.Draw(image)
    x, y = chance.randrange(-3, 4), chance.randrange(-3, 4)
    hair = ((40, 30, 20), (90, 70, 50), (190, 190, 190))[age]
    draw.ellipse((14 + x, 4 + y, 50 + x, (60 if gender else 36) + y), fill=hair)
    draw.ellipse((18 + x, 10 + y, 46 + x, 54 + y), fill=(225 - look[0], 180 - look[1], 150 - look[2]))
    for eye in (26, 38):
        draw.ellipse((eye - 2 + x, 26 + y, eye + 2 + x, 30 + y), fill=(30, 30, 30))
    if worn == "normal":
        draw.line((27 + x, 44 + y, 37 + x, 44 + y), fill=(150, 40, 40), width=2)
    else:
        top = 33 if worn == "mask" else 42
        draw.rectangle((20 + x, top + y, 44 + x, 52 + y), fill=(120, 170, 210))
    return image


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.filter(ImageFilter.GaussianBlur(0.5)).save(path, quality=92)


def _table(path: Path, header: list[str], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    if sys.argv[1:2] not in (["art"], ["food"], ["masks"]):
        sys.exit(__doc__)
    {"art": art, "food": food, "masks": masks}[sys.argv[1]](Path("data") / sys.argv[1])
