"""Reading labelled and unlabelled images from folders and tables."""

import hashlib
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.config import load_config
from ensemble.data.labelled import read_labelled
from ensemble.data.samples import Samples, read_images, read_samples
from ensemble.errors import UserError
from ensemble.files.atomic import write_text
from ensemble.files.sealed import write_json
from ensemble.run import Run


def nfd(text):
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    return decomposed


def touch(folder, *names, text="x"):
    """Files that exist; a table is read without decoding them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def table(folder, text, images=("a.png", "b.png", "c.png"), name="train.csv"):
    touch(folder, *images)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def names(samples):
    return [samples.classes[label] for label in samples.labels]


def refusal(source, **columns):
    with pytest.raises(UserError) as caught:
        read_samples(source, **columns)
    return str(caught.value)


# ---- class folders -------------------------------------------------------------------------------------------------


def test_class_folders_nested_to_any_depth(tmp_path):
    touch(tmp_path, "dog/b.png", "cat/old/2019/a b.JPG", "cat/z.webp")
    samples = read_samples(tmp_path)
    assert samples.ids.tolist() == ["cat/old/2019/a b.JPG", "cat/z.webp", "dog/b.png"]
    assert samples.paths == tuple(tmp_path / name for name in samples.ids)
    assert samples.classes == ("cat", "dog")
    assert samples.labels.dtype == np.int64 and samples.labels.tolist() == [0, 0, 1]
    assert samples.groups is None and samples.folds is None


def test_hidden_files_and_other_endings_are_left_out(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/b.png", "cat/._a.png", ".trash/c.png", "cat/notes.txt", "readme.md")
    assert read_samples(tmp_path).ids.tolist() == ["cat/a.png", "dog/b.png"]


def test_decomposed_korean_class_folders_read_as_composed(tmp_path):
    touch(tmp_path, nfd("고양이") + "/" + nfd("사진 1.png"), "개/사진 2.png")
    samples = read_samples(tmp_path)
    assert samples.classes == ("개", "고양이")
    assert samples.ids.tolist() == ["개/사진 2.png", "고양이/사진 1.png"]
    assert all(path.is_file() for path in samples.paths)


def test_one_class_in_two_unicode_forms_is_one_class(tmp_path):
    touch(tmp_path, nfd("고양이") + "/1.png", "고양이/2.png", "개/3.png")
    assert read_samples(tmp_path).labels.tolist() == [0, 1, 1]


def test_image_outside_class_folders(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/b.png", "c.png")
    assert refusal(tmp_path) == (
        f"{tmp_path}: image 'c.png' lies outside any class folder; "
        f"want one folder per class: {tmp_path.name}/<class>/*.jpg, or a CSV"
    )


def test_folder_without_images(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path}: no images in class folders; want one folder per class")


def test_a_class_folder_without_images_is_not_passed_over(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/a.png", "owl/a.heic")
    assert refusal(tmp_path) == (
        f"{tmp_path / 'owl'}: holds no images that ens can read (but 'a.heic'); "
        "convert them to JPEG or PNG, or remove the folder"
    )
    (tmp_path / "owl" / "a.heic").unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path / 'owl'}: holds nothing; ")


def test_paths_may_start_in_another_folder_and_lack_their_ending(tmp_path):
    touch(tmp_path, "pictures/a.png", "pictures/b.jpg")
    (tmp_path / "t.csv").write_text("path,label\na,x\nb.jpg,y\n")
    samples = read_samples(tmp_path / "t.csv", images=tmp_path / "pictures")
    assert samples.paths == (tmp_path / "pictures" / "a.png", tmp_path / "pictures" / "b.jpg")
    assert samples.ids.tolist() == ["a", "b.jpg"]


def test_a_cell_of_prose_is_no_file(tmp_path):
    (tmp_path / "t.csv").write_text(f"path,label\n{'word ' * 80},x\n")
    assert "is not there" in refusal(tmp_path / "t.csv")


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    touch(tmp_path, "cat/a.png")
    (Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xb0\xa1.png"))).write_bytes(b"x")
    assert "is not UTF-8; rename it" in refusal(tmp_path)


def test_fingerprint_follows_groups_and_own_folds(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    prints = set()
    for group, fold in (("p", 0), ("q", 0), ("p", 1)):
        (tmp_path / "t.csv").write_text(f"path,label,g,f\na.png,x,{group},{fold}\nb.png,y,r,{1 - fold}\n")
        prints.add(read_samples(tmp_path / "t.csv", group="g", fold="f").fingerprint())
    assert len(prints) == 3


def test_folder_has_no_columns(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/b.png")
    line = "{} names a column, but {} is a folder, not a table"
    assert refusal(tmp_path, group="person") == line.format("data.group = 'person'", tmp_path)
    assert refusal(tmp_path, fold="part") == line.format("folds.fold = 'part'", tmp_path)
    assert refusal(tmp_path, weight="w") == line.format("data.weight = 'w'", tmp_path)


def test_only_one_class(tmp_path):
    touch(tmp_path, "cat/a.png", "cat/b.png")
    assert refusal(tmp_path) == f"{tmp_path}: only one class, 'cat'; a classifier needs two or more"


# ---- tables --------------------------------------------------------------------------------------------------------


def test_csv_rows_are_sorted_by_id_with_all_their_columns(tmp_path):
    text = "file,kind,who,part\nc.png,dog,ann,1\na.png,cat,bob,\nb.png,dog,bob,0\n"
    samples = read_samples(table(tmp_path, text), path="file", label="kind", group="who", fold="part")
    assert samples.ids.tolist() == ["a.png", "b.png", "c.png"]
    assert samples.paths == tuple(tmp_path / name for name in samples.ids)
    assert names(samples) == ["cat", "dog", "dog"]
    assert samples.groups.tolist() == ["bob", "bob", "ann"]
    assert samples.folds.tolist() == [-1, 0, 1]


def test_id_column_replaces_the_path_as_id(tmp_path):
    samples = read_samples(table(tmp_path, "path,label,id\na.png,x,20\nb.png,y,10\n"), id="id")
    assert samples.ids.tolist() == ["10", "20"]
    assert [path.name for path in samples.paths] == ["b.png", "a.png"]


def test_parquet_reads_as_the_same_csv_does(tmp_path):
    csv = table(tmp_path, "path,label,who,part\nc.png,10,7,1\na.png,9,7,\nb.png,10,8,0\n")
    numbers = {"label": [10, 9, 10], "who": [7, 7, 8], "part": [1.0, None, 0.0]}
    pd.DataFrame({"path": ["c.png", "a.png", "b.png"], **numbers}).to_parquet(tmp_path / "train.parquet")
    one, two = (read_samples(file, group="who", fold="part") for file in (csv, tmp_path / "train.parquet"))
    assert one.ids.tolist() == two.ids.tolist() and one.paths == two.paths and one.classes == two.classes == ("9", "10")
    assert one.labels.tolist() == two.labels.tolist() == [0, 1, 1]
    assert one.groups.tolist() == two.groups.tolist() == ["7", "8", "7"]
    assert one.folds.tolist() == two.folds.tolist() == [-1, 0, 1]


def test_cells_stay_text(tmp_path):
    text = "path,label,id\na.png,NA,007\nb.png,007,NA\nc.png,1.0,null\n"
    samples = read_samples(table(tmp_path, text), id="id")
    assert samples.ids.tolist() == ["007", "NA", "null"]
    assert names(samples) == ["NA", "007", "1.0"]


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert len(read_samples(table(tmp_path, "\ufeffpath,label\na.png,x\nb.png,y\n"))) == 2


def test_numbered_classes_stand_in_the_order_of_their_numbers(tmp_path):
    spellings = ["10", "2", "1", "01", "001", "0001", "00001", "000001"]  # of equal value: no order left to chance
    text = "path,label\n" + "".join(f"{row}.png,{name}\n" for row, name in enumerate([*spellings, "b", "a"]))
    samples = read_samples(table(tmp_path, text, [f"{row}.png" for row in range(10)]))
    assert samples.classes == ("000001", "00001", "0001", "001", "01", "1", "2", "10", "a", "b")


@pytest.mark.parametrize(
    ("written", "order"),
    [
        (["1.0", "10.0", "2.0"], ("1.0", "2.0", "10.0")),
        (["10", "-1", "2.5", "2"], ("-1", "2", "2.5", "10")),
        (["nan", "1e1", "3", "12345678901234567891", "12345678901234567890"],
         ("3", "12345678901234567890", "12345678901234567891", "1e1", "nan")),
    ],
)  # fmt: skip
def test_numbers_of_every_writing_stand_by_value_in_tables_and_folders(tmp_path, written, order):
    files = [f"{row}.png" for row in range(len(written))]
    text = "path,label\n" + "".join(f"{file},{name}\n" for file, name in zip(files, written, strict=True))
    samples = read_samples(table(tmp_path, text, files))
    assert samples.classes == order
    assert [samples.classes[label] for label in samples.labels] == written
    for name in written:
        (tmp_path / "folders" / name).mkdir(parents=True)
        (tmp_path / "folders" / name / "a.png").write_bytes(b"x")
    assert read_samples(tmp_path / "folders").classes == order


def test_a_run_keeps_the_order_of_classes_that_it_stored(tmp_path):
    """An older ens had 10.0 before 2.0, and its networks' outputs are in that order."""
    files = [f"{row}.png" for row in range(3)]
    source = table(tmp_path, "path,label\n0.png,1.0\n1.png,2.0\n2.png,10.0\n", files)
    backbone = '[[backbone]]\nname = "a"\ntimm = "test_vit"\n'
    (tmp_path / "e.toml").write_text(f'run = "{tmp_path / "run"}"\n[data]\ntrain = "{source}"\n{backbone}')
    config = load_config(tmp_path / "e.toml")
    assert read_labelled(config).classes == ("1.0", "2.0", "10.0")
    write_json(Run(tmp_path / "run").classes_json, ["1.0", "10.0", "2.0"])
    write_text(Run(tmp_path / "run").member("a").fold(0).log_file, "{}\n")
    samples = read_labelled(config)
    assert samples.classes == ("1.0", "10.0", "2.0") and samples.labels.tolist() == [0, 2, 1]


