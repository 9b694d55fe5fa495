"""Pictures that look alike and are none a copy of another: what a search for copies must not take for copies.

Each family draws things of one kind, with all that makes photos and drawings of a kind alike (one background, one
outline, one layout, one pose), and never the same thing twice. `CALIBRATION` families set thresholds, `EVALUATION`
families score them.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

SIDE = 192
Draw = np.random.Generator
Family = Callable[[Draw], Image.Image]


def _smooth(draw: Draw, cells: int, low: float = 0, high: float = 256) -> Image.Image:
    small = draw.uniform(low, high, (cells, cells, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _noisy(image: Image.Image, draw: Draw, level: float) -> Image.Image:
    noise = draw.normal(0, level, (SIDE, SIDE, 1))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _colour(draw: Draw, low: int = 0, high: int = 256) -> tuple[int, ...]:
    return tuple(draw.integers(low, high, 3).tolist())


def _near(draw: Draw, *points: tuple[float, float], by: float) -> list[tuple[float, float]]:
    return [(x + draw.normal(0, by), y + draw.normal(0, by)) for x, y in points]


def _font(draw: Draw, size: int) -> ImageFont.FreeTypeFont:
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVu*.ttf"))
    fonts = [font for font in fonts if "Display" not in font.name]
    return ImageFont.truetype(str(fonts[draw.integers(len(fonts))]), size)


def persons(wall: Image.Image | None, moves: float) -> Family:
    """A head and shoulders before one wall, other people or other poses. moves: of the camera, px; 0 is on a tripod."""

    def family(draw: Draw) -> Image.Image:
        dx, dy = draw.normal(0, moves, 2) if moves else (0, 0)
        image = ImageChops.offset(wall or _smooth(draw, 10), round(dx), round(dy))
        pen = ImageDraw.Draw(image)
        x, y = 96 + draw.normal(0, 5), 80 + draw.normal(0, 5)
        wide, tall = 32 + draw.normal(0, 2), 42 + draw.normal(0, 2)
        skin, hair, shirt = _colour(draw, 110, 230), _colour(draw, 10, 110), _colour(draw)
        pen.polygon(
            _near(draw, (x - 70, 192), (x - 55, y + 60), (x - 14, y + 40), (x + 14, y + 40), (x + 55, y + 60),
                  (x + 70, 192), by=4),
            fill=shirt,
        )  # fmt: skip
        pen.ellipse((x - wide * 1.15, y - tall * 1.2, x + wide * 1.15, y + tall * 0.6), fill=hair)
        pen.ellipse((x - wide, y - tall, x + wide, y + tall), fill=skin)
        turn = draw.normal(0, 4)
        for side in (-1, 1):
            eye = x + turn + 13 * side
            pen.ellipse((eye - 5, y - 10, eye + 5, y - 4), fill="white")
            pen.ellipse((eye - 2 + turn / 4, y - 10, eye + 3 + turn / 4, y - 4), fill=(30, 20, 20))
        pen.line(_near(draw, (x + turn, y - 5), (x + turn + 4, y + 10), (x + turn, y + 11), by=1), fill=hair, width=2)
        open_ = abs(draw.normal(0, 4))
        pen.ellipse((x + turn - 12, y + 20 - open_, x + turn + 12, y + 23 + open_), fill=(150, 60, 60))
        return _noisy(image.filter(ImageFilter.GaussianBlur(0.8)), draw, 3)

    return family


def faces_on_black(draw: Draw) -> Image.Image:
    """A face cut out on black, straight from the front, as in studies of faces."""
    image = Image.new("RGB", (SIDE, SIDE))
    y, x = np.indices((SIDE, SIDE))
    wide, tall = 56 + draw.normal(0, 2), 74 + draw.normal(0, 2)
    inside = ((x - 96) / wide) ** 2 + ((y - 100) / tall) ** 2 < 1
    light = draw.normal(0, 0.3)
    shade = 190 - 60 * ((x - 96) / 60 - light) ** 2 - 30 * ((y - 100) / 80) ** 2
    tone = np.array([1, draw.uniform(0.72, 0.85), draw.uniform(0.55, 0.75)])
    image = Image.fromarray((np.where(inside, np.clip(shade, 0, 255), 0)[..., None] * tone).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    dark = (70, 45, 40)
    apart, up = 24 + draw.normal(0, 1.5), 84 + draw.normal(0, 2)
    for side in (-1, 1):
        eye, brow = 96 + side * apart, draw.normal(0, 1.5)
        pen.ellipse((eye - 10, up - 4, eye + 10, up + 4), fill=(225, 215, 210))
        pen.ellipse((eye - 4, up - 4, eye + 4, up + 4), fill=_colour(draw, 20, 90))
        pen.line((eye - 13, up - 12 + brow, eye + 13, up - 12 - brow), fill=dark, width=int(draw.integers(2, 6)))
    nose = 120 + draw.normal(0, 2)
    pen.line(_near(draw, (92, up), (88, nose), (104, nose), by=1.5), fill=(140, 95, 85), width=3)
    mouth, half = 142 + draw.normal(0, 2), 18 + draw.normal(0, 3)
    pen.ellipse((96 - half, mouth - 4, 96 + half, mouth + 3 + abs(draw.normal(0, 3))), fill=(150, 70, 70))
    return _noisy(image.filter(ImageFilter.GaussianBlur(1.2)), draw, 2)


def discs_on_black(draw: Draw) -> Image.Image:
    """Planets, coins, dishes from above: one disc, other patterns."""
    y, x = np.indices((SIDE, SIDE)) - 95.5
    radius = 70 + draw.normal(0, 1)
    disc = np.clip(radius - np.hypot(x, y), 0, 1)[..., None]
    pattern = np.asarray(_smooth(draw, int(draw.integers(4, 12)), 60, 230)).astype(float)
    strength = draw.uniform(0.2, 1)
    flat = pattern.mean(axis=(0, 1))
    return _noisy(Image.fromarray((disc * (flat + strength * (pattern - flat))).astype(np.uint8)), draw, 2)


def forms(draw: Draw) -> Image.Image:
    """One printed form, filled in by others."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((8, 8, 184, 40), fill=(40, 60, 120))
    pen.text((20, 14), "APPLICATION", fill="white", font_size=20)
    for row in range(6):
        pen.rectangle((8, 48 + 23 * row, 184, 48 + 23 * row + 20), outline="black", width=2)
        pen.text(
            (12, 51 + 23 * row), ("Name", "Born", "Street", "Town", "Phone", "Date")[row], fill="black", font_size=11
        )
        word = "".join(chr(97 + letter) for letter in draw.integers(0, 26, draw.integers(5, 12)))
        pen.text((62, 50 + 23 * row + draw.normal(0, 1)), word, fill=(20, 20, 90), font=_font(draw, 14))
    return _noisy(image, draw, 2)


