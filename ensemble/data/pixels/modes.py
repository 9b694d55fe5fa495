"""Any mode of Pillow's as RGB of 8 bits, by one rule for each kind, the same in training, prediction and `ens check`,
which counts what is named here in quotes.

- Grey of 16 or 32 bits and colours of 16: scaled by the bits that the header states (TIFF's BitsPerSample or
  MaxSampleValue, the maximum of a PGM), else by the image's largest value rounded up to 8, 10, 12, 14, 16, 24 or 32
  bits: cameras and scanners put 12 bits in 16. "16-bit", "12-bit" and so on: a picture that is merely dark comes out
  too bright then, which `ens check` says. PNG's sBIT is no such statement, since the standard scales samples up. Pixels
  below 0, and floats, have no known scale and are refused.
- "min-is-white": a TIFF whose 0 is white is inverted.
- "fourth-band": four samples of a TIFF that states no alpha channel are RGB and one more, which is left out.
- Transparent pixels are laid on white, as viewers show them. "alpha-0-1": an alpha of 0 and 1 only is one of 0 and 255.
  "clear": nothing shows, so all of it is white.
- CMYK, YCbCr, HSV and Lab are converted by their formulas, without the file's colour profile.
"""

import numpy as np
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16, 24, 32)
BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 281, 338, 339  # TIFF's tags
SAVE = "save it with 8 or 16 bits per channel"
NO_SCALE = f"have no known scale: {SAVE}"


def rgb(image: Image.Image, data: bytes | None = None) -> tuple[Image.Image, tuple[str, ...]]:
    """An image, its pixels loaded, as RGB, and which of the rules above were used.

    data: of its file. Without it colours of 16 bits are the upper 8 of them, which is all that Pillow keeps. Raises
    ValueError for pixels that have no known scale.
    """
    if image.mode == "F":
        raise ValueError(f"32-bit float pixels {NO_SCALE}")
    if image.mode.startswith("I"):
        return _grey(image)
    rules: tuple[str, ...] = ("min-is-white",) if _min_is_white(image) else ()  # which Pillow inverts itself up to 8
    lacks_alpha = image.mode == "RGBA" and image.format == "TIFF" and _tag(image, EXTRA_SAMPLES) is None
    if data is not None and _has_16_bits(image, data):
        image, found = _of_16_bits(image, data, lacks_alpha)
        rules += found
    if lacks_alpha:
        return Image.merge("RGB", image.split()[:3]), (*rules, "fourth-band")
    if image.has_transparency_data:
        image, found = _on_white(image)
        return image, rules + found
    if image.mode == "LAB":
        return _of_lab(image), rules
    return image.convert("RGB"), rules


def _grey(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    values = np.asarray(image)
    if image.mode == "I" and _tag(image, BITS_PER_SAMPLE) == (32,) and _tag(image, SAMPLE_FORMAT) in (None, (1,)):
        values = values.view(np.uint32)  # Pillow's mode is signed whatever the file's numbers are
    least, most = int(values.min()), int(values.max())
    if least < 0:
        raise ValueError(f"pixels from {least} to {most} {NO_SCALE}")
    bits = _stated_bits(image, most) or _bits(most)
    grey = _scaled(values, bits)
    rules: tuple[str, ...] = (f"{bits}-bit",)
    if _min_is_white(image):
        grey, rules = 255 - grey, (*rules, "min-is-white")
    return Image.fromarray(grey).convert("RGB"), rules


def _of_16_bits(image: Image.Image, data: bytes, lacks_alpha: bool) -> tuple[Image.Image, tuple[str, ...]]:
    """RGB or RGBA again from all of the 16 bits per channel, where the two highest are unused: of the 8 that Pillow
    keeps 6 or fewer would be left."""
    most = [high for _, high in image.getextrema()]  # type: ignore[misc]
    is_dark = max(most[:3]) < 64
    if not is_dark and (image.mode == "RGB" or lacks_alpha or most[3] >= 64):
        return image, ("16-bit",)
    try:
        import cv2
    except ImportError:  # of an installation that only predicts
        raise ValueError("its pixels take opencv: pip install opencv-python-headless") from None

    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_ERROR
    )  # it prints a line for each TIFF without ExtraSamples
    read = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    values = np.zeros(0, dtype=np.uint16)
    if read is not None and read.dtype == np.uint16 and read.ndim == 3:
        values = np.asarray(read[..., [2, 1, 0, 3][: read.shape[2]]], dtype=np.uint16)  # OpenCV's blue comes first
    if not np.array_equal(values >> 8, np.asarray(image)):
        raise ValueError(f"16 bits per channel of which the highest are unused, in a form that ens can't read: {SAVE}")
    colours, alpha = values[..., :3], values[..., 3:]
    bits = _stated_bits(image, int(colours.max())) or _bits(int(colours.max()))
    most_alpha = int(alpha.max(initial=0))
    # an alpha of only 0 and 1 stays one, for the rule of those of 8 bits
    alpha = alpha.astype(np.uint8) if most_alpha <= 1 else _scaled(alpha, _bits(most_alpha))
    pixels = np.concatenate([_scaled(colours, bits), alpha], axis=2)
    return Image.fromarray(pixels), (f"{bits}-bit",)


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.mode not in ("RGB", "RGBA"):
        return False
    if image.format == "PNG":
        return data[24:25] == b"\x10"  # the header's bit depth
    return image.format == "TIFF" and set(_tag(image, BITS_PER_SAMPLE) or ()) == {16}


def _stated_bits(image: Image.Image, most: int) -> int | None:
    """What the header says of the pixels' scale, where that can be true."""
    if image.format in ("PPM", "JPEG2000"):
        return 16  # Pillow has scaled them by the header
    if _tag(image, BITS_PER_SAMPLE) == (12,):
        return 12
    maximum = _tag(image, MAX_SAMPLE)
    return maximum[0].bit_length() if maximum and most <= maximum[0] else None


def _bits(most: int) -> int:
    return 16 if most == 0 else next(bits for bits in DEPTHS if most < 2**bits)


def _scaled(values: np.ndarray, bits: int) -> np.ndarray:
    return np.asarray((values.astype(np.float64) / ((2**bits - 1) / 255)).round().astype(np.uint8))


def _on_white(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = layer.getchannel("A")
    most = alpha.getextrema()[1]
    rules: tuple[str, ...] = ()
    if most == 1:
        layer.putalpha(alpha.point(lambda value: 255 * value))
        rules = ("alpha-0-1",)
    elif most == 0:
        rules = ("clear",)
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB"), rules


def _of_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only where it works in place
    return converted


def _min_is_white(image: Image.Image) -> bool:
    """Of a grey TIFF; one that doesn't say is taken so, as by Pillow."""
    return image.format == "TIFF" and image.mode[0] in "1LI" and _tag(image, PHOTOMETRIC) in (None, (0,))


def _tag(image: Image.Image, number: int) -> tuple[int, ...] | None:
    """A TIFF's tag as a tuple of whole numbers; None where there is none or it holds something else."""
    value = getattr(image, "tag_v2", {}).get(number)
    values = value if isinstance(value, tuple) else (value,)
    return values if all(isinstance(each, int) for each in values) else None