def test_spaces_in_paths_and_around_labels(tmp_path):
    text = "path,label\nmy photos/a 1.png,big cat \nb.png,big cat\nc.png, dog\n"
    samples = read_samples(table(tmp_path, text, ["my photos/a 1.png", "b.png", "c.png"]))
    assert samples.classes == ("big cat", "dog") and samples.labels.tolist() == [0, 1, 0]
    assert samples.ids.tolist() == ["b.png", "c.png", "my photos/a 1.png"]


@pytest.mark.parametrize("on_disk, written", [(nfd, str), (str, nfd), (nfd, nfd), (str, str)])
def test_paths_meet_in_either_unicode_form(tmp_path, on_disk, written):
    image = "사진/한 글.png"
    samples = read_samples(table(tmp_path, f"path,label\n{written(image)},개\nb.png,소\n", [on_disk(image), "b.png"]))
    assert samples.ids.tolist() == ["b.png", image]
    assert all(path.is_file() for path in samples.paths)


def test_one_label_or_group_in_two_unicode_forms_is_one(tmp_path):
    text = f"path,label,who\na.png,개,한\nb.png,{nfd('개')},{nfd('한')}\nc.png,소, 한 \n"
    samples = read_samples(table(tmp_path, text), group="who")
    assert samples.classes == ("개", "소")
    assert samples.groups.tolist() == ["한", "한", "한"]


