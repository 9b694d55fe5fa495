"""Data sets as they are unpacked: where the labelled images lie, and when that is not for ens to guess."""

from pathlib import Path

import pytest

from ensemble.data.folders.class_folders import tree
from ensemble.data.folders.layout import follow
from ensemble.data.folders.listing import list_folder
from ensemble.data.folders.splits import role_of, roles
from ensemble.data.samples import read_class_folders, read_images
from ensemble.errors import UserError


def fill(root: Path, **folders: int) -> Path:
    """Empty files that are images by their endings; a folder is named by its path with __ for /, . stays."""
    for name, count in folders.items():
        place = root / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / f"{number}.png").touch()
    return root


def unpacked(root: Path, *folders: str) -> Path:
    """Two images in each of these folders, or as many as are written behind a colon."""
    return fill(root, **{name.partition(":")[0]: int(name.partition(":")[2] or 2) for name in folders})


def refusal(root: Path, *classes: str) -> str:
    with pytest.raises(UserError) as caught:
        read_class_folders(root, classes)
    return str(caught.value).replace(str(root), "DATA")


FOLLOWED = {
    "kaggle": (["training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"], "training_set"),
    "intel": (
        ["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_pred"],
        "seg_train/seg_train",
    ),
    "x": (["x_train/x_train/A", "x_train/x_train/B", "x_test/x_test"], "x_train/x_train"),
    "unlabeled": (["train/a", "train/b", "unlabeled"], "train"),
    "dirs": (["train_dir/a", "train_dir/b", "val_dir/a", "val_dir/b"], "train_dir"),
    "cub": (["images/001.a", "images/002.b", "segmentations/001.a", "segmentations/002.b"], "images"),
    "imagenet": (
        ["ILSVRC/Data/CLS-LOC/train/n01440764", "ILSVRC/Data/CLS-LOC/train/n01443537", "ILSVRC/Data/CLS-LOC/val",
         "ILSVRC/Data/CLS-LOC/test"],
        "ILSVRC/Data/CLS-LOC/train",
    ),
    "wrapped": (["set/set/train/a", "set/set/train/b", "set/set/valid/a"], "set/set/train"),
    "capitals": (["Fruits_Training/a", "Fruits_Training/b", "Fruits_Test/a", "Fruits_Test/b"], "Fruits_Training"),
    "extra": (["Training/a", "Training/b", "Test/a", "Test/b", "papers"], "Training"),
    "sample": (["train/a", "train/b", "sample"], "train"),
    "numbers": (["train2017/a", "train2017/b", "val2017/a"], "train2017"),
    "images": (["TrainImages/a", "TrainImages/b", "train-masks/a", "train-masks/b"], "TrainImages"),
    "petimages": (["PetImages/Cat", "PetImages/Dog"], "PetImages"),
    "korean": (["훈련/개", "훈련/소", "시험/개", "검증/소"], "훈련"),
    "macosx": (["train/a", "train/b", "__MACOSX/train/a", ".ipynb_checkpoints"], "train"),
    "masks beside one": (["CUB/a", "CUB/b", "segmentations"], "CUB"),
}  # fmt: skip


@pytest.mark.parametrize(("folders", "source"), FOLLOWED.values(), ids=FOLLOWED)
def test_one_reading_is_followed(tmp_path: Path, folders: list[str], source: str) -> None:
    unpacked(tmp_path, *folders)
    found = follow(tree(list_folder(tmp_path)))
    assert found.folder.path == tmp_path / source
    assert read_class_folders(tmp_path).fingerprint() == read_class_folders(tmp_path / source).fingerprint()
    assert follow(found.folder).folder is found.folder  # what init writes is read as it is


CLASSES = {
    "train": ["bus", "car", "train"],
    "two": ["bus", "train"],
    "test": ["control", "test"],
    "valid": ["valid", "invalid"],
    "stations": ["train_station", "bus_station", "test_tube"],
    "masks": ["hats", "masks", "shoes"],
    "images": ["images", "videos", "texts"],
    "one deep": ["cat/all", "dog"],
    "wrapped": ["cat/cat", "dog/dog"],
    "sessions": ["cat/1", "cat/2", "dog/1", "dog/2"],
    "films": ["cat/film1", "cat/film2", "dog/film3", "dog/film4"],
    "digits": ["0", "1", "2"],
}


