"""Zips, tars and tables with images in them: the same rows, ids and bytes as of the folder, and nothing unsafe."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commands import ens
from pyarrow.parquet import write_table
from recorder import Recorder

from ensemble.data.samples import read_class_folders, read_images, read_samples
from ensemble.data.source import follow
from ensemble.data.submission.sample import read_sample
from ensemble.data.table.read import read_table
from ensemble.data.unpacked import copies
from ensemble.data.unpacked.local import as_local
from ensemble.data.unpacked.source_names import source_name, with_source_names
from ensemble.errors import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder, and a cache of the test's own."""
    monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def art(paint):
    """art/: a train folder of two classes, a test folder, a sample submission."""
    for index in range(8):
        paint(Path("art/train") / ("cat", "dog")[index % 2] / f"{index:02}.png")
    for index in range(3):
        paint(Path("art/test") / f"t{index}.png")
    Path("art/sample_submission.csv").write_text("id,label\n" + "".join(f"t{index}.png,cat\n" for index in range(3)))
    return Path("art")


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return with_source_names(str(caught.value))


def contents(samples):
    """Each row's id, class and bytes."""
    names = [samples.classes[label] for label in samples.labels]
    return list(zip(samples.ids.tolist(), names, [path.read_bytes() for path in samples.paths], strict=True))


def write_zip(path, files, **keys):
    with zipfile.ZipFile(path, "w", **keys) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return Path(path)


def write_tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return Path(path)


def hugging_face(paths, names, images, number_of=None):
    """A table as `datasets` writes it: images as structs, labels as numbers whose names stand in the metadata."""
    classes = sorted(set(names))
    image = pa.array([{"bytes": data, "path": path} for data, path in zip(images, paths, strict=True)])
    labels = pa.array([classes.index(name) if number_of is None else number_of for name in names], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table({"image": image, "label": labels}).replace_schema_metadata(metadata)


# ---- zips and tars that hold folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("top", ["art", "."])
def test_an_archive_is_the_folder_that_it_unpacks_to(art, kind, top):
    packed = Path(shutil.make_archive("packed", kind, "art" if top == "." else ".", top)).relative_to(Path.cwd())
    folder = follow(packed, None).path
    found, expected = read_class_folders(folder), read_class_folders(art / "train")
    assert contents(found) == contents(expected) and found.fingerprint() == expected.fingerprint()
    ids, files, _ = read_images(packed / "test")
    assert ids == read_images(art / "test")[0] and files[0].read_bytes() == (art / "test" / "t0.png").read_bytes()
    assert len(read_sample(packed / "sample_submission.csv")) == 3
    assert source_name(folder) == f"{packed}/train"
    assert refusal(read_images, packed / "tset") == f"{packed}: holds no 'tset', but sample_submission.csv, test, train"


def test_a_table_of_its_sound_rows_is_followed_by_a_command_that_reads_it(art, monkeypatch, capfd):
    shutil.copy(art / "train/cat/00.png", art / "train/cat/copy.png")
    shutil.make_archive("packed", "zip", "art/train")
    status, out, err = ens(monkeypatch, capfd, "check", "packed.zip", "--fix", "clean.csv")
    last = out.splitlines()[-1]
    assert status == 0 and last == "next: ens init clean.csv --images packed.zip", err
    status, _, err = ens(monkeypatch, capfd, *last.split()[2:])
    assert status == 0, err


def test_it_is_unpacked_once_and_again_where_the_copy_is_damaged(art, monkeypatch):
    packed, heard = Path(shutil.make_archive("a", "zip", art)), Recorder()
    os.utime(packed, (1e9, 1e9))
    copy = as_local(packed, heard)
    assert [line for line in heard.messages if "12 files" in line and "unpacked into the cache" in line]

    def again():
        monkeypatch.setattr(copies, "_opened", {})
        heard.messages.clear()
        assert as_local(packed, heard) == copy
        return heard.messages

    assert again() == []
    damaged = copy / "train" / "cat" / "00.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    assert "its unpacked copy was changed or damaged; it is unpacked again" in again()[0]
    assert damaged.read_bytes() == whole
    damaged.unlink()
    assert "damaged" in again()[0] and damaged.read_bytes() == whole
    shutil.rmtree(copy)
    (copy.parent / "copy.json").write_text("{}")
    assert "damaged" in again()[0] and damaged.read_bytes() == whole
    packed.write_bytes(write_zip("b.zip", {"new.png": whole}).read_bytes())  # of another content under the same name
    assert as_local(packed, heard).parent != copy.parent
    assert copies.summary() > 0 and copies.clear() > 0 and copies.summary() == 0


def test_a_copy_that_was_left_half_made_counts_for_nothing(art):
    packed = Path(shutil.make_archive("a", "zip", art))
    copy = as_local(packed)
    half = copy.parent.with_name(f".{copy.parent.name}.host-1.tmp")
    copies._opened.clear()
    copy.parent.rename(half)  # as a kill leaves it
    assert as_local(packed) == copy and not half.exists()


@pytest.mark.process
def test_of_two_processes_one_unpacks(art):
    packed = shutil.make_archive("a", "zip", art)
    code = (
        "import sys\nfrom pathlib import Path\nfrom ensemble.data.unpacked.local import as_local\n"
        "from ensemble.data.unpacked import copies\nmake = copies._make\n"
        "def late(*arguments):\n    print('unpacks', flush=True)\n    return make(*arguments)\n"
        "copies._make = late\nsys.stdin.readline()\nprint(as_local(Path(sys.argv[1])))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", code, packed], **pipes) for _ in range(2)]
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in started]
    assert sorted(map(len, said)) == [1, 2] and said[0][-1] == said[1][-1] == str(as_local(Path(packed)))


