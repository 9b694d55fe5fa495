"""Tables as other programs save them: encodings, delimiters, headers, and the files that their cells mean."""

import gzip
from pathlib import Path

import pytest

from ensemble.data.samples import read_images, read_samples
from ensemble.data.table.read import number, read_noted, read_table
from ensemble.data.table.several import several_labels
from ensemble.errors import UserError

BODY = [["a.png", "cat"], ["b.png", "dog"]]


def saved(folder, content, name="t.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.png,cat\nb.png,dog\n",
        "path;label\na.png;cat\nb.png;dog\n",
        "path\tlabel\na.png\tcat\nb.png\tdog\n",
        "path|label\na.png|cat\nb.png|dog\n",
        "sep=;\npath;label\na.png;cat\nb.png;dog\n",
        "\ufeffpath;label\r\na.png;cat\r\nb.png;dog\r\n",
        "path,label\ra.png,cat\rb.png,dog\r",
        "path,label\na.png,cat\nb.png,dog\n\n \n,,\n",
        "\npath,label\n\na.png,cat\n\nb.png,dog",
        "path,label,\na.png,cat,\nb.png,dog,\n",
        "path,label\na.png,cat,\nb.png,dog,\n",
        "path,label\na.png,cat,\nb.png,dog\n",
        'path,label\n"a.png","cat"\n"b.png","dog"\n',
        'path, label\n"a.png", "cat"\n"b.png", "dog"\n',
        "'path','label'\n'a.png','cat'\n'b.png','dog'\n",
        "path,label,label\na.png,cat,cat\nb.png,dog,dog\n",
        *("path,label\na.png,cat\nb.png,dog\n".encode(code) for code in ("utf-8-sig", "utf-16", "utf-32", "utf-16-le")),
        "path\tlabel\na.png\tcat\nb.png\tdog\n".encode("utf-16-be"),
        gzip.compress(b"path,label\na.png,cat\nb.png,dog\n", mtime=0),
    ],
)  # fmt: skip
def test_one_table_in_many_forms(tmp_path, content):
    packed = isinstance(content, bytes) and content.startswith(b"\x1f\x8b")
    table, notes = read_noted(saved(tmp_path, content, "t.csv.gz" if packed else "t.csv"))
    assert [name.strip() for name in table.columns] == ["path", "label"] and table.to_numpy().tolist() == BODY
    assert notes == []


@pytest.mark.parametrize(
    ("encoding", "cells", "said"),
    [
        ("cp949", ["사진 1.png", "고양이"], "t.csv is not UTF-8 and is read as CP949 (Korean)"),
        ("cp1252", ["Zoë’s.png", "Bär"], "t.csv is not UTF-8 and is read as Windows-1252"),
    ],
)
def test_older_encodings_are_read_and_said(tmp_path, encoding, cells, said):
    table, notes = read_noted(saved(tmp_path, f"path,label\n{','.join(cells)}\n".encode(encoding)))
    assert table.to_numpy().tolist() == [cells] and notes == [said]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp932", "写真,猫ねこ"), ("gbk", "照片,猫和狗"), ("cp1251", "фото,кошка"), ("big5", "照片,貓和狗")],
)
def test_encodings_that_cannot_be_told_are_refused(tmp_path, encoding, text):
    path = saved(tmp_path, f"path,label\n{text}\n".encode(encoding))
    assert "is not UTF-8, and it can't be told which other encoding is meant: save it as UTF-8" in refusal(
        read_table, path
    )


