"""Doubtful labels: found, written, edited, merged, and trained on."""

import csv
import unicodedata

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

from ensemble.blend import BlendOptions, blend_run
from ensemble.config import load_config
from ensemble.data.corrections import corrected, read_new_labels
from ensemble.data.samples import Samples, read_samples
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.report.relabel import COLUMNS, find_label_errors, write_relabel
from ensemble.run import Run
from ensemble.train.jobs import train_folds
from ensemble.train.setup import read_data

COLOURS = {"말": (220, 40, 40), "a, b": (40, 220, 40), "<b>": (40, 40, 220)}
FLIPPED = {"말/a, b-00.png", "a, b/말-01.png", "<b>/말-02.png"}  # folder: the label given; name: what it shows


@pytest.fixture(scope="module")
def flipped(tmp_path_factory, cache_of_the_tests):
    """A trained and blended run on images of one colour a class, three of which lie in another class's folder."""
    folder = tmp_path_factory.mktemp("flipped")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for number in range(16):
            own = f"{name}-{number:02}.png"
            label = next((id_.split("/")[0] for id_ in FLIPPED if id_.endswith(f"/{own}")), name)
            path = folder / "train" / label / own
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.normal(0, 12, (32, 32, 3))
            Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    (folder / "e.toml").write_text(
        f'run = "{folder / "run"}"\nworkers = 1\n[data]\ntrain = "{folder / "train"}"\nimage_size = 32\n'
        f'cache = "{cache_of_the_tests}"\n[folds]\nk = 2\n[train]\nepochs = 6\nbatch_size = 8\nlr = 0.01\nema = 0\n'
        'dtype = "float32"\nmemory_format = "channels_last"\n'
        '[[backbone]]\nname = "resnet"\ntimm = "test_resnet"\npretrained = false\n'
        '[[backbone]]\nname = "byobnet"\ntimm = "test_byobnet"\npretrained = false\n',
        encoding="utf-8",
    )
    assert train_folds(load_config(folder / "e.toml"), SILENT) == []
    blend_run(Run(folder / "run"), BlendOptions("mean"))
    return folder


def lines_of(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_candidates_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    first = np.array([0.9, 0.8, 0.04, 0.2, 0.05, 0.95, 0.3])
    probabilities = np.stack([first, 1 - first], axis=1)
    predicted = np.array([[0, 0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1]])
    # Means of the label's own probability: class 0 0.51, class 1 0.6. Row 2: 0.04 < 0.1 x 0.96, and 0.96 >= 0.6.
    # Row 5: 0.05 < 0.1 x 0.95, and 0.95 >= 0.51. Row 6 is against its label too, but not by ten times.
    found = find_label_errors(labels, probabilities, predicted)
    assert found.rows.tolist() == [2, 5]
    assert found.suggested.tolist() == [1, 0]
    assert found.votes.tolist() == [1, 1]
    assert found.copy.tolist() == [-1, -1]


def test_a_class_less_sure_than_usual_needs_all_members():
    """Class 1 is 0.99 for its own rows. Row 0 holds it for 0.95: too little for itself, enough with all members."""
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.05, 0.95], [0.9, 0.1], [0.01, 0.99], [0.01, 0.99]])
    one_agrees = np.array([[1, 0, 1, 1], [0, 0, 1, 1]])
    assert find_label_errors(labels, probabilities, one_agrees).rows.tolist() == []
    assert find_label_errors(labels, probabilities, one_agrees[:1]).rows.tolist() == [0]


def test_a_class_without_rows_is_not_suggested_for_being_usual():
    labels = np.array([0, 0])
    probabilities = np.array([[0.05, 0.95], [0.9, 0.1]])
    assert len(find_label_errors(labels, probabilities, np.array([[0, 0]]))) == 0


def test_copies_with_another_label_are_candidates_and_suggest_it():
    labels = np.array([0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.8, 0.2]])
    found = find_label_errors(labels, probabilities, np.array([[0, 1, 1, 0]]), [(0, 1), (0, 3)])
    assert found.rows.tolist() == [1, 0]  # the less probable label first; 0 and 3 agree
    assert found.suggested.tolist() == [0, 1]
    assert found.copy.tolist() == [0, 1]
    assert found.votes.tolist() == [0, 0]