def test_what_changes_while_it_is_unpacked_is_not_kept(art, monkeypatch):
    packed, write = Path(shutil.make_archive("a", "zip", art)), copies._write
    monkeypatch.setattr(copies, "_write", lambda *arguments: (os.utime(packed, (1e9, 1e9)), write(*arguments))[1])
    assert (
        refusal(as_local, packed) == f"{packed}: changed while it was unpacked; start again when nothing writes to it"
    )
    assert copies.summary() == 0


def test_a_folder_that_holds_zips_says_so(art):
    shutil.make_archive("data/train", "zip", art)
    assert refusal(read_images, Path("data")).endswith("; to read what is packed in train.zip, name it")


def test_a_name_in_the_working_folder_that_is_not_there_unpacks_nothing(art):
    shutil.make_archive("train", "tar", art)
    shutil.rmtree(art)
    assert as_local(Path("tset")) == Path("tset") and not copies.copies_folder().exists()


def test_korean_names_of_windows(paint):
    image = paint(Path("a.png")).read_bytes()
    # Python's own writer marks what isn't ASCII as UTF-8, and Korean Windows doesn't
    write_zip("k.zip", {"AB/1.png": image, "CD/2.png": image})
    raw = Path("k.zip").read_bytes().replace(b"AB/", "개".encode("cp949") + b"/")
    Path("k.zip").write_bytes(raw.replace(b"CD/", "닭".encode("cp949") + b"/"))
    assert read_class_folders(as_local(Path("k.zip"))).ids.tolist() == ["개/1.png", "닭/2.png"]
    Path("j.zip").write_bytes(raw.replace("개".encode("cp949"), b"\x81\xff"))
    assert "is neither UTF-8 nor Korean (CP949): unpack it with a program" in refusal(as_local, Path("j.zip"))


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png", "C:/out.png"])
def test_a_name_that_leads_out_is_refused(tmp_path, paint, name):
    image = paint(Path("in.png")).read_bytes()
    line = f"holds a file named {name!r}, which leads out of its folder; it is not unpacked"
    for path in (
        write_zip("a.zip", {"a/1.png": image, name: image}),
        write_tar("a.tar", {"a/1.png": image, name: image}),
    ):
        assert refusal(as_local, path) == f"{path}: {line}"
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize("name", [r"a/..\..\out.png", r"..\out.png", r"\out.png", r".\C:\out.png"])
def test_a_name_that_leads_out_on_windows_is_refused(paint, name):
    path = write_tar("a.tar", {"a/1.png": paint(Path("in.png")).read_bytes(), name: b""})
    assert f"holds a file named {name!r}, which leads out of its folder" in refusal(as_local, path)


