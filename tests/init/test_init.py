"""`ens init`: what it finds in folders and tables, what it says, and that what it writes is ready to run."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensemble.config import Config, load_config
from ensemble.data.folds import copies, joined, make_folds
from ensemble.data.labelled import read_labelled
from ensemble.data.samples import Samples
from ensemble.errors import UserError
from ensemble.init import init
from ensemble.init.choose import choose_size
from ensemble.init.recipe import choose_schedule

PAINTINGS = Path(__file__).parents[3] / "shared" / "data" / "art-painting"


@pytest.fixture(autouse=True)
def own_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run directories are named from where init is called, and a taken name changes the next."""
    monkeypatch.chdir(tmp_path)


def picture(path: Path, size: tuple[int, int] = (100, 120)) -> None:
    """A small image unlike that of any other path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = np.frombuffer(str(path).encode().ljust(64)[-64:], dtype=np.uint8)
    image = Image.new("RGB", size)
    image.putdata([tuple(int(value) for value in colour[start : start + 3]) for start in range(0, 60, 3)])
    image.save(path)


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for number in range(count):
            picture(root / name / f"{number}.png")
    return root


def table(root: Path, rows: int, **columns: object) -> pd.DataFrame:
    for number in range(rows):
        picture(root / "pics" / f"{number:03}.png")
    return pd.DataFrame({"photo": [f"pics/{number:03}.png" for number in range(rows)], **columns})


def written(data: Path, output: Path, **options: Path | None) -> tuple[Config, Samples, str]:
    """Run init, and read the data as `ens train-folds` would. Also the lines that were said, as one text."""
    said = init(data, options.get("test"), options.get("sample_submission"), output)
    config = load_config(output)
    return config, read_labelled(config), "\n".join(said)


def test_folder_of_class_folders(tmp_path: Path) -> None:
    data = folders(tmp_path / "pets", cat=12, dog=6)
    config, samples, said = written(data, tmp_path / "pets.toml")
    assert len(samples) == 18 and samples.classes == ("cat", "dog")
    assert config.data.train == data and config.run == Path("runs/pets") and config.seed == 0
    assert config.folds.k == 5 and config.data.image_size == 96 and len(config.backbone) == 4
    assert "18 images, 2 classes: cat 12, dog 6" in said
    assert "the largest class has 2.0 times" in said
    assert "every image is 100 px" in said


def test_the_machine_is_looked_at(tmp_path: Path) -> None:
    from ensemble.device import choose_device

    kind = "no GPU, and " if choose_device().type == "cpu" else "GPU, "
    said = init(folders(tmp_path / "d", a=5, b=5), None, None, tmp_path / "e.toml")
    assert any(line.startswith("chosen for this machine") and kind in line for line in said)


def test_train_folder_is_followed_and_test_folder_left(tmp_path: Path) -> None:
    folders(tmp_path / "art" / "train", a=5, b=5)
    folders(tmp_path / "art" / "test", x=3)
    config, samples, said = written(tmp_path / "art", tmp_path / "e.toml", test=tmp_path / "art" / "test")
    assert config.data.train == tmp_path / "art" / "train" and len(samples) == 10
    assert "not trained on: test" in said and "3 test images" in said
    assert config.run == Path("runs/art")


def test_held_out_folders_are_proposed(tmp_path: Path) -> None:
    folders(tmp_path / "d", train__a=5, train__b=5, val__a=2, val__b=2, test=3)
    for place in list((tmp_path / "d").iterdir()):
        part, _, name = place.name.partition("__")
        if name:
            (tmp_path / "d" / part).mkdir(exist_ok=True)
            place.rename(tmp_path / "d" / part / name)
    config, samples, said = written(tmp_path / "d", tmp_path / "e.toml")
    data = tmp_path / "d"
    assert config.data.train == data / "train" and len(samples) == 10
    assert f"{data / 'test'} holds 3 images to predict; to have them compared" in said
    assert f"--test {data / 'test'}" in said and "val (4 images) is held out: ens validates on folds" in said
    assert f"to train on both: ens init {data} --classes 'train/*' --classes 'val/*'" in said
    assert f"tta-predict runs/d {data / 'test'}" in (tmp_path / "e.toml").read_text().replace("\n#", "")
    init(data, None, None, tmp_path / "both.toml", classes=("train/*", "val/*"))
    both = load_config(tmp_path / "both.toml")
    assert both.data.classes == ("train/*", "val/*") and len(read_labelled(both)) == 14


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    _, samples, _ = written(folders(tmp_path / "vehicles", bus=5, train=5), tmp_path / "e.toml")
    assert samples.classes == ("bus", "train")


def test_test_images_among_the_training_images(tmp_path: Path) -> None:
    data = folders(tmp_path / "pets", cat=5, dog=5, test=5)
    with pytest.raises(UserError, match=r"5 of its images are among the training images"):
        init(data, data / "test", None, tmp_path / "f.toml", classes=("*",))
    assert not (tmp_path / "f.toml").exists()
    config, samples, _ = written(data, tmp_path / "e.toml", test=data / "test")
    assert samples.classes == ("cat", "dog") and config.data.classes == ("*", "!test")


def test_csv_with_odd_columns_groups_and_ids(tmp_path: Path) -> None:
    rows = 40
    frame = table(
        tmp_path,
        rows,
        uid=[f"{number:05}" for number in range(rows)],
        Breed=["pug", "husky"] * 20,
        breed_code=["7", "9"] * 20,
        weight=[f"{number / 7:.2f}" for number in range(rows)],
        PatientID=[str(number // 3) for number in range(rows)],
        remark=["a long remark " * 40] * rows,
    )
    frame.to_csv(tmp_path / "dogs.csv", index=False)
    config, samples, said = written(tmp_path / "dogs.csv", tmp_path / "e.toml")
    data = config.data
    assert (data.path, data.label, data.id, data.group) == ("photo", "Breed", "uid", "PatientID")
    assert "groups in 'PatientID'" in said and config.run == Path("runs/dogs")
    assert samples.groups is not None and len(set(samples.groups)) == 14
    assert samples.ids[0] == "00000"


def test_parquet_next_to_its_images_is_found_in_the_folder(tmp_path: Path) -> None:
    frame = table(tmp_path / "set", 20, target=[number % 2 for number in range(20)])
    frame.to_parquet(tmp_path / "set" / "train.parquet")
    picture(tmp_path / "set" / "test" / "1.png")
    pd.DataFrame({"id": ["pics/000.png"], "target": [0]}).to_csv(tmp_path / "set" / "sample_submission.csv")
    config, samples, said = written(tmp_path / "set", tmp_path / "e.toml")
    assert config.data.train == tmp_path / "set" / "train.parquet" and config.data.label == "target"
    assert samples.classes == ("0", "1")
    assert "train.parquet in" in said and "digits or letters, turn hflip off" in said


def test_what_is_no_group(tmp_path: Path) -> None:
    frame = table(
        tmp_path,
        30,
        label=["a", "b", "c"] * 10,
        family=["f", "f", "g"] * 10,  # says nothing that the label does not
        place=[f"place {number // 4}" for number in range(30)],  # group-like, but by its values only
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    config, _, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.data.group is None
    assert "set data.group = 'place'" in said and "family" not in said


def test_group_that_holds_a_whole_class_is_left_out_aloud(tmp_path: Path) -> None:
    groups = [str(number // 2) for number in range(20)] + ["odd"] * 5
    frame = table(tmp_path, 25, label=["a", "b"] * 10 + ["c"] * 5, user=groups)
    frame.to_csv(tmp_path / "t.csv", index=False)
    config, _, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.data.group is None
    assert "groups of 'user' are left out: class 'c' stands in one group only" in said


def test_unsure_between_two_labels_follows_the_submission(tmp_path: Path) -> None:
    frame = table(tmp_path, 20, label=["0", "1"] * 10, class_name=["ham", "spam"] * 10)
    frame.to_csv(tmp_path / "t.csv", index=False)
    config, _, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.data.label == "label"
    assert "'label' is taken for the label rather than 'class_name' (2 values) (to change: data.label)" in said
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"id": ["1", "2"], "answer": ["ham", "ham"]}).to_csv(sample, index=False)
    assert written(tmp_path / "t.csv", tmp_path / "f.toml", sample_submission=sample)[0].data.label == "class_name"


@pytest.mark.parametrize(("first", "used"), [(0, "kfold"), (1, None)])
def test_own_folds_are_used_if_numbered_from_zero(tmp_path: Path, first: int, used: str | None) -> None:
    frame = table(tmp_path, 30, label=["a", "b"] * 15, kfold=[first + number % 3 for number in range(30)])
    frame.to_csv(tmp_path / "t.csv", index=False)
    config, samples, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.folds.fold == used
    assert (samples.folds is not None) == (used is not None)
    assert ("folds are made anew" in said) == (used is None)


@pytest.mark.parametrize(("counts", "k"), [({"a": 9, "b": 3}, 3), ({"a": 9, "b": 5}, 5)])
def test_k_fits_the_smallest_class(tmp_path: Path, counts: dict[str, int], k: int) -> None:
    config, samples, said = written(folders(tmp_path / "d", **counts), tmp_path / "e.toml")
    assert config.folds.k == k
    assert ("3 folds instead of the usual 5: the smallest class, b, has 3 images" in said) == (k == 3)
    assert samples.labels is not None
    assert make_folds(samples.labels, samples.classes, k, 0, None, None).max() == k - 1


def test_k_fits_the_groups_with_copies_joined(tmp_path: Path) -> None:
    frame = table(tmp_path, 24, label=["a", "b"] * 12, user=[f"u{number // 6}" for number in range(24)])
    (tmp_path / "pics" / "000.png").write_bytes((tmp_path / "pics" / "023.png").read_bytes())  # joins u0 and u3
    frame.to_csv(tmp_path / "t.csv", index=False)
    config, samples, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.folds.k == 3 and "there are 3 groups" in said and "1 image is a byte-for-byte copy of another" in said
    assert samples.labels is not None
    make_folds(samples.labels, samples.classes, 3, 0, joined(samples.groups, copies(samples.paths)), None)


def test_class_of_one_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class 'b' has 1 image"):
        init(folders(tmp_path / "d", a=9, b=1), None, None, tmp_path / "e.toml")


@pytest.mark.parametrize("ending", [".png", ""])
def test_images_in_a_folder_below_the_table(tmp_path: Path, ending: str) -> None:
    frame = table(tmp_path, 10, label=["a", "b"] * 5)
    names = [f"{number:03}{ending}" for number in range(10)]
    pd.DataFrame({"image": names, "label": frame["label"]}).to_csv(tmp_path / "t.csv", index=False)
    config, samples, said = written(tmp_path / "t.csv", tmp_path / "e.toml")
    assert config.data.images == tmp_path / "pics" and config.data.path == "image"
    assert [path.name for path in samples.paths] == [f"{number:03}.png" for number in range(10)]
    assert f"their files are in {tmp_path / 'pics'}" in said


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    frame = table(tmp_path, 10, label=["a", "b"] * 5)
    pd.DataFrame({"image": ["gone.png"] * 10, "label": frame["label"]}).to_csv(tmp_path / "t.csv", index=False)
    for data in (tmp_path / "t.csv", tmp_path):
        with pytest.raises(UserError, match=r"no column holds images that are there.*columns: image \('gone\.png', "):
            init(data, None, None, tmp_path / "e.toml")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("pic_00{}.png", "'pic_000.png' is not there; the nearest name is 'pics/000.png'; columns: "),
        ("https://x.org/00{}.png", "'https://x.org/000.png' is an address, and ens fetches nothing: download it"),
    ],
)
def test_names_of_no_image_are_told_the_nearest(tmp_path: Path, cell: str, why: str) -> None:
    frame = table(tmp_path, 10, label=["a", "b"] * 5)
    names = [cell.format(number) for number in range(10)]
    pd.DataFrame({"image": names, "label": frame["label"]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError) as caught:
        init(tmp_path / "t.csv", None, None, tmp_path / "e.toml")
    assert f"no column holds images that are there, seen from {tmp_path}: {why}" in str(caught.value)


def test_test_table_whose_images_lie_elsewhere(tmp_path: Path) -> None:
    data = folders(tmp_path / "train", a=5, b=5)
    (tmp_path / "info.csv").write_text("ImageID,ans\n1.png,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"are those of images in .*/a and in .*/b: .*; --test may also be the folder"):
        init(data, tmp_path / "info.csv", None, tmp_path / "e.toml")
    (tmp_path / "info.csv").write_text("ImageID,ans\n9.png,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"'9.png' is not there.*; --test may also be the folder"):
        init(data, tmp_path / "info.csv", None, tmp_path / "e.toml")


@pytest.mark.parametrize(("one", "zero"), [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("1", "-1"), ("yes", "no")])
def test_one_column_for_each_class(tmp_path: Path, one: str, zero: str) -> None:
    classes = ["healthy", "rust", "scab"]
    columns = {name: [one if row % 3 == place else zero for row in range(12)] for place, name in enumerate(classes)}
    frame = table(tmp_path, 12, **columns)
    frame.to_csv(tmp_path / "t.csv", index=False)
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"photo": ["x"], "scab": [0.3], "healthy": [0.3], "rust": [0.3]}).to_csv(sample, index=False)
    output = tmp_path / "e.toml"
    said = "\n".join(init(tmp_path / "t.csv", None, sample, output))
    config = load_config(output)
    assert config.data.label == ("healthy", "rust", "scab")
    assert (
        "the classes are the columns 'healthy', 'rust', 'scab': each row has exactly one 1 in these 3 columns" in said
    )
    assert "ens tta-predict will write one probability per class" in said
    samples = read_labelled(config)
    assert samples.classes == ("healthy", "rust", "scab") and samples.labels is not None
    assert np.bincount(samples.labels).tolist() == [4, 4, 4] and samples.labels[:3].tolist() == [0, 1, 2]


def test_questions_of_which_none_is_the_label(tmp_path: Path) -> None:
    """Attributes of -1 and 1, findings of -1 (unsure), 0 and 1: the first column alone is not the label."""
    csv = tmp_path / "t.csv"
    table(tmp_path, 12, bald=[1, -1, -1] * 4, smiling=[-1, 1, 1, 1] * 3).to_csv(csv, index=False)
    with pytest.raises(UserError) as caught:
        init(csv, None, None, tmp_path / "e.toml")
    assert str(caught.value).startswith(
        f"{csv}: the columns 'bald', 'smiling' hold -1 and 1, but 3 rows have several 1s (row 4: bald, smiling) and "
    )
    assert str(caught.value).endswith("or one is the question (--label bald: the classes -1 and 1)")
    table(tmp_path, 12, edema=[1, -1, 0] * 4, fracture=[-1, 0, 0, 1] * 3).to_csv(csv, index=False)
    with pytest.raises(UserError) as caught:
        init(csv, None, None, tmp_path / "e.toml")
    assert str(caught.value) == (
        f"{csv}: each of the columns 'edema', 'fracture' holds '-1', '0', '1', and nothing tells which of them is the "
        "label: say which one (--label edema). An image of several labels ens can't train yet; to train on which "
        "column applies, write 1 into that one and 0 into the others"
    )
    init(csv, None, None, tmp_path / "e.toml", label="edema")
    assert read_labelled(load_config(tmp_path / "e.toml")).classes == ("-1", "0", "1")


def test_columns_of_0_and_1_that_are_several_labels(tmp_path: Path) -> None:
    frame = table(tmp_path, 12, a=[1, 0, 0] * 4, b=[0, 1, 1] * 4, c=[0, 0, 1] * 4, d=[1, 0, 0, 0] * 3)
    csv = tmp_path / "t.csv"
    frame.to_csv(csv, index=False)
    with pytest.raises(UserError) as caught:
        init(csv, None, None, tmp_path / "e.toml")
    assert str(caught.value) == (
        f"{csv}: the columns 'a', 'b', 'c', 'd' hold 0 and 1, but 6 rows have several 1s (row 1: a, d). Either an "
        "image has several labels, which ens can't train yet; or only some of these are the classes (--label A,B,C: "
        "one 1 in each row); or one is the question (--label a: the classes 0 and 1)"
    )
    init(csv, None, None, tmp_path / "e.toml", label="a")
    assert read_labelled(load_config(tmp_path / "e.toml")).classes == ("0", "1")
    init(csv, None, None, tmp_path / "f.toml", label=("a", "b"))
    assert read_labelled(load_config(tmp_path / "f.toml")).classes == ("a", "b")
    with pytest.raises(UserError, match=r"rows have several 1s"):
        init(csv, None, None, tmp_path / "g.toml", label=("a", "b", "c"))


def test_a_column_of_0_and_1_beside_the_classes_is_none(tmp_path: Path) -> None:
    columns = {name: [int(row % 3 == place) for row in range(12)] for place, name in enumerate("abc")}
    table(tmp_path, 12, male=[1, 1, 0] * 4, **columns).to_csv(tmp_path / "t.csv", index=False)
    init(tmp_path / "t.csv", None, None, tmp_path / "e.toml")
    assert load_config(tmp_path / "e.toml").data.label == ("a", "b", "c")


def test_names_of_images_in_two_folders(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        for number in range(10):
            picture(tmp_path / folder / f"{number:03}.png")
    csv = tmp_path / "t.csv"
    csv.write_text("image,label\n" + "".join(f"{number:03}.png,{'ab'[number % 2]}\n" for number in range(10)))
    with pytest.raises(UserError) as caught:
        init(csv, None, None, tmp_path / "e.toml")
    first, second = tmp_path / "first", tmp_path / "second"
    assert str(caught.value) == (
        f"{csv}: the names in 'image' are those of images in {first} and in {second}: say which are meant with "
        f"--images {first} (data.images in an experiment file)"
    )
    init(csv, None, None, tmp_path / "e.toml", images=tmp_path / "second")
    assert load_config(tmp_path / "e.toml").data.images == tmp_path / "second"
    (tmp_path / "second").rename(tmp_path / "test")
    said = init(csv, None, None, tmp_path / "f.toml")
    assert load_config(tmp_path / "f.toml").data.images == tmp_path / "first"
    assert any("warning: the names in 'image' are those of images in" in line for line in said)


def test_an_index_that_was_saved_and_lost_zeros(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "pics" / f"{number:04}.png")
    csv = tmp_path / "t.csv"
    pd.DataFrame({"id": range(10), "label": list("ab") * 5}).to_csv(csv)
    config, samples, said = written(csv, tmp_path / "e.toml")
    assert config.data.path == "id" and samples.ids.tolist() == [str(number) for number in range(10)]
    assert "are written without their leading zeros and without their ending: '0' is read as '0000.png'" in said


def test_table_without_a_label(tmp_path: Path) -> None:
    table(tmp_path, 30, note=[f"n{number}" for number in range(30)]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"no column looks like a label.*photo \(30 .*note \(30 different values\)"):
        init(tmp_path / "t.csv", None, None, tmp_path / "e.toml")


def test_two_tables(tmp_path: Path) -> None:
    frame = table(tmp_path, 10, label=["a", "b"] * 5)
    for name in ("one.csv", "two.csv"):
        frame.to_csv(tmp_path / name, index=False)
    with pytest.raises(UserError, match=r"several tables name images and labels \(one.csv, two.csv\)"):
        init(tmp_path, None, None, tmp_path / "e.toml")


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("precious", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.toml: exists already; choose another name with -o, or delete it"):
        init(folders(tmp_path / "d", a=5, b=5), None, None, tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text(encoding="utf-8") == "precious"


def test_korean_names_and_spaces(tmp_path: Path) -> None:
    data = tmp_path / '그림 "모음"'
    folders(data, **{"고양이": 5, unicodedata.normalize("NFD", "강아지"): 6})
    folders(tmp_path / "시험 자료", **{"": 2})
    output = tmp_path / "내 실험.toml"
    config, samples, said = written(data, output, test=tmp_path / "시험 자료")
    assert samples.classes == ("강아지", "고양이") and config.data.train == data
    assert config.run == Path("runs") / '그림 "모음"'
    assert "강아지 6, 고양이 5" in said and f"ens train-folds '{output}'" in said
    head = output.read_text(encoding="utf-8")
    assert (
        f"""# ens tta-predict 'runs/그림 "모음"' '{tmp_path}/시험 자료' -o submission.csv""".replace("# ", "") in head
    )