def test_planted_flips_come_first(flipped, tmp_path):
    said = []
    path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", Recorder(said))
    lines = lines_of(path)
    assert {line["id"] for line in lines[:3]} == FLIPPED
    assert len(lines) <= 6
    for line in lines[:3]:
        assert line["suggested"] == line["id"].split("/")[1].rsplit("-", 1)[0]
        assert line["label"] == line["id"].split("/")[0]
        assert line["votes"] == f"2 of 2 predict {line['suggested']}"
        assert float(line["p_label"]) < 0.1 * float(line["p_suggested"])
        assert line["path"] == str(flipped / "train" / line["id"])
    assert [line["rank"] for line in lines] == [str(1 + at) for at in range(len(lines))]
    assert [float(line["p_label"]) for line in lines] == sorted(float(line["p_label"]) for line in lines)
    assert said[0] == f"{path}: {len(lines)} of 48 labels are doubtful, the most doubtful first"
    assert f"--set data.relabel={path}" in said[1]


def test_the_file_opens_in_excel_and_is_empty_where_the_user_writes(flipped, tmp_path):
    path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", SILENT)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,path,label,suggested,new_label,")
    assert list(lines_of(path)[0]) == list(COLUMNS)
    assert {line["new_label"] for line in lines_of(path)} == {""}
    assert set(read_new_labels(path)) >= FLIPPED


def test_entries_columns_and_lost_rows_survive_a_second_writing(flipped, tmp_path):
    path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", SILENT)
    lines = lines_of(path)
    lines[1] |= {"new_label": "a, b"}
    lines = [line | {"comment": f"n{at}"} for at, line in enumerate(lines)]
    gone = dict.fromkeys(COLUMNS, "") | {"comment": "mine"}
    lines += [gone | {"id": "말/말-05.png", "new_label": "drop"}, gone | {"id": "말/말-06.png"}]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, "comment"])
        table.writeheader()
        table.writerows(lines)
    said = []
    write_relabel(Run(flipped / "run"), path, Recorder(said))
    again = lines_of(path)
    assert again == lines[:-1]  # the row without an entry was not the user's
    assert said[0].endswith("; 2 entries in new_label kept")


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_what_a_spreadsheet_parts_by_another_character_is_read_and_kept(flipped, tmp_path, delimiter):
    path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", SILENT)
    lines = lines_of(path)
    entries = {lines[0]["id"]: "a, b", lines[1]["id"]: "drop"}
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        table.writeheader()
        table.writerows(line | {"new_label": entries.get(line["id"], "")} for line in lines)
    written = path.read_bytes()
    assert {name: new for name, new in read_new_labels(path).items() if new} == entries
    write_relabel(Run(flipped / "run"), path, SILENT)
    assert path.read_bytes() == written


def test_what_a_korean_spreadsheet_saved_is_read(tmp_path):
    path = tmp_path / "relabel.csv"
    path.write_bytes("id;new_label\r\n사진1;고양이\r\n사진2;drop\r\n".encode("cp949"))
    assert read_new_labels(path) == {"사진1": "고양이", "사진2": "drop"}


def test_where_no_label_is_doubtful_that_is_said(flipped, tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble.report.relabel.RATIO", 0.0)  # no label is so improbable
    said = []
    path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", Recorder(said))
    assert said == [f"{path}: none of 48 labels is doubtful, so there is nothing to check"]
    assert path.read_text(encoding="utf-8-sig") == ",".join(COLUMNS) + "\n"
    write_relabel(Run(flipped / "run"), path, Recorder(said))  # nor is that file in the way
    assert lines_of(path) == [] and len(said) == 2
    config = load_config(flipped / "e.toml", (f"data.relabel={path}",))
    assert read_data(config, Recorder(said)).corrections == (0, 0)
    assert said[2:] == [f"0 labels changed, 0 rows dropped by {path}"]
    row = dict.fromkeys(COLUMNS, "") | {"id": "말/말-05.png", "new_label": "drop"}
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, COLUMNS).writerow(row)
    write_relabel(Run(flipped / "run"), path, Recorder(said))
    assert lines_of(path) == [row] and said[-1].endswith("nothing to check; 1 entry in new_label kept")


