"""`ens check` on the files themselves: each kind of trouble is planted, found, named, and nothing else is said."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ensemble.audit.check import check
from ensemble.audit.findings import Finding
from ensemble.events import SILENT


@pytest.fixture
def pets(tmp_path, paint):
    """Two classes of eight noise images of 64 px."""
    for name in ("cat", "dog"):
        for number in range(8):
            paint(tmp_path / "pets" / name / f"{name}{number}.png", 64, 64)
    return tmp_path / "pets"


def found(data: Path, test: Path | None = None) -> dict[str, Finding]:
    audit = check(data, test, None, None, data.parent / "audit.json", (), SILENT)
    kinds = {f"{one.side}:{one.kind}": one for one in audit.findings}
    assert len(kinds) == len(audit.findings)
    return kinds


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def only(data: Path, kind: str, test: Path | None = None) -> Finding:
    kinds = found(data, test)
    assert list(kinds) == [kind]
    return kinds[kind]


def test_nothing_is_found_in_sound_images(pets):
    assert found(pets) == {}


def test_empty_truncated_and_unreadable_files(pets):
    whole = io.BytesIO()
    Image.fromarray(noise(1, 64, 64, 3)).save(whole, "JPEG")
    (pets / "cat" / "empty.jpg").touch()
    (pets / "cat" / "short.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (pets / "dog" / "page.jpg").write_text("<!DOCTYPE html><title>404</title>")
    (pets / "dog" / "dust.jpg").write_bytes(b"\x93\x01\x02" * 50)
    kinds = found(pets)
    assert list(kinds) == ["train:empty-file", "train:truncated", "train:unreadable"]
    assert kinds["train:empty-file"].rows == ("cat/empty.jpg",)
    assert kinds["train:truncated"].rows == ("cat/short.jpg",)
    assert kinds["train:unreadable"].rows == ("dog/dust.jpg", "dog/page.jpg")
    assert {one.level for one in kinds.values()} == {"error"}
    assert "dog/page.jpg (an HTML page)" in kinds["train:unreadable"].examples
    assert kinds["train:empty-file"].what == "empty file" and "drop them (--fix)" in kinds["train:empty-file"].advice


def test_test_images_are_looked_at_too(pets, paint):
    test = pets.parent / "test"
    paint(test / "a.png", 64, 64)
    (test / "b.png").touch()
    one = only(pets, "test:empty-file", test)
    assert one.rows == ("b.png",) and "--on-bad skip" in one.advice


def test_test_images_that_are_listed_twice(pets, paint):
    for number in range(3):
        paint(pets.parent / f"t{number}.png", 64, 64)
    (pets.parent / "test.csv").write_text("path\nt0.png\nt1.png\nt0.png\nt2.png\n")
    one = only(pets, "test:repeated-path", pets.parent / "test.csv")
    assert one.rows == ("t0.png",) and one.level == "error" and one.count == 1


def test_content_that_the_ending_denies(pets):
    Image.fromarray(noise(2, 64, 64, 3)).save(pets / "cat" / "really.jpg", "PNG")
    Image.fromarray(noise(3, 64, 64, 3)).save(pets / "cat" / "fine.jfif", "JPEG")
    one = only(pets, "train:other-format")
    assert one.examples == ("cat/really.jpg (PNG)",) and one.level == "note"


def test_odd_modes(pets):
    Image.fromarray(noise(4, 64, 64, 4)).save(pets / "cat" / "clear.png")
    Image.fromarray(noise(5, 64, 64, 3)).convert("CMYK").save(pets / "cat" / "print.jpg")
    Image.fromarray(noise(6, 64, 64, 3)).convert("P").save(pets / "cat" / "few.png")
    Image.fromarray(noise(7, 64, 64)).save(pets / "dog" / "grey.png")
    Image.fromarray(noise(8, 64, 64).astype(np.uint16) * 257).save(pets / "dog" / "deep.png")
    kinds = found(pets)
    assert {kind: one.rows for kind, one in kinds.items()} == {
        "train:cmyk": ("cat/print.jpg",),
        "train:alpha": ("cat/clear.png",),
        "train:16-bit": ("dog/deep.png",),
        "train:palette": ("cat/few.png",),
        "train:grey": ("dog/deep.png", "dog/grey.png"),
    }
    assert {one.level for one in kinds.values()} == {"note"}


def test_float_pixels_are_an_error_for_training_refuses_them(pets):
    Image.fromarray(noise(9, 64, 64).astype(np.float32)).save(pets / "cat" / "float.tif")
    one = only(pets, "train:unreadable")
    assert one.rows == ("cat/float.tif",) and "32-bit float pixels have no known scale" in one.examples[0]


def test_pixels_that_are_read_by_a_rule(pets):
    """12 and 10 bits in 16 beside 16, a TIFF of four bands without alpha, an alpha of 0 and 1, one of 0 alone."""
    for seed, bits in enumerate((10, 12, 12, 16)):
        deep = np.random.default_rng(seed).integers(0, 2**bits, (64, 64), dtype=np.uint16)
        Image.fromarray(deep).save(pets / "cat" / f"deep{bits}-{seed}.png")
    cv2.imwrite(str(pets / "dog" / "four.tif"), noise(20, 64, 64, 4))
    few = noise(21, 64, 64, 4)
    few[..., 3] %= 2
    Image.fromarray(few).save(pets / "dog" / "few.png")
    few[..., 3] = 0
    Image.fromarray(few).save(pets / "dog" / "clear.png")
    kinds = found(pets)
    rows = {kind.removeprefix("train:"): (one.level, one.rows) for kind, one in kinds.items()}
    assert rows == {
        "bit-depth": ("warning", ("cat/deep10-0.png", "cat/deep12-1.png", "cat/deep12-2.png")),
        "clear": ("warning", ("dog/clear.png",)),
        "fourth-band": ("warning", ("dog/four.tif",)),
        "alpha": ("note", ("dog/clear.png", "dog/few.png")),
        "16-bit": ("note", ("cat/deep10-0.png", "cat/deep12-1.png", "cat/deep12-2.png", "cat/deep16-3.png")),
        "grey": ("note", ("cat/deep10-0.png", "cat/deep12-1.png", "cat/deep12-2.png", "cat/deep16-3.png")),
        "alpha-0-1": ("note", ("dog/few.png",)),
        "one-colour": ("warning", ("dog/clear.png",)),
    }
    assert "(12-bit: 2, 10-bit: 1, 16-bit: 1)" in kinds["train:bit-depth"].advice


def test_a_set_of_one_depth_throughout_is_noted(tmp_path):
    for number in range(12):
        path = tmp_path / "scans" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 4096, (64, 64), dtype=np.uint16)).save(path)
    one = only(tmp_path / "scans", "train:bit-depth")
    assert (one.level, one.count) == ("note", 12) and "(12-bit: 12)" in one.advice


def test_jpegs_without_an_end_and_cut_ones_that_have_one(pets):
    stream = io.BytesIO()
    Image.fromarray(noise(22, 64, 64, 3)).save(stream, "JPEG")
    whole = stream.getvalue()
    (pets / "cat" / "no-end.jpg").write_bytes(whole[:-2])
    (pets / "cat" / "closed.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    kinds = found(pets)
    assert {kind: (one.level, one.rows) for kind, one in kinds.items()} == {
        "train:truncated": ("error", ("cat/closed.jpg",)),
        "train:no-end-marker": ("note", ("cat/no-end.jpg",)),
    }


def test_orientations_that_do_not_exist(pets):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(noise(23, 64, 64, 3)).save(pets / "cat" / "odd.jpg", exif=exif)
    assert only(pets, "train:odd-exif").rows == ("cat/odd.jpg",)


def test_a_set_that_is_grey_throughout_is_no_finding(tmp_path):
    for number in range(12):
        path = tmp_path / "digits" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, 64, 64)).save(path)
    assert found(tmp_path / "digits") == {}


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_what_all_images_are_is_the_sets_own_way(tmp_path, mode):
    for number in range(12):
        path = tmp_path / "set" / str(number % 2) / f"{number}.{'tif' if mode == 'CMYK' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, 64, 64, 3)).convert(mode).save(path)
    assert found(tmp_path / "set") == {}


def test_exif_turns(pets):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(10, 64, 64, 3)).save(pets / "cat" / "turned.jpg", exif=exif)
    one = only(pets, "train:turned")
    assert one.rows == ("cat/turned.jpg",) and "ens turns them upright" in one.advice


def test_animations(pets):
    frames = [Image.fromarray(noise(seed, 64, 64, 3)) for seed in (11, 12)]
    frames[0].save(pets / "cat" / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    one = only(pets, "train:animation")
    assert one.rows == ("cat/moves.webp",) and "the first" in one.advice


def test_files_that_are_left_out(pets):
    (pets / "cat" / "phone.heic").write_bytes(b"....ftypheic")
    Image.fromarray(noise(13, 64, 64, 3)).save(pets / "cat" / "bare", "PNG")
    (pets / "readme.txt").write_text("pets")
    (pets / "labels.json").write_text("{}")
    (pets / "notes.txt").write_text("more")
    (pets / "cat" / "._cat1.png").write_bytes(b"\x00\x05\x16\x07")
    (pets / ".DS_Store").write_bytes(b"Bud1")
    kinds = found(pets)
    assert kinds.keys() == {"train:left-out-picture", "train:left-out-file", "train:hidden"}
    assert kinds["train:left-out-picture"].rows == ("cat/phone.heic",)  # bare is a PNG by its content, and read
    assert kinds["train:left-out-picture"].level == "warning"
    assert kinds["train:left-out-file"].examples == ("2 x .txt", "1 x .json")
    assert kinds["train:left-out-file"].count == 3 and kinds["train:hidden"].rows == ("cat/._cat1.png",)


def test_missing_files(tmp_path, paint):
    for number in range(8):
        paint(tmp_path / "pics" / f"{number}.png", 64, 64)
    (tmp_path / "t.csv").write_text(
        "path,label\n" + "".join(f"pics/{number}.png,{'ab'[number % 2]}\n" for number in [*range(8), 98, 99])
    )
    kinds = found(tmp_path / "t.csv")
    assert kinds["train:missing-file"].rows == ("pics/98.png", "pics/99.png")
    assert kinds["train:missing-file"].what == "rows without their files"
    assert kinds.keys() == {"train:missing-file"}


def test_empty_class_folder_and_loose_image(pets, paint):
    (pets / "bird").mkdir()
    (pets / "bird" / "b.heic").write_bytes(b"x")
    paint(pets / "loose.png", 64, 64)
    kinds = found(pets)
    assert kinds["train:empty-class"].rows == ("bird",) and kinds["train:empty-class"].level == "error"
    assert kinds["train:empty-label"].rows == ("loose.png",)
    assert kinds["train:empty-label"].what == "image outside any class folder"


def test_links_that_lead_nowhere_are_missing_files(pets):
    (pets / "cat" / "lost.png").symlink_to(pets / "gone.png")
    (pets / "cat" / ".hidden.png").symlink_to(pets / "gone.png")
    (pets / "cat" / "cat9.png").symlink_to(pets / "dog" / "dog0.txt")
    one = only(pets, "train:missing-file")
    assert one.rows == ("cat/cat9.png", "cat/lost.png") and one.level == "error"


def test_links_among_the_test_images_that_lead_nowhere(pets, paint):
    paint(pets.parent / "test" / "a.png", 64, 64)
    (pets.parent / "test" / "b.png").symlink_to(pets / "gone.png")
    one = only(pets, "test:missing-file", pets.parent / "test")
    assert one.rows == ("b.png",) and "--fix" not in one.advice


def test_folders_that_are_named_like_images(pets, paint):
    (pets / "cat" / "a.jpg").mkdir()
    (pets / "cat" / "b.jpg").mkdir()
    (pets / "cat" / "b.jpg" / "page.txt").write_text("404")
    paint(pets / "dog" / "c.jpg" / "real.png", 64, 64)  # nothing is lost
    kinds = found(pets)
    assert kinds.keys() == {"train:left-out-folder", "train:left-out-file"}
    assert kinds["train:left-out-folder"].rows == ("cat/a.jpg", "cat/b.jpg")
    assert kinds["train:left-out-folder"].level == "warning"
    assert kinds["train:left-out-file"].rows == ("cat/b.jpg/page.txt",)


def test_a_class_folder_named_like_an_image_is_told_once(pets):
    (pets / "bird.png").mkdir()
    assert only(pets, "train:empty-class").rows == ("bird.png",)