def test_a_name_with_a_line_break_stays_in_its_comment(tmp_path: Path) -> None:
    frame = table(tmp_path, 10, label=["one\nk = 99", "b"] * 5)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert written(tmp_path / "t.csv", tmp_path / "e.toml")[0].folds.k == 5


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["x/0.png", "x/1.png", "x/2.png"], "'id' holds each image's path: 3 of 3"),
        (["0.png", "1.png", "2.png"], "'id' holds each image's file name: 3 of 3"),
        (
            ["0", "1"],
            "'id' holds each image's file name without ending: 2 of 2 are test images\n",
        ),
        (
            ["0", "1", "7"],
            "id '7' is not there (1 of 3 ids have no image of their own; the images are named like 'x/0.",
        ),
        (["0", "1"], "\n1 test images are not asked for in it\n"),
        (["0", "1", "7"], "\n2 of 3 in its 'id' are test images"),
        (["p", "q"], "nothing in its 'id' is a test image: it has 'p', the images are 'x/0.png'"),
        (["test/x/0.JPG", "x/1.JPG "], "'id' holds each image's name, written otherwise: 2 of 2 are test images"),
    ],
)
def test_submission_ids(tmp_path: Path, ids: list[str], expected: str) -> None:
    data, test = folders(tmp_path / "train", a=5, b=5), folders(tmp_path / "test", x=3)
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"id": ids, "label": "a"}).to_csv(sample, index=False)
    _, _, said = written(data, tmp_path / "e.toml", test=test, sample_submission=sample)
    assert expected in said
    assert ("will write class names as in the training labels: a, b" in said) == ("no image" not in said)
    command = f"tta-predict runs/{tmp_path.name} {test} --sample-submission {sample} -o submission.csv"
    assert command in (tmp_path / "e.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"y": ["0", "2"]}, "will write class numbers: 0 = a, 1 = b, 2 = c"),
        ({"y": ["?", "a"]}, "sample.csv: 'y' holds '?', which is no class"),
        ({"c": [0, 0], "a": [0, 0], "b": [0, 0]}, "will write one probability per class"),
        ({"p": [0, 0], "q": [0, 0]}, "sample.csv: its 2 answer columns are not the 3 classes: p, q; ens writes"),
    ],
)
def test_submission_answers(tmp_path: Path, answers: dict[str, list[str]], expected: str) -> None:
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"id": ["1", "2"], **answers}).to_csv(sample, index=False)
    data = folders(tmp_path / "train", a=5, b=5, c=5)
    _, _, said = written(data, tmp_path / "e.toml", sample_submission=sample)
    assert expected in said and "no --test was given" in said