def test_the_command_that_is_told_can_be_pasted(flipped, tmp_path):
    said = []
    path = write_relabel(Run(flipped / "run"), tmp_path / "look again.csv", Recorder(said))
    assert f"--set 'data.relabel={path}' --set run=" in said[1]


def test_a_file_in_the_way_is_left_alone(flipped, tmp_path):
    path = tmp_path / "relabel.csv"
    path.write_text("id,label\na,b\n")
    with pytest.raises(UserError) as error:
        write_relabel(Run(flipped / "run"), path, SILENT)
    assert str(error.value) == (
        f"{path}: no column 'new_label'; it has: id, label (write one with: ens relabel RUN); "
        "it is in the way: name another file with -o"
    )
    assert path.read_text() == "id,label\na,b\n"


def test_paths_stay_empty_where_the_images_are_gone(flipped, tmp_path):
    config = Run(flipped / "run").config_toml
    text = config.read_text(encoding="utf-8")
    Run(flipped / "run").write_config(text.partition("# checksum")[0].replace('train"', 'moved"'))
    said = []
    try:
        path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", Recorder(said))
    finally:
        config.write_text(text, encoding="utf-8")
    assert {line["path"] for line in lines_of(path)} == {""}
    assert said[0].startswith(
        f"warning: the column path stays empty ({flipped / 'moved'}: no such file or folder; paths"
    )


def test_a_configuration_that_was_edited_is_said(flipped, tmp_path):
    config = Run(flipped / "run").config_toml
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('train"', 'moved"'), encoding="utf-8")
    said = []
    try:
        path = write_relabel(Run(flipped / "run"), tmp_path / "relabel.csv", Recorder(said))
    finally:
        config.write_text(text, encoding="utf-8")
    assert {line["path"] for line in lines_of(path)} == {""}
    assert said[0].startswith(f"warning: {config}: damaged: its bytes are not those that ens wrote; lost: the exp")
    assert "with this one if it was you who edited it" in said[0]


def test_training_takes_the_edited_file(flipped, tmp_path):
    path = write_relabel(Run(flipped / "run"), tmp_path / "다시.csv", SILENT)
    lines = lines_of(path)
    entries = {
        "말/a, b-00.png": "a, b",  # changed
        "a, b/말-01.png": " Keep ",
        "<b>/말-02.png": "DROP",
    }
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(line | {"new_label": entries.get(line["id"], "")} for line in lines)
    changes = (f"data.relabel={path}", "train.epochs=1", "backbone.byobnet.train.epochs=1")
    said = []
    with pytest.raises(UserError) as error:
        train_folds(load_config(flipped / "e.toml", changes), Recorder(said))
    assert str(error.value) == (
        f'{flipped / "run"}: holds a run with another relabel (null; now {{"labels changed": 1, "rows dropped": 1}}): '
        "set it back, or give this run a directory of its own (run = ...)"
    )
    assert said == [
        f"1 label changed, 1 row dropped by {path}; labels that were changed or dropped because networks disagreed "
        "with them make out-of-fold scores optimistic"
    ]
    run = tmp_path / "run"
    config = load_config(flipped / "e.toml", (*changes, f"run={run}"))
    assert train_folds(config, SILENT) == []
    labels = {line["id"]: line["label"] for line in lines_of(Run(run).folds_csv)}
    assert len(labels) == 47
    assert "<b>/말-02.png" not in labels
    assert labels["말/a, b-00.png"] == "a, b"
    assert labels["a, b/말-01.png"] == "a, b"
    results = read_json(Run(run).provenance_json)["facts"]
    assert results["relabel"] == {"labels changed": 1, "rows dropped": 1}
    assert load_config(Run(run).config_toml).data.relabel == path
    # With the new run, the entries stay although the dropped row is not in it.
    write_relabel(Run(run), path, SILENT)
    assert {name: new for name, new in read_new_labels(path).items() if new} == {
        name: new.strip() for name, new in entries.items()
    }