@pytest.mark.parametrize("folders", CLASSES.values(), ids=CLASSES)
def test_true_classes_are_left_alone(tmp_path: Path, folders: list[str]) -> None:
    samples = read_class_folders(unpacked(tmp_path, *folders))
    assert samples.classes == tuple(sorted({name.split("/")[0] for name in folders}))
    assert len(samples) == 2 * len(folders)


SEVERAL = {
    "a class called train, and sets below": (
        ["train/steam", "train/diesel", "bus/old", "bus/new", "car/red", "car/blue"],
        ["3 classes (bus 4, car 4, train 4): --classes '*'", "in train 2 classes (diesel 2, steam 2): name DATA/train"],
    ),
    "test beside classes": (
        ["cat", "dog", "test:3"],
        ["3 classes (cat 2, dog 2, test 3): --classes '*'",
         "2 classes (cat 2, dog 2), without test: --classes '*' --classes '!test'"],
    ),
    "two train folders": (
        ["train_1/a", "train_1/b", "train_2/a", "train_2/b", "test"],
        ["name DATA/train_1 instead", "in all of them together 2 classes (a 4, b 4): --classes 'train_1/*' --classes"],
    ),
    "persons": (
        ["anna/happy", "anna/sad", "ben/happy", "ben/sad"],
        ["2 classes (anna 4, ben 4)", "in all of them together 2 classes (happy 4, sad 4): --classes '*/*'"],
    ),
    "renderings": (
        ["color/a", "color/b", "grayscale/a", "grayscale/b"],
        ["in color 2 classes (a 2, b 2): name DATA/color instead"],
    ),
    "kinds of kinds": (
        ["animals/cat", "animals/dog", "vehicles/bus", "vehicles/car"],
        ["(4) in all of them together 4 classes (cat 2, dog 2, bus 2, car 2): --classes '*/*'"],
    ),
    "held-out alone": (["test/a", "test/b", "val/a", "val/b"], ["name DATA/test instead", "name DATA/val instead"]),
    "a second copy": (
        ["chest/train/a", "chest/train/b", "train/a", "train/b", "test/a", "test/b"],
        ["in train 2 classes (a 2, b 2): name DATA/train instead",
         "in chest 2 classes (a 2, b 2): name DATA/chest/train",
         "together 2 classes (a 4, b 4): --classes 'train/*' --classes 'chest/train/*'"],
    ),
    "labels in the names": (
        ["dogs_train", "cats_train", "dogs_test", "cats_test"],
        ["(2) parts of a data set without class folders: name a CSV"],
    ),
    "held-out and plain": (["pets/a", "pets/b", "test"], ["in pets 2 classes (a 2, b 2): name DATA/pets instead"]),
}  # fmt: skip


@pytest.mark.parametrize(("folders", "wanted"), SEVERAL.values(), ids=SEVERAL)
def test_several_readings_are_named(tmp_path: Path, folders: list[str], wanted: list[str]) -> None:
    text = refusal(unpacked(tmp_path, *folders))
    assert "its folders can be read in" in text and "(2)" in text
    for part in wanted:
        assert part in text


def test_held_out_images_alone_are_not_trained_on_unasked(tmp_path: Path) -> None:
    unpacked(tmp_path, "val/a", "val/b")
    (tmp_path / "train").mkdir()
    assert refusal(tmp_path) == (
        "DATA: val is the only folder with images in it, and named like held-out ones; to train on these, name DATA/val"
    )
    assert len(read_class_folders(tmp_path / "val")) == 4