def guitars_on_white(draw: Draw) -> Image.Image:
    """One model of a guitar in other finishes, upright on white."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    body, finish = Image.new("L", (SIDE, SIDE)), _smooth(draw, 5, 20, 230)
    pen = ImageDraw.Draw(body)
    grow = draw.normal(0, 1)
    pen.ellipse((58 - grow, 118, 134 + grow, 188), fill=255)
    pen.ellipse((66 - grow, 88, 126 + grow, 142), fill=255)
    plain = Image.new("RGB", (SIDE, SIDE), _colour(draw, 20, 220))
    image.paste(Image.blend(plain, finish, draw.uniform(0, 0.8)), mask=body)
    pen = ImageDraw.Draw(image)
    wood = _colour(draw, 30, 120)
    pen.rectangle((90, 18, 102, 120), fill=wood)
    pen.polygon(_near(draw, (86, 20), (88, 2), (104, 2), (106, 20), by=1), fill=wood)
    for fret in range(12):
        pen.line((90, 26 + 7 * fret, 102, 26 + 7 * fret), fill=(200, 200, 190))
    if draw.random() < 0.5:
        pen.ellipse((86, 116, 106, 136), fill=(15, 12, 10))
    for bridge in range(int(draw.integers(1, 4))):
        pen.rectangle((82, 140 + 11 * bridge, 110, 145 + 11 * bridge), fill=_colour(draw, 0, 80))
    return _noisy(image, draw, 2)


def glyphs(draw: Draw) -> Image.Image:
    """A large letter in some font."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    letter = "AEGRS8&"[draw.integers(7)]
    pen.text((96 + draw.normal(0, 2), 96 + draw.normal(0, 2)), letter, fill="black", font=_font(draw, 150), anchor="mm")
    return _noisy(image, draw, 2)