def test_a_run_from_before_goes_on_without_relabel(flipped):
    """provenance.json of older runs has no word of it."""
    path = Run(flipped / "run").provenance_json
    text = path.read_text(encoding="utf-8")
    held = read_json(path)
    assert held["facts"].pop("relabel") is None
    write_json(path, held)
    try:
        assert train_folds(load_config(flipped / "e.toml"), SILENT) == []
    finally:
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def samples(paint, tmp_path):
    """Four images: a/1.png, a/2.png of 말, b/3.png, b/4.png of the class "b, c"."""
    rows = ["path,label,weight,who,fold"]
    for name, label, number in (("a/1", "말", 1), ("a/2", "말", 2), ("b/3", '"b, c"', 3), ("b/4", '"b, c"', 4)):
        paint(tmp_path / f"{name}.png")
        rows.append(f"{name}.png,{label},{number},p{number},{number % 2}")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_samples(tmp_path / "t.csv", weight="weight", group="who", fold="fold")


def edited(folder, *rows):
    path = folder / "relabel.csv"
    path.write_text("id,new_label\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8-sig")
    return path


def test_labels_change_and_rows_leave_with_all_that_is_theirs(samples, tmp_path):
    new = corrected(samples, edited(tmp_path, 'a/1.png,"b, c"', "b/3.png,drop", "a/2.png,말", "b/4.png,"))
    assert new.ids.tolist() == ["a/1.png", "a/2.png", "b/4.png"]
    assert [new.classes[label] for label in new.labels] == ["b, c", "말", "b, c"]
    assert [path.name for path in new.paths] == ["1.png", "2.png", "4.png"]
    assert new.weights.tolist() == [1, 2, 4]
    assert new.groups.tolist() == ["p1", "p2", "p4"]
    assert new.folds.tolist() == [1, 0, 0]
    assert new.corrections == (1, 1)  # 말 was 말 before
    assert new.fingerprint() != samples.fingerprint()
    assert samples.labels.tolist() == [1, 1, 0, 0]  # as they were


def test_a_row_that_is_dropped_is_not_counted_as_changed(samples, tmp_path):
    assert corrected(samples, edited(tmp_path, "a/1.png,drop")).corrections == (0, 1)


def test_nothing_entered_changes_nothing(samples, tmp_path):
    new = corrected(samples, edited(tmp_path, "a/1.png,", "b/3.png,keep"))
    assert new.corrections == (0, 0)
    assert new.fingerprint() == samples.fingerprint()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ["a/9.png,말"],
            "id 'a/9.png' is not in the data; the nearest is 'a/2.png': remove its row, or mend data.relabel",
        ),
        (
            ["a/1.png,bc"],
            "row 'a/1.png': new_label 'bc' is not one of the 2 classes (the nearest is 'b, c'); give one of them, "
            "'keep' or 'drop': a new class has to be in the data",
        ),
        (["a/1.png,drop", "a/1.png,"], "id 'a/1.png' is there twice; leave one of its rows"),
        (["a/1.png,drop", "a/2.png,drop"], "leaves class '말' without rows; keep some of it"),
    ],
)
def test_what_does_not_fit_is_said(samples, tmp_path, rows, message):
    path = edited(tmp_path, *rows)
    with pytest.raises(UserError) as error:
        corrected(samples, path)
    assert str(error.value) == f"{path}: {message}"


def test_decomposed_ids_and_labels_are_known(samples, tmp_path):
    """As macOS and some spreadsheets write them."""
    path = edited(tmp_path, unicodedata.normalize("NFD", "b/3.png,말"))
    assert corrected(samples, path).corrections == (1, 0)


def test_a_class_named_as_a_word_of_the_file_is_refused(tmp_path):
    samples = Samples(np.array(["1", "2"]), (tmp_path, tmp_path), np.array([0, 1]), ("drop", "keep"))
    with pytest.raises(UserError, match="row '1': 'keep' is also a class, so it can't be told which is meant"):
        corrected(samples, edited(tmp_path, "1,keep"))