def test_links_and_devices_are_left_out(paint):
    image = paint(Path("in.png")).read_bytes()
    with tarfile.open("a.tar", "w") as archive:
        for name, kind in (("a/link.png", tarfile.SYMTYPE), ("a/pipe.png", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("a/1.png")
        info.size = len(image)
        archive.addfile(info, io.BytesIO(image))
    heard = Recorder()
    assert [path.name for path in as_local(Path("a.tar"), heard).iterdir()] == ["1.png"]
    assert "a.tar: 2 links left out (a/link.png, a/pipe.png)" in heard.messages
    link = zipfile.ZipInfo("b/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("a.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("b/1.png", image)
    assert [path.name for path in as_local(Path("a.zip"), heard).iterdir()] == ["1.png"]
    assert "a.zip: 1 link left out (b/link.png)" in heard.messages


def test_limits(paint, monkeypatch):
    bomb = write_zip("bomb.zip", {"a.png": bytes(10**6), "b.png": b"1"}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setenv("ENS_MAX_UNPACKED_BYTES", "1e5")
    line = "bomb.zip: unpacks to 1,008,193 bytes or more, and ens unpacks 100,000; if it is sound, set "
    assert refusal(as_local, bomb) == f"{line}ENS_MAX_UNPACKED_BYTES=1008193"
    monkeypatch.delenv("ENS_MAX_UNPACKED_BYTES")
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(OSError, match=r"bomb\.zip unpacks to .*, and the disk of the cache has 5 kB free"):
        as_local(bomb)


@pytest.mark.parametrize("name", ["art.7z", "art.rar", "ART.TAR.ZST"])
def test_archives_of_other_kinds_are_named(name):
    Path(name).write_bytes(b"0" * 100)
    assert refusal(as_local, Path(name)) == (
        f"{name}: an archive of a kind that is not read; unpack it, or pack it as a zip or tar"
    )


def test_what_cannot_be_unpacked_is_one_line(paint):
    image = paint(Path("in.png")).read_bytes()
    whole = write_zip("whole.zip", {"a/1.png": image, "b/2.png": image})
    Path("cut.zip").write_bytes(whole.read_bytes()[:-40])
    assert "cut.zip: can't be unpacked (File is not a zip file); if it was cut short" in refusal(
        as_local, Path("cut.zip")
    )
    raw = bytearray(whole.read_bytes())
    raw[200] ^= 1
    Path("bad.zip").write_bytes(raw)
    assert "bad.zip: can't be unpacked (Bad CRC-32 for file 'a/1.png')" in refusal(as_local, Path("bad.zip"))
    raw = bytearray(whole.read_bytes())
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        raw[raw.index(mark) + (6 if mark[2] == 3 else 8)] |= 1
    Path("locked.zip").write_bytes(raw)
    assert refusal(as_local, Path("locked.zip")) == (
        "locked.zip: has a password (on 'a/1.png'); unpack it with the password, and name the folder"
    )
    nested = write_zip("nested.zip", {"train.zip": b"", "test.zip": b"", "s.csv": b""})
    assert refusal(as_local, nested) == (
        "nested.zip: holds no images, but other packed files (train.zip, test.zip), and ens unpacks one level: unpack "
        "it, and name one of these"
    )
    empty = write_tar("empty.tar", {"a.txt": b"", "b.npy": b""})
    assert refusal(as_local, empty) == "empty.tar: holds no images, only others (a.txt, b.npy)"
    tar = write_tar("whole.tar", {"a/1.png": image * 9, "b/2.png": image * 9})
    Path("cut.tar").write_bytes(tar.read_bytes()[: 9 * len(image)])
    assert "cut.tar: can't be unpacked (" in refusal(as_local, Path("cut.tar"))
    heard = Recorder()
    Path("ends.tar").write_bytes(tar.read_bytes()[: 512 + -(-9 * len(image) // 512) * 512])
    as_local(Path("ends.tar"), heard)
    assert "ends.tar: has no end mark, so it may have been cut short" in " ".join(heard.messages)
    twice = write_tar("twice.tar", {"a/1.png": image, "./a/1.png": image})
    assert "twice.tar: holds 'a/1.png' twice" in refusal(as_local, twice)
    assert not [path for path in copies.copies_folder().iterdir() if path.name.endswith(".tmp")]


def test_a_zipped_table_is_read_where_the_zip_lies(art):
    rows = [f"train/{path.parent.name}/{path.name},{path.parent.name}" for path in sorted((art / "train").glob("*/*"))]
    write_zip("art/train.csv.zip", {"train.csv": "path,label\n" + "\n".join(rows), "__MACOSX/._train.csv": b"x"})
    assert len(read_samples(Path("art/train.csv.zip"))) == 8
    write_zip("several.zip", {"a.csv": "a", "b.csv": "b"})
    assert refusal(as_local, Path("several.zip")) == "several.zip: holds no images, only others (a.csv, b.csv)"
    assert "name the one in it: several.zip/NAME.csv" in refusal(read_table, Path("several.zip"))


# ---- tables with images in them ------------------------------------------------------------------------------------


@pytest.fixture
def rows(art):
    """Paths seen from art/train, class names and bytes."""
    files = sorted((art / "train").glob("*/*.png"))
    return [p.name for p in files], [p.parent.name for p in files], [p.read_bytes() for p in files]


def test_parquet_of_hugging_face(rows):
    write_table(hugging_face(*rows), "one.parquet", row_group_size=3)
    found = read_samples(Path("one.parquet"))
    assert contents(found) == sorted(zip(*rows, strict=True))
    assert source_name(found.paths[0].parent) == "one.parquet"
    source = follow(Path("one.parquet"), None)
    assert source.path.is_file() and source_name(source.path) == "one.parquet"


def test_saved_data_sets_of_hugging_face(rows):
    table = hugging_face(*rows)
    for split, part in (("train", table), ("test", table.slice(0, 3))):
        for number in range(2):
            file = Path("saved") / split / f"data-{number:05}-of-00002.arrow"
            file.parent.mkdir(parents=True, exist_ok=True)
            shard = part.slice(0, 2) if number == 0 else part.slice(2)
            with pa.ipc.new_stream(str(file), table.schema) as writer:
                writer.write_table(shard)
        (file.parent / "cache-0123.arrow").write_bytes(b"")  # a result that `datasets` keeps
    assert contents(read_samples(Path("saved/train"))) == sorted(zip(*rows, strict=True))
    assert read_images(Path("saved/test"))[0] == sorted(rows[0][:3])
    source = follow(Path("saved"), None)
    assert source_name(source.path) == "saved/train" and [
        (source_name(path), count) for path, count in source.test
    ] == [("saved/test", 3)]
    with pa.ipc.new_file("one.arrow", table.schema) as writer:
        writer.write_table(table)
    assert contents(read_samples(Path("one.arrow"))) == sorted(zip(*rows, strict=True))


def test_a_folder_of_parquet_files(rows):
    Path("food/data").mkdir(parents=True)
    table = hugging_face(*rows)
    write_table(table.slice(0, 5), "food/data/train-00000-of-00002.parquet")
    write_table(table.slice(5), "food/data/train-00001-of-00002-0123456789abcdef.parquet")
    write_table(hugging_face(*rows, number_of=-1), "food/data/test-00000-of-00001.parquet")
    assert contents(read_samples(Path("food/train"))) == sorted(zip(*rows, strict=True))
    assert set(read_table(as_local(Path("food/test")))["label"]) == {""}
    assert refusal(read_images, Path("food")).startswith("food: holds several parts of a data set; name the one to")


def test_archives_beside_the_folders_that_they_unpack_to_are_not_read(art, rows):
    shutil.make_archive("art/train/all", "tar", "art/train")
    write_table(hugging_face(*rows), "art/train/all.parquet")
    assert as_local(art / "train") == art / "train" and len(read_class_folders(art / "train")) == 8


def test_what_does_not_belong_to_a_folder_of_parquet_files(rows):
    table = hugging_face(*rows)
    Path("food").mkdir()
    write_table(table, "food/train-0.parquet")
    write_table(pa.table({"name": ["a"]}), "food/people.parquet")
    heard = Recorder()
    assert as_local(Path("food"), heard).name == "images.parquet"
    assert "food: 1 table without images left out (people.parquet)" in heard.messages
    assert as_local(Path("food/trian")) == Path("food/trian")  # nothing is unpacked to find that out
    write_table(table.rename_columns(["image", "class"]), "food/train-1.parquet")
    line = "food/train-1.parquet: has other columns or classes than food/train-0.parquet; make them alike"
    assert refusal(as_local, Path("food")) == line
    Path("food/train-0.parquet").write_bytes(b"PAR1")
    assert "food/train-0.parquet: can't be unpacked (" in refusal(as_local, Path("food"))


def test_images_are_called_as_the_table_calls_them(rows):
    _, names, images = rows
    table = hugging_face([f"/data/{name}/x.png" for name in names], names, images)
    write_table(table, "same.parquet")
    assert read_images(Path("same.parquet"))[0] == [f"{row:06}.png" for row in range(8)]
    write_table(table.append_column("image_id", pa.array([f"id{row}" for row in range(8)])), "ids.parquet")
    assert read_images(Path("ids.parquet"))[0] == [f"id{row}" for row in range(8)]
    bare = pa.table({"photo": pa.array(images), "path": ["p"] * 8, "label": names, "box": [[1.0]] * 8})
    write_table(bare, "bare.parquet")
    heard = Recorder()
    found = read_table(as_local(Path("bare.parquet"), heard))
    assert list(found) == ["path", "original_path", "label"] and found["path"][7] == "000007.png"
    assert "bare.parquet: columns that are neither text nor numbers left out (box)" in heard.messages


def test_tables_that_hold_no_sound_images(rows):
    paths, names, images = rows
    plain = pa.table({"file": paths, "label": names, "embedding": pa.array([b"\0\1"] * 8)})
    write_table(plain, "plain.parquet")
    assert as_local(Path("plain.parquet")) == Path("plain.parquet")  # a table of paths
    assert "no column 'path' (data.path); it has: file, label, embedding" in refusal(
        read_samples, Path("plain.parquet")
    )
    write_table(hugging_face(paths, names, [*images[:3], None, *images[4:]]), "gap.parquet")
    assert refusal(as_local, Path("gap.parquet")) == (
        f"gap.parquet: row 4 has no bytes of an image (of path {paths[3]!r}); write the images into it"
    )
    Path("parts").mkdir()
    write_table(hugging_face(*rows), "parts/1.parquet")
    write_table(hugging_face(paths, names, [None, *images[1:]]), "parts/2.parquet")
    assert refusal(as_local, Path("parts")).startswith("parts/2.parquet: row 1 has no bytes of an image")
    write_table(hugging_face(*rows, number_of=7), "odd.parquet")
    assert "column 'label' holds 7, and there are 2 classes in its metadata" in refusal(as_local, Path("odd.parquet"))
    both = hugging_face(*rows)
    write_table(both.select(["image"]).rename_columns(["a"]).append_column("b", both["image"]), "two.parquet")
    assert refusal(as_local, Path("two.parquet")) == "two.parquet: several columns hold images (a, b); drop all but one"
    write_table(both.append_column("mask", both["image"]), "mask.parquet")
    assert list(read_table(as_local(Path("mask.parquet")))) == ["path", "label"]
    Path("broken.parquet").write_bytes(Path("mask.parquet").read_bytes()[:-9])
    assert as_local(Path("broken.parquet")) == Path("broken.parquet")  # the reading of tables says why


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_one_line_or_read(rows, art, seed):
    table = hugging_face(*rows)
    write_table(table, "a.parquet")
    with pa.ipc.new_stream("a.arrow", table.schema) as writer:
        writer.write_table(table)
    write_tar(
        "a.tar", {f"s{row}.{end}": b"0" if end == "cls" else rows[2][row] for row in range(4) for end in ("png", "cls")}
    )
    shutil.make_archive("a", "zip", art)
    random = np.random.default_rng(seed)
    for name in ("a.parquet", "a.arrow", "a.tar", "a.zip"):
        whole = Path(name).read_bytes()
        for number in range(10):
            raw = bytearray(whole)
            for _ in range(8):
                start = len(raw) - 1500 if random.random() < 0.5 else 0
                raw[start + int(random.integers(min(1500, len(raw))))] = int(random.integers(256))
            path = Path(f"{number}-{name}")
            path.write_bytes(raw[: random.integers(len(raw))] if number == 0 else raw)
            try:
                as_local(path)
            except UserError as error:
                assert "\n" not in str(error) and path.name in str(error)


# ---- WebDataset ----------------------------------------------------------------------------------------------------


def test_web_dataset_shards(rows):
    Path("shards").mkdir()
    for number in range(2):
        files = {}
        for row in range(4 * number, 4 * number + 4):
            files |= {f"s{row:02}.png": rows[2][row], f"s{row:02}.cls": rows[1][row].encode()}
            files[f"s{row:02}.json"] = json.dumps({"person": row // 2, "label": "of json"}).encode()
        write_tar(f"shards/train-{number:06}.tar", {**files, "s00.npy": b"\0"} if number == 0 else files)
    heard = Recorder()
    found = read_samples(as_local(Path("shards"), heard), group="person")
    assert contents(found) == [(f"s{row:02}.png", rows[1][row], rows[2][row]) for row in range(8)]
    assert found.groups.tolist() == [str(row // 2) for row in range(8)]
    assert "1 file beside the images left out (s00.npy)" in heard.messages
    assert len(read_images(Path("shards/train-000001.tar"))[0]) == 4


def test_samples_without_a_label_or_an_image_are_named(rows):
    image = rows[2][0]
    files = {"a.jpg": image, "a.cls": b"0", "b.jpg": image, "c.jpg": image, "c.cls": b"1", "d.cls": b"1"}
    heard = Recorder()
    table = as_local(write_tar("w.tar", files), heard)
    assert "warning: 1 sample has no .cls (b)" in heard.messages
    assert "warning: 1 sample left out, without an image (d)" in heard.messages
    assert refusal(read_samples, table) == "w.tar: column 'label' is empty in row 2 (1 row in all)"
    assert read_images(Path("w.tar"))[0] == ["a.jpg", "b.jpg", "c.jpg"]
    several = write_tar("v.tar", {"a.jpg": image, "a.seg.png": image, "a.cls": b"0"})
    assert refusal(as_local, several) == (
        "v.tar: sample 'a' holds 2 images (a.jpg, a.seg.png); ens takes one image in a sample"
    )
    broken = write_tar("j.tar", {"a.jpg": image, "a.json": b"{"})
    assert refusal(as_local, broken) == "j.tar: a.json: not the text that a .json holds"


# ---- tables of names -----------------------------------------------------------------------------------------------


def test_image_folder_of_hugging_face_with_metadata(art, rows):
    for split in ("train", "test"):
        lines = [
            json.dumps({"file_name": path.relative_to(art / split).as_posix(), "label": index % 2, "note": None})
            for index, path in enumerate(sorted((art / split).rglob("*.png")))
        ]
        (art / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    found = follow(art, None)
    assert found.path == art / "train" / "metadata.jsonl"
    samples = read_samples(found.path, path="file_name")
    assert (
        samples.ids[0] == "cat/00.png"
        and samples.classes == ("0", "1")
        and np.bincount(samples.labels).tolist() == [4, 4]
    )
    (art / "bad.jsonl").write_text('{"a": 1}\n[2]\n')
    assert "bad.jsonl: not a readable CSV or Parquet file (line 2 is no object" in refusal(
        read_table, art / "bad.jsonl"
    )