def test_decimal_commas_and_commas_in_a_file_of_one_column(tmp_path):
    assert read_table(saved(tmp_path, "path;w\na;0,5\nb;0,7\n")).to_numpy().tolist() == [["a", "0,5"], ["b", "0,7"]]
    assert read_table(saved(tmp_path, "name\nmy, a\nmy, b, c\n"))["name"].tolist() == ["my, a", "my, b, c"]
    assert [number(text) for text in ("0,5", " 1.5 ", "2")] == [0.5, 1.5, 2]
    assert all(number(text) != number(text) for text in ("1,234.5", "x", "", "1,2,3"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            "path,label\na.png,cat,dog\n",
            "row 1 has 3 cells where the header has 2: put quotes around a cell that holds ",
        ),
        ('path,label\n"a.png,cat\nb.png,dog\n', "a quote is opened and never closed"),
        ("path,label,label\na,b,c\n", "columns 2 and 3 are both named 'label' and hold different values: rename one"),
        ("", "it is empty"),
    ],
)
def test_tables_that_have_no_one_reading(tmp_path, content, why):
    path = saved(tmp_path, content)
    assert refusal(read_table, path).startswith(f"{path}: not a readable CSV or Parquet file ({why}")


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (b"PK\x03\x04rest", "t.xlsx", "an Excel workbook or another zip; save its sheet as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "t.xls", "an Excel workbook; save its sheet as CSV"),
        ("<!DOCTYPE html><html>", "t.csv", "an HTML page"),
        ('{"path": "a.png"}', "t.csv", "JSON, not CSV"),
        ("version https://git-lfs.github.com/spec/v1\n", "t.csv", "a Git LFS pointer: fetch the file itself"),
    ],
)
def test_what_is_no_table(tmp_path, content, name, kind):
    path = saved(tmp_path, content, name)
    assert refusal(read_table, path).startswith(f"{path}: is {kind}")


def test_an_address_is_refused():
    line = "https://x.org/t.csv is an address, and ens fetches nothing: download it, and name the file"
    for call in (read_table, read_samples, read_images):
        assert refusal(call, Path("https://x.org/t.csv")) == line


def test_row_names_without_a_header_of_their_own(tmp_path):
    table = read_table(saved(tmp_path, '"path","label"\n"1","a.png","cat"\n"2","b.png","dog"\n'))
    assert list(table.columns) == ["Unnamed: 0", "path", "label"]


# ---- no header -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("a.png,cat\nb.png,dog\nc.png,cat\n", "t.csv"),
        ("a.png cat\nb.png dog\nc.png cat\n", "t.txt"),
        ("cat;a.png\ndog;b.png\ncat;c.png\n", "t.csv"),
    ],
)
def test_a_table_without_a_header_keeps_its_first_image(tmp_path, content, name):
    touch(tmp_path, "a.png", "b.png", "c.png")
    samples = read_samples(saved(tmp_path, content, name))
    assert samples.ids.tolist() == ["a.png", "b.png", "c.png"] and samples.labels.tolist() == [0, 1, 0]
    assert samples.notes[0].startswith(f"{name} has no header: its first row, ") and len(samples.notes) == 1


def test_a_first_row_that_names_an_image_without_its_ending(tmp_path):
    touch(tmp_path, *(f"pics/{name:03}.png" for name in range(1, 5)))
    samples = read_samples(saved(tmp_path, "001,cat\n002,dog\n003,cat\n004,dog\n"))
    assert samples.ids.tolist() == ["001", "002", "003", "004"] and samples.classes == ("cat", "dog")
    table = "pic,0,1\n001,0,1\n002,1,0\n"  # classes that are numbers, in a header that is one
    assert read_samples(saved(tmp_path, table), "pic", ["0", "1"]).ids.tolist() == ["001", "002"]