def test_missing_image(tmp_path):
    csv = table(tmp_path, "path,label\na.png,x\nno such.png,y\n")
    assert refusal(csv) == f"{csv}: image 'no such.png' is not there (seen from {tmp_path})"


def test_repeated_path_and_id(tmp_path):
    csv = table(tmp_path, "path,label,id\na.png,x,1\nb.png,y,1\na.png,y,2\n")
    assert refusal(csv) == f"{csv}: path 'a.png' is there twice; every row needs its own"
    csv = table(tmp_path, "path,label,id\na.png,x,1\nb.png,y,1\nc.png,y,2\n")
    assert refusal(csv, id="id") == f"{csv}: id '1' is there twice; every row needs its own"


def test_one_path_in_two_unicode_forms_is_a_repeat(tmp_path):
    csv = table(tmp_path, f"path,label\n한.png,x\n{nfd('한')}.png,y\n", ["한.png"])
    assert refusal(csv) == f"{csv}: path '한.png' is there twice; every row needs its own"


@pytest.mark.parametrize("row", ["b.png,", "b.png,  ", "b.png"])
def test_empty_label(tmp_path, row):
    csv = table(tmp_path, f"path,label\na.png,x\n{row}\nc.png,\n")
    assert refusal(csv) == f"{csv}: column 'label' is empty in row 2 (2 rows in all)"


def test_empty_group(tmp_path):
    csv = table(tmp_path, "path,label,who\na.png,x,ann\nb.png,y,\n")
    assert refusal(csv, group="who") == f"{csv}: column 'who' is empty in row 2 (1 row in all)"