def test_sizes_and_schedule() -> None:
    assert choose_size(np.array([28, 28, 28]), 1000)[0] == 96
    assert choose_size(np.array([150, 161, 900]), 1000)[0] == 160
    assert choose_size(np.array([480]), 1000)[0] == 224
    assert choose_size(np.array([1080]), 1000)[0] == 288
    assert choose_size(np.array([1080]), 100_000)[0] == 224
    rows = [100, 1000, 5000, 20_000, 1_000_000]
    epochs = [choose_schedule(count)[0] for count in rows]
    assert epochs == sorted(epochs, reverse=True) and len(set(epochs)) == 5


def test_tiny_images_get_advice_on_training_from_scratch(tmp_path: Path) -> None:
    for number in range(10):
        picture(tmp_path / "d" / "ab"[number % 2] / f"{number}.png", (28, 28))
    config, _, _ = written(tmp_path / "d", tmp_path / "e.toml")
    assert config.data.image_size == 96
    assert "trained from scratch" in (tmp_path / "e.toml").read_text(encoding="utf-8")


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    data = folders(tmp_path / "d", a=5, b=5)
    (data / "a" / "9.png").write_text("not an image", encoding="utf-8")
    with pytest.raises(UserError, match=r"9.png: not a readable image"):
        init(data, None, None, tmp_path / "e.toml")