def test_a_list_of_images_to_predict(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    ids, _, notes = read_images(saved(tmp_path, "a.png\nb.png\n", "list.txt"))
    assert ids == ["a.png", "b.png"]
    assert notes == ("list.txt has no header: its first row, 'a.png', is read as data like the others",)


# ---- the files that cells mean ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "files"),
    [
        (["a\\1.png", "a\\2.png"], ["a/1.png", "a/2.png"]),
        ([" a/1.png ", "a/2.png"], ["a/1.png", "a/2.png"]),
        (["a/1.jpg", "a/2.JPG"], ["a/1.JPG", "a/2.jpg"]),
        (["a/1", "a/2.png"], ["a/1.webp", "a/2.bmp"]),
        (["1", "2"], ["0001.png", "0002.png"]),
        (["1.0", "2.0"], ["cat/0001.png", "dog/0002.png"]),
        (["1.png", "2.png"], ["cat/1.png", "dog/2.png"]),
        (["/kaggle/input/train/a/1.png", "/kaggle/input/train/a/2.png"], ["a/1.png", "a/2.png"]),
        (["D:\\data\\1.png", "D:\\data\\2.png"], ["1.png", "2.png"]),
    ],
)
def test_names_that_are_written_otherwise_than_the_files(tmp_path, cells, files):
    touch(tmp_path, *files)
    csv = saved(tmp_path, "path,label\n" + "".join(f"{cell},{row}\n" for row, cell in enumerate(cells)))
    samples = read_samples(csv)
    by_label = dict(zip(samples.labels.tolist(), samples.paths, strict=True))
    assert [by_label[row] for row in (0, 1)] == [tmp_path / file for file in files]
    same = [cell.strip().replace("\\", "/") for cell in cells] == files
    assert same or (" names are written " in samples.notes[0] and repr(files[0]) in samples.notes[0])


def test_a_table_beside_its_images_in_another_folder(tmp_path):
    touch(tmp_path, "images/0001.JPG", "images/0002.JPG")
    (tmp_path / "lists").mkdir()
    csv = saved(tmp_path / "lists", "path,label\n..\\images\\1.jpg,x\n../images/0002.jpg,y\n")
    assert [path.resolve() for path in read_samples(csv).paths] == [
        tmp_path / "images" / name for name in ("0002.JPG", "0001.JPG")
    ]


def test_a_name_that_means_no_file_or_two(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png", "b/cat_12.png")
    csv = saved(tmp_path, "path,label\n1.png,x\n")
    assert "image '1.png' could be 'a/1.png' or 'b/1.png' (2 files)" in refusal(read_samples, csv)
    csv = saved(tmp_path, "path,label\na/1.png,x\nb/cat-12.png,y\nc,x\n")
    assert refusal(read_samples, csv) == (
        f"{csv}: image 'b/cat-12.png' is not there; the nearest name is 'b/cat_12.png' (seen from {tmp_path}; 2 of 3 "
        "rows have no file)"
    )
    csv = saved(tmp_path, "path,label\na/1.png,x\nhttps://x.org/b/1.png,y\n")
    assert "image 'https://x.org/b/1.png' is an address, and ens fetches nothing" in refusal(read_samples, csv)


def test_two_ways_to_write_one_file(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    csv = saved(tmp_path, "path,label\na.png,x\nb.png,y\n./a.png,y\n")
    assert refusal(read_samples, csv) == f"{csv}: 'a.png' and './a.png' are one file; every row needs its own"


def test_a_test_table_whose_images_lie_below_and_whose_rows_are_numbered(tmp_path):
    touch(tmp_path, "test/7.png", "test/8.png", "train/7.png", "train/8.png")
    ids, files, notes = read_images(saved(tmp_path, ",image\n0,8\n1,7\n", "test.csv"))
    assert ids == ["7", "8"] and files == [tmp_path / "test" / f"{name}.png" for name in ids]
    assert notes[0].startswith("warning: the names in 'image' are those of images in ")
    csv = saved(tmp_path, "image\n8\n7\n", "list.csv")
    assert "write the paths with their folders" in refusal(read_images, csv)


# ---- a column for each class, several labels in a cell -------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "zero"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("1,0", "0,0"), ("1", "-1"), ("Yes", "no")]
)
def test_a_column_of_0_and_1_for_each_class(tmp_path, one, zero):
    touch(tmp_path, "a.png", "b.png", "c.png")
    rows = [("a.png", one, zero, zero), ("b.png", zero, zero, one), ("c.png", zero, one, zero)]
    csv = saved(tmp_path, "path; healthy;rust;scab\n" + "".join(";".join(row) + "\n" for row in rows))
    samples = read_samples(csv, label=["healthy", "rust", "scab"])
    assert samples.classes == ("healthy", "rust", "scab") and samples.labels.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["a.png,1,0", "b.png,1,1"], "1 row has several 1s (row 2: x, y): with data.label as a list"),
        (["a.png,1,0", "b.png,0,0"], "1 row has none (the first is row 2)"),
        (["a.png,1,0", "b.png,2,0"], "column 'x' holds '2'; where data.label is a list of columns, each holds 0 and 1"),
        (["a.png,1,0", "b.png,1,0"], "column 'y' is 0 in every row: take it out of data.label"),
    ],
)
def test_columns_that_are_not_one_hot(tmp_path, rows, why):
    touch(tmp_path, "a.png", "b.png")
    csv = saved(tmp_path, "\n".join(["path,x,y", *rows, ""]))
    assert refusal(read_samples, csv, label=["x", "y"]).startswith(f"{csv}: {why}")