def houses(draw: Draw) -> Image.Image:
    """Line drawings of a house, by unsteady hands."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)

    def stroke(*points: tuple[float, float]) -> None:
        corners = _near(draw, *points, by=3)
        path = []
        for (x, y), (u, v) in pairwise(corners):
            steps = np.linspace(0, 1, 12)
            path += [(x + (u - x) * t + draw.normal(0, 0.6), y + (v - y) * t + draw.normal(0, 0.6)) for t in steps]
        pen.line(path, fill="black", width=3)

    stroke((40, 90), (40, 170), (152, 170), (152, 90), (40, 90))
    stroke((30, 92), (96, 30), (162, 92))
    stroke((84, 170), (84, 126), (110, 126), (110, 170))
    for x in (52, 122):
        stroke((x, 106), (x + 20, 106), (x + 20, 126), (x, 126), (x, 106))
    if draw.random() < 0.5:
        stroke((128, 60), (128, 36), (142, 36), (142, 72))
    return image


def faces_drawn(draw: Draw) -> Image.Image:
    """Drawings after one photo, each by another hand: strokes lie nearly upon each other."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    base = np.random.default_rng(7)
    for _ in range(14):
        start, angle, path = base.uniform(30, 160, 2), base.uniform(0, 6.3), []
        bend, shift = base.normal(0, 0.25), draw.normal(0, 2.5, 2)
        for _ in range(16):
            path.append(tuple(start + shift + draw.normal(0, 0.5, 2)))
            start = start + 5 * np.array([np.cos(angle), np.sin(angle)])
            angle += bend
        pen.line(path, fill="black", width=3)
    return image


def logos(draw: Draw) -> Image.Image:
    """One badge with other letters and a star that differs."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    ink = _colour(draw, 0, 150)
    pen.ellipse((12, 12, 180, 180), fill=ink)
    pen.ellipse((24, 24, 168, 168), fill="white")
    pen.ellipse((30, 30, 162, 162), outline=ink, width=5)
    word = "".join(chr(65 + letter) for letter in draw.integers(0, 26, 3))
    pen.text((96, 92), word, fill=ink, font=_font(draw, 52), anchor="mm")
    points = int(draw.integers(3, 9))
    turn = draw.uniform(0, 6.3)
    pen.polygon(
        [(96 + r * np.cos(turn + np.pi * k / points), 138 + r * np.sin(turn + np.pi * k / points))
         for k in range(2 * points) for r in [(14, 6)[k % 2]]], fill=ink,
    )  # fmt: skip
    return _noisy(image, draw, 2)


def dishes(draw: Draw) -> Image.Image:
    """A plate from above on one table, with other food."""
    table = _smooth(np.random.default_rng(11), 24, 90, 150)
    pen = ImageDraw.Draw(table)
    x, y = 96 + draw.normal(0, 1.5, 2)
    pen.ellipse((x - 80, y - 80, x + 80, y + 80), fill=(240, 240, 235))
    pen.ellipse((x - 56, y - 56, x + 56, y + 56), fill=(225, 225, 220))
    for _ in range(60):
        far, angle = 44 * draw.random() ** 0.5, draw.uniform(0, 6.3)
        u, v, size = x + far * np.cos(angle), y + far * np.sin(angle), draw.uniform(4, 12)
        pen.ellipse((u - size, v - size * 0.7, u + size, v + size * 0.7), fill=_colour(draw, 30, 230))
    return _noisy(table.filter(ImageFilter.GaussianBlur(0.8)), draw, 3)


def _wall(seed: int) -> Image.Image:
    return _smooth(np.random.default_rng(seed), 16)


CALIBRATION: dict[str, Family] = {
    "persons before one wall": persons(_wall(1), 3),
    "persons on a tripod": persons(_wall(2), 0),
    "faces on black": faces_on_black,
    "forms": forms,
    "houses": houses,
}
EVALUATION: dict[str, Family] = {
    "persons before another wall": persons(_wall(3), 2),
    "discs on black": discs_on_black,
    "guitars on white": guitars_on_white,
    "glyphs": glyphs,
    "drawings of one photo": faces_drawn,
    "logos": logos,
    "dishes on one table": dishes,
}


def write(families: dict[str, Family], folder: Path, count: int, seed: int) -> None:
    """`count` pictures of each family as JPEG of quality 90: folder/family/0000.jpg."""
    for number, (name, family) in enumerate(families.items()):
        (folder / name).mkdir(parents=True)
        draw = np.random.default_rng((seed, number))
        for row in range(count):
            family(draw).save(folder / name / f"{row:04}.jpg", quality=90)
