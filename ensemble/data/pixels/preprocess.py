"""How a member's images are decoded, cropped and normalised: the same in training, evaluation and prediction."""

from dataclasses import asdict, dataclass
from pathlib import Path

from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json


@dataclass(frozen=True)
class Decoding:
    """What settles the decoded pixels of a file.

    size: of the shorter side, pixels; None leaves the image at its own scale.
    interpolation: a key of `decode.INTERPOLATION`.
    crop: (height, width) in pixels of the upright file, cut from its middle before it is scaled, or None.
    """

    size: int | None
    interpolation: str
    crop: tuple[int, int] | None


@dataclass(frozen=True)
class Preprocess:
    """All that stands between a file and a member's input, stored beside its weights.

    image_size: side of the network's input, pixels.
    decode_size: shorter side that is decoded to, pixels; evaluation cuts the middle image_size square out of it.
    interpolation: a key of `decode.INTERPOLATION`.
    mean: per channel, of values in [0, 1].
    std: likewise.
    crop: (height, width) in pixels of the upright file, or None.
    """

    image_size: int
    decode_size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: tuple[int, int] | None = None

    @property
    def decoding(self) -> Decoding:
        """The part that settles the decoded pixels: members that agree in it share them."""
        return Decoding(self.decode_size, self.interpolation, self.crop)

    @property
    def cropping(self) -> Decoding:
        """What training crops are cut from: at least 8/7 of the input's side, the margin of a crop share of 0.875.
        Where the member's own decoding has less, the pixels are kept at that size too."""
        return Decoding(max(self.decode_size, self.image_size * 8 // 7), self.interpolation, self.crop)

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


def load_preprocess(path: Path) -> Preprocess:
    """Read what `Preprocess.save` wrote. Raises UserError that names the file."""
    return read_json(path, Preprocess, f"delete {path.parent} to train the member again")