def test_run_directory_of_another_experiment_is_not_taken(tmp_path: Path) -> None:
    folders(Path("pets"), a=5, b=5)
    Path("runs/pets").mkdir(parents=True)
    config, _, said = written(Path("pets"), Path("e.toml"))
    assert config.run == Path("runs/pets-2") and config.data.train == Path("pets")
    assert "runs/pets is there already, so this run is named runs/pets-2" in said


def test_loads_no_torch() -> None:
    code = "import sys, ensemble.init; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not PAINTINGS.is_dir(), reason="the shared art paintings are not there")
def test_art_paintings(tmp_path: Path) -> None:
    config, samples, said = written(
        PAINTINGS / "train",
        tmp_path / "art.toml",
        test=PAINTINGS / "test",
        sample_submission=PAINTINGS / "sample_submission.csv",
    )
    assert len(samples) == 1698 and config.data.image_size in (192, 224)
    assert config.run == Path("runs/art-painting")
    assert "'id' holds each image's file name: 350 of 350" in said and "will write class names as in the" in said


@pytest.mark.parametrize("odd", ["inf", "nan", "1e999", "0.7", "1.5"])
def test_a_fold_column_that_holds_no_whole_numbers_is_said(tmp_path, paint, odd):
    from ensemble.data.table.columns import find_columns
    from ensemble.data.table.read import read_table

    rows = [f"{paint(tmp_path / f'{n}.png').name},{'ab'[n % 2]},{odd if n else 0}" for n in range(6)]
    (tmp_path / "train.csv").write_text("path,label,fold\n" + "\n".join(rows))
    found = find_columns(tmp_path / "train.csv", read_table(tmp_path / "train.csv"))
    assert found.fold is None and any("is named like your own folds but holds" in note for note in found.notes)
