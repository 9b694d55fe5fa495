"""The formats of images that are read: those for which Pillow has a decoder of its own.

Not those that it hands to an interpreter (EPS to Ghostscript), only recognises (MPEG, HDF5) or reads on one system
alone (WMF), whatever the ending says: a file may come from anywhere.
"""

from functools import cache

from PIL import Image

# fmt: off
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit",
    ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif",
    ".jp2", ".jpc", ".jpe", ".jpf", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm",
    ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm",
    ".xpm",
)
USUAL = ".avif .bmp .gif .jpg .png .tif .webp"
# Formats that begin with bytes of their own: enough to know a file without an ending.
SIGNED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM", "PSD", "QOI")
# Pictures for which there is no decoder here.
OTHER_PICTURES = frozenset({
    ".heic", ".heif", ".jxl", ".svg", ".svgz", ".dcm", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2",
    ".exr", ".hdr", ".eps", ".ps", ".pdf", ".wmf", ".emf", ".jxr", ".nii", ".djvu",
})
REFUSED = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC"})
# fmt: on


@cache
def decoders() -> tuple[str, ...]:
    """What `Image.open` may try, the commonest first; which there are depends on how Pillow was built."""
    Image.init()
    usual = [kind for kind in SIGNED if kind in Image.OPEN]
    return (*usual, *(kind for kind in Image.ID if kind not in REFUSED and kind not in usual))


def signed() -> tuple[str, ...]:
    """Those that a file without an ending is known by."""
    return tuple(kind for kind in decoders() if kind in SIGNED)