def test_missing_column(tmp_path):
    csv = table(tmp_path, "file,kind\na.png,x\n")
    assert refusal(csv) == f"{csv}: no column 'path' (data.path); it has: file, kind"
    assert refusal(csv, path="file") == f"{csv}: no column 'label' (data.label); it has: file, kind"
    known = {"path": "file", "label": "kind"}
    assert refusal(csv, **known, group="who") == f"{csv}: no column 'who' (data.group); it has: file, kind"
    assert refusal(csv, **known, fold="part") == f"{csv}: no column 'part' (folds.fold); it has: file, kind"
    assert refusal(csv, **known, weight="w") == f"{csv}: no column 'w' (data.weight); it has: file, kind"


def test_table_without_rows(tmp_path):
    csv = table(tmp_path, "path,label\n")
    assert refusal(csv) == f"{csv}: has no rows"


def test_unreadable_tables(tmp_path):
    missing = tmp_path / "no.csv"
    assert refusal(missing) == f"{missing}: no such file or folder"
    for name, text in {"empty.csv": b"", "kana.csv": "パス".encode("cp932"), "half.parquet": b"PAR1"}.items():
        (tmp_path / name).write_bytes(text)
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: not a readable CSV or Parquet file (")


# ---- the user's own folds ------------------------------------------------------------------------------------------


def own_folds(folder, *cells):
    images = [f"{row:03}.png" for row in range(len(cells))]
    lines = [f"{image},{'xy'[row % 2]},{cell}" for row, (image, cell) in enumerate(zip(images, cells, strict=True))]
    return table(folder, "\n".join(["path,label,part", *lines, ""]), images)


def test_own_folds_with_rows_never_validated(tmp_path):
    samples = read_samples(own_folds(tmp_path, "1", "0", "", "-1", "1.0"), fold="part")
    assert samples.folds.tolist() == [1, 0, -1, -1, 1]


@pytest.mark.parametrize(
    "cells, held", [(["0", "2"], [0, 2]), (["1", "2"], [1, 2]), (["0", "0"], [0]), (["0", "1", "-2"], [-2, 0, 1])]
)
def test_own_folds_with_gaps(tmp_path, cells, held):
    csv = own_folds(tmp_path, *cells)
    assert refusal(csv, fold="part") == (
        f"{csv}: fold column 'part' holds {held}; "
        "want 0, 1, ... without gaps, 2 to 127 of them, and -1 or nothing for rows never validated"
    )


def test_more_own_folds_than_a_run_can_number(tmp_path):
    assert "2 to 127 of them" in refusal(own_folds(tmp_path, *range(128)), fold="part")
    assert read_samples(own_folds(tmp_path, *range(127)), fold="part").folds.max() == 126


@pytest.mark.parametrize("cell", ["first", "0.5", "inf", "nan", " "])
def test_own_folds_that_are_no_whole_numbers(tmp_path, cell):
    csv = own_folds(tmp_path, "0", "1", cell)
    assert refusal(csv, fold="part") == f"{csv}: fold column 'part' must hold whole numbers ({cell!r} is none)"


# ---- sample weights ------------------------------------------------------------------------------------------------


def test_weights_follow_their_rows(tmp_path):
    csv = table(tmp_path, "path,label,w\nc.png,x,0\na.png,y, 2.5 \nb.png,y,1e-3\n")
    weights = read_samples(csv, weight="w").weights
    assert weights.dtype == np.float64 and weights.tolist() == [2.5, 0.001, 0.0]
    assert read_samples(csv).weights is None
    columns = {"path": ["c.png", "a.png", "b.png"], "label": ["x", "y", "y"], "w": [0, 2.5, 0.001]}
    pd.DataFrame(columns).to_parquet(tmp_path / "train.parquet")
    assert read_samples(tmp_path / "train.parquet", weight="w").weights.tolist() == [2.5, 0.001, 0.0]


@pytest.mark.parametrize("cell", ["-0.5", "nan", "inf", "1e999", "heavy", "", " "])
def test_weight_that_is_no_weight(tmp_path, cell):
    csv = table(tmp_path, f"path,label,id,w\na.png,x,1,1\nb.png,y,2,{cell}\nc.png,y,3,-9\n")
    assert refusal(csv, id="id", weight="w") == (
        f"{csv}: weight column 'w' holds {cell!r} in row '2'; want a finite number of 0 or more"
    )


def test_weights_that_are_all_zero(tmp_path):
    csv = table(tmp_path, "path,label,w\na.png,x,0\nb.png,y,-0.0\n")
    assert refusal(csv, weight="w") == f"{csv}: weight column 'w' is 0 in every row; there is nothing to learn from"


# ---- fingerprint ---------------------------------------------------------------------------------------------------


def pair(folder, ids=("a.png", "b.png"), labels=(0, 1)):
    return Samples(np.array(ids), (folder / "a.png", folder / "b.png"), np.array(labels), ("cat", "dog"))


def test_fingerprint_is_the_hash_of_ids_labels_and_sizes(tmp_path):
    touch(tmp_path, "a.png", text="123")
    touch(tmp_path, "b.png", text="12345")
    assert pair(tmp_path).fingerprint() == hashlib.sha256(b"a.png\0cat\0\0\x003\nb.png\0dog\0\0\x005\n").hexdigest()
    unlabelled = replace(pair(tmp_path), labels=None)
    assert unlabelled.fingerprint() == hashlib.sha256(b"a.png\0\0\0\x003\nb.png\0\0\0\x005\n").hexdigest()


def test_fingerprint_covers_weights_only_where_there_are_any(tmp_path):
    touch(tmp_path, "a.png", text="123")
    touch(tmp_path, "b.png", text="12345")
    text = b"a.png\0cat\0\0\x003\x000.5\nb.png\0dog\0\0\x005\x002.0\n"
    weighted = replace(pair(tmp_path), weights=np.array([0.5, 2.0]))
    assert weighted.fingerprint() == hashlib.sha256(text).hexdigest()
    assert replace(weighted, weights=np.array([0.5, 1.0])).fingerprint() != weighted.fingerprint()


def test_fingerprint_changes_with_a_label_an_id_or_a_size(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    before = pair(tmp_path).fingerprint()
    changed = {
        before,
        pair(tmp_path, labels=(1, 0)).fingerprint(),
        pair(tmp_path, ids=("a.png", "c.png")).fingerprint(),
    }
    touch(tmp_path, "b.png", text="longer")
    assert len(changed | {pair(tmp_path).fingerprint()}) == 4


def test_fingerprint_does_not_change_with_the_order_of_rows(tmp_path):
    touch(tmp_path, "a.png", text="123")
    touch(tmp_path, "b.png", text="12345")
    one = pair(tmp_path)
    other = Samples(one.ids[::-1], one.paths[::-1], one.labels[::-1], one.classes)
    assert other.fingerprint() == one.fingerprint()


# ---- unlabelled images ---------------------------------------------------------------------------------------------


def test_unlabelled_folder_has_relative_paths_as_ids(tmp_path):
    touch(tmp_path, "b.png", nfd("가") + "/a.jpg", "notes.txt", ".hidden.png")
    ids, files, _ = read_images(tmp_path)
    assert ids == ["b.png", "가/a.jpg"] and all(file.is_file() for file in files)


def test_unlabelled_table_gives_its_path_column_or_its_first(tmp_path):
    assert read_images(table(tmp_path, "n,path\n1,b.png\n2,a.png\n"))[0] == ["a.png", "b.png"]
    ids, files, _ = read_images(table(tmp_path, "image,n\nb.png,1\na.png,2\n"))
    assert ids == ["a.png", "b.png"] and files == [tmp_path / "a.png", tmp_path / "b.png"]


def test_unlabelled_folder_without_images(tmp_path):
    with pytest.raises(UserError) as caught:
        read_images(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: no images in it or below it (endings known: .avif .bmp .gif")


def test_a_fold_of_more_digits_than_a_number_has(tmp_path, paint):
    rows = [f"{paint(tmp_path / f'{n}.png').name},{'ab'[n % 2]},{'9' * 20 if n else 0}" for n in range(4)]
    (tmp_path / "t.csv").write_text("path,label,fold\n" + "\n".join(rows))
    with pytest.raises(UserError, match=r"want 0, 1, \.\.\. without gaps"):
        read_samples(tmp_path / "t.csv", "path", "label", fold="fold")


def test_a_cell_that_points_to_the_root_lists_no_disk(tmp_path, paint):
    """Of a folder outside, the files in it alone are looked at: never what is below it."""
    from ensemble.data.table.find_files import locate

    data = tmp_path / "data"
    paint(data / "a.png")
    paint(tmp_path / "outside" / "c.PNG")
    paint(tmp_path / "outside" / "far" / "b.png")
    listed = []

    def listing(folder):
        listed.append(folder)
        return ["a.png"]

    cells = ["a.png", "../outside/c.png", "../outside/b.png", "/ud800.png", "\\ud800"]
    assert locate(data, cells, listing).files == (data / "a.png", data / "../outside/c.PNG", None, None, None)
    assert listed == [data]
