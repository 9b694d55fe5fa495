"""Pictures turned as their EXIF says. A camera stores what its sensor saw and how it was held."""

from PIL import ExifTags, Image

# what undoes an EXIF orientation; 1 is upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPED = (5, 6, 7, 8)  # height and width change places


def orientation(image: Image.Image) -> int | None:
    """EXIF's 1..8, of which a file without EXIF has 1, as does one that says 0: unknown. None where it says something
    else or can't be read, and the picture is taken for upright.

    Of a TIFF whose pixels are loaded it is 1: Pillow turns them itself. A PNG may carry its EXIF behind its pixels,
    which are then decoded here; what is wrong with them is raised.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return 1 if value in (0, 1) else next((known for known in UPRIGHT if value == known), None)
    except Exception:  # a block may be broken in any way, and the picture whole
        return None


def turned(image: Image.Image, orientation: int | None) -> Image.Image:
    """The picture upright. Not ImageOps.exif_transpose, which writes all of EXIF anew and so ends in a TypeError,
    struct.error or AttributeError at one tag of a wrong type."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
