"""Which files are images, and that every other one is told."""

from pathlib import Path

import pytest
from PIL import Image

from ensemble.data.folders import listing
from ensemble.data.folders.listing import list_folder
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.formats import IMAGE_ENDINGS, decoders
from ensemble.data.pixels.preprocess import Decoding
from ensemble.errors import UserError


def names(paths: tuple[Path, ...], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def put(path: Path, kind: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, kind)
    return path


def test_every_ending_that_pillow_reads() -> None:
    Image.init()
    known = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind in decoders()}
    assert known <= set(IMAGE_ENDINGS)
    assert not set(IMAGE_ENDINGS) & {".eps", ".ps", ".pdf", ".wmf", ".svg", ".mpg"}


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_an_interpreter_never_runs_whatever_the_ending_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(tmp_path / name) as file:
        assert file.format == "EPS"
    with pytest.raises(UserError, match="cannot identify image file"):
        decode(tmp_path / name, Decoding(32, "bilinear", None))
    assert "EPS" not in decoders() and decoders()[:2] == ("JPEG", "PNG")


def test_a_file_without_an_ending_goes_by_its_content(tmp_path: Path) -> None:
    for name, kind in (
        ("a", "PNG"),
        ("b.jpe", "JPEG"),
        ("c.JP2", "JPEG2000"),
        ("shot 2019.03.01", "JPEG"),
        ("Mr. X", "GIF"),
    ):
        put(tmp_path / name, kind)
    put(tmp_path / "d.bak")
    (tmp_path / "LICENSE").write_text("P5 or later")
    (tmp_path / "scan").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    found = list_folder(tmp_path)
    assert names(found.images, tmp_path) == ["Mr. X", "a", "b.jpe", "c.JP2", "shot 2019.03.01"]
    assert names(found.others, tmp_path) == ["LICENSE", "d.bak", "scan"]


def test_what_is_left_out_is_said_with_numbers_and_names(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.HEIC").touch()
    (tmp_path / "labels.csv").touch()
    for name in ("__MACOSX/._a.png", ".cache/b.jpg", ".c.png", "Thumbs.db", "@eaDir/a.jpg", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    put(tmp_path / "a.png")
    found = list_folder(tmp_path)
    assert names(found.images, tmp_path) == ["a.png"] and len(found.hidden) == 6
    assert found.left_out() == [
        "warning: 5 pictures are left out: ens can't read .heic; convert them to JPEG or PNG (0.HEIC, 1.HEIC, 2.HEIC "
        "and 2 more)",
        "1 file that is no image by its ending is left out (labels.csv)",
        "warning: 1 link that leads nowhere is left out (lost.png)",
        "4 hidden images are left out (.c.png, .cache/b.jpg, @eaDir/a.jpg and 1 more)",
    ]


def test_links_are_followed_once_and_loops_noticed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(tmp_path / "pool" / "x.png")
    put(data / "b" / "y.png")
    (data / "a").symlink_to(tmp_path / "pool")
    (data / "again").symlink_to(tmp_path / "pool")
    (data / "aa").symlink_to(data / "b")  # before b by name, but b is the folder's own name
    (data / "b" / "up").symlink_to(data)
    (tmp_path / "pool" / "loop").symlink_to(tmp_path / "pool")
    (data / "above").symlink_to(tmp_path)
    found = list_folder(data)
    assert names(found.images, data) == ["a/x.png", "b/y.png"]
    assert names(found.turned, data) == ["a/loop", "aa", "above", "again", "b/up"]
    assert found.left_out()[0].startswith(
        "warning: 5 linked folders are not followed, back to a folder above or to one"
    )


def test_a_part_of_a_listing(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/2.txt", "train1/b/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    part = list_folder(tmp_path).below(tmp_path / "train")
    assert names(part.images, tmp_path) == ["train/a/1.png"] and names(part.others, tmp_path) == ["train/2.txt"]


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.svg").touch()
    assert (
        list_folder(tmp_path)
        .no_images()
        .startswith(f"{tmp_path}: no images in it or below it, only others, 'a.svg' among them (endings known: .avif ")
    )


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder"):
        list_folder(tmp_path / "none")


def test_a_folder_that_goes_away_while_others_are_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: the folder can't be read \(No such file or directory\)"):
        listing._identity(tmp_path / "gone")