@pytest.mark.parametrize(
    "labels",
    [
        ["scab", "rust", "scab rust", "healthy"],
        ["a|b", "a", "c"],
        ["a;b", "b;c", "d"],
        ["a,b", "a", "b,c", "c"],
        ["a, b", "a", "b"],
        ["[0, 1]", "[0]", "[1]"],
        ["['cat', 'dog']", "['cat']"],
        ["{0,1}", "{1}"],
        ["0 1", "0", "1", "2"],
        ["haze primary", "clear primary", "agriculture clear primary", "agriculture clear primary road", "haze water",
         "clear primary road", "agriculture haze", "agriculture clear primary water", "haze road", "primary water"],
    ],
)  # fmt: skip
def test_several_labels_in_a_cell_are_seen(labels):
    line = several_labels(labels)
    assert line is not None and "like several labels in a cell: " in line


@pytest.mark.parametrize(
    "labels",
    [
        ["great white shark", "tiger shark", "hammerhead", "white shark", "shark"],
        ["oak tree", "maple tree", "palm tree", "willow tree"],
        ["red apple", "green apple", "red pepper", "green pepper"],
        ["tench, Tinca tinca", "great white shark, white shark, man-eater", "goldfish, Carassius auratus"],
        ["CT, left", "CT, right", "MR, left", "MR, right"],
        ["t-shirt/top", "dress", "bag"],
        ["(a) cat", "(b) dog"],
        ["New York", "York", "New Delhi"],
        ["0", "1", "2"],
        ["01 cat", "02 dog", "03 cat dog"],
    ],
)
def test_names_of_several_words_are_not_taken_for_several_labels(labels):
    assert several_labels(labels) is None


def test_several_labels_are_warned_of_when_a_table_is_read(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.png")
    notes = read_samples(saved(tmp_path, "path,label\na.png,scab\nb.png,rust\nc.png,scab rust\n")).notes
    assert notes == (
        "warning: 1 class looks like several labels in a cell: 'scab rust' (1 row). ens trains one label per image, "
        "and takes each combination for a class of its own",
    )


def test_one_name_in_the_folders_of_two_classes_is_told_by_its_label(tmp_path):
    touch(tmp_path, *(f"data/{label}/{number}.png" for label in ("Cat", "dog") for number in (1, 2)))
    text = "file,label,n\n1.png,cat,a\n2.png,cat,b\n1.png,dog,c\n2.png,dog,d\n"
    csv = saved(tmp_path, text)
    assert "path '1.png' is there twice" in refusal(read_samples, csv, "file")
    csv = saved(tmp_path, "file,label\n1.png,cat\n2.png,dog\n")
    samples = read_samples(csv, "file")
    assert samples.paths == (tmp_path / "data/Cat/1.png", tmp_path / "data/dog/2.png")
    assert samples.notes[0].startswith(
        "2 of 2 names are those of files in several folders, and are looked for in that of"
    )
    csv = saved(tmp_path, "file,label\n1.png,cat\n2.png,owl\n")
    assert "image '2.png' could be " in refusal(read_samples, csv, "file")