def test_patterns_choose_the_class_folders(tmp_path: Path) -> None:
    unpacked(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog:1", "test")
    both = read_class_folders(tmp_path, ["train/*", "val/*"])
    assert both.classes == ("cat", "dog") and len(both) == 7
    assert both.ids.tolist()[0] == "train/cat/0.png" and both.ids.tolist()[-1] == "val/dog/0.png"
    assert both.labels is not None and both.labels.tolist() == [0, 0, 1, 1, 0, 0, 1]
    assert both.notes == ("not trained on: 2 images outside of the class folders (test/0.png, test/1.png)",)
    assert read_class_folders(tmp_path, ["*"]).classes == ("test", "train", "val")
    assert read_class_folders(tmp_path, ["*", "!te?t"]).classes == ("train", "val")
    assert "matches 'tran/*' of --classes" in refusal(tmp_path, "tran/*")
    assert "and --classes (data.classes) names both as class folders" in refusal(tmp_path, "*", "train/*")


def test_a_flat_train_folder_needs_labels(tmp_path: Path) -> None:
    for name in ("train/cat.0.jpg", "train/cat.1.jpg", "train/dog.0.jpg", "train/dog.1.jpg", "test1/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert refusal(tmp_path) == (
        "DATA/train: its 4 images ('cat.0.jpg', ...) lie outside any class folder; want one folder per class: "
        "train/<class>/*.jpg, or a CSV with the columns path and label, for which the file names may do: 2 classes "
        "(cat 2, dog 2). Or if the folders in DATA are the classes, 2 classes (test1 1, train 4): --classes '*'"
    )
    assert read_class_folders(tmp_path, ["*"]).classes == ("test1", "train")
    voc = unpacked(tmp_path / "voc", "VOC2012/JPEGImages", "VOC2012/SegmentationClass")
    assert "JPEGImages: its 2 images ('0.png', ...) lie outside" in refusal(voc)


def test_what_was_followed_is_said(tmp_path: Path) -> None:
    unpacked(tmp_path, "seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test", "seg_val/a")
    notes = [note.replace(str(tmp_path), "DATA") for note in read_class_folders(tmp_path).notes]
    assert notes == [
        "seg_train in DATA holds the training images; not trained on: seg_test (2 images), seg_val (2 images)",
        "seg_train in DATA/seg_train holds the training images",
    ]
    found = follow(tree(list_folder(tmp_path)))
    assert [place.path.name for place in (*found.test, *found.validation)] == ["seg_test", "seg_val"]
    (sessions,) = read_class_folders(unpacked(tmp_path / "s", "cat/1", "cat/2", "dog/1", "dog/2")).notes
    assert "taken for the classes, and those in them (1, 2, ...) for parts of these" in sessions


def test_a_whole_data_set_is_no_test_set(tmp_path: Path) -> None:
    unpacked(tmp_path, "data/train/a", "data/test/x")
    with pytest.raises(UserError, match=r"several parts of a data set; name the one to predict: .*test \(2 images\)"):
        read_images(tmp_path)
    assert read_images(tmp_path / "data" / "test")[0] == ["x/0.png", "x/1.png"]
    assert len(read_images(unpacked(tmp_path / "vehicles", "bus", "car", "train"))[0]) == 6


@pytest.mark.parametrize(
    ("name", "role"),
    {
        "train": ("training", ""), "Train_2": ("training", ""), "TrainingSet": ("training", ""),
        "trainset": ("training", ""), "x_train": ("training", ""), "seg_train": ("training", "seg"),
        "test1": ("test", ""), "testData": ("test", ""), "unlabeled_train": ("test", ""), "valid": ("validation", ""),
        "train_labels": ("beside", ""), "JPEGImages": ("images", ""), "train_station": ("training", "station"),
        "trainee": (None, "trainee"), "contest": (None, "contest"), "시험_자료": ("test", "자료"),
    }.items(),
)  # fmt: skip
def test_what_names_say(name: str, role: tuple[str | None, str]) -> None:
    assert role_of(name) == role


def test_a_name_with_a_rest_needs_its_counterpart() -> None:
    assert roles(["train_station", "bus_station"]) == {}
    assert roles(["dogs_train", "dogs_test", "cats"]) == {"dogs_train": "training", "dogs_test": "test"}
