"""Which file each written name means."""

import pytest

from ensemble.data import names
from ensemble.data.names import is_address, match_names, why_not

THERE = [
    "cat/001.jpg", "cat/002.JPG", "dog/0007.png", "dog/a b.jpeg", "dog/x.jpg", "dog/x.png", "Owl/é.jpg", "dog/12.jpg",
    "photo.2019.jpg",
]  # fmt: skip


def means(written, there=THERE):
    """The file that this one name means, or why it means none."""
    matched = match_names([written], there)
    return there[matched.rows[0]] if matched.rows[0] >= 0 else why_not(written, 0, matched, there)


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("cat/001.jpg", "cat/001.jpg"),
        ("cat\\001.jpg", "cat/001.jpg"),
        (".\\cat\\001.jpg", "cat/001.jpg"),
        ("./cat//001.jpg", "cat/001.jpg"),
        (" 001.jpg ", "cat/001.jpg"),
        ("'001.jpg'", "cat/001.jpg"),
        ("002.jpg", "cat/002.JPG"),
        ("002", "cat/002.JPG"),
        ("002.png", "cat/002.JPG"),
        ("CAT/002.PNG", "cat/002.JPG"),
        ("7", "dog/0007.png"),
        ("7.0", "dog/0007.png"),
        ("7.jpg", "dog/0007.png"),
        ("dog/7.png", "dog/0007.png"),
        ("a b", "dog/a b.jpeg"),
        ("x.jpg", "dog/x.jpg"),
        ("/home/u/train/cat/001.jpg", "cat/001.jpg"),
        ("C:\\Users\\me\\cat\\2.jpg", "cat/002.JPG"),
        ("owl/e\u0301.jpg", "Owl/é.jpg"),
        ("photo.2019", "photo.2019.jpg"),
    ],
)
def test_a_name_that_means_one_file(written, file):
    assert means(written) == file


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("x", "'x' could be 'dog/x.jpg' or 'dog/x.png' (2 files): write the path in full"),
        ("x.gif", "'x.gif' could be 'dog/x.jpg' or 'dog/x.png' (2 files): write the path in full"),
        ("cat/12.jpg", "'cat/12.jpg' is not there; the nearest name is 'dog/12.jpg'"),
        ("a_b.jpeg", "'a_b.jpeg' is not there; the nearest name is 'dog/a b.jpeg'"),
        ("013", "'013' is not there; the nearest name is 'cat/001.jpg'"),
        ("photo", "'photo' is not there; the nearest name is 'photo.2019.jpg'"),
        ("", "'' is not there"),
        ("words " * 60, f"{'words ' * 60!r} is not there"),
        (
            "https://x.org/001.jpg",
            "'https://x.org/001.jpg' is an address, and ens fetches nothing: download it, and write the path of the "
            "file",
        ),
    ],
)
def test_a_name_that_means_none(written, why):
    assert means(written) == why


def test_lost_zeros_of_two_lengths_mean_two_files():
    assert means("7", ["007.jpg", "0007.jpg"]).startswith("'7' could be '007.jpg' or '0007.jpg' (2 files)")
    assert means("7", ["7.png", "0007.jpg"]) == "7.png"
    assert means("07", ["0007.jpg"]) == "'07' is not there; the nearest name is '0007.jpg'"


def test_of_files_in_several_folders_the_one_that_shares_the_most():
    there = ["1.jpg", "cat/1.jpg", "old/cat/1.jpg"]
    assert means("train/cat/1.jpg", there) == "cat/1.jpg"
    assert means("1.jpg", there) == "1.jpg"
    assert "could be" in means("1.jpg", there[1:])


def test_a_file_that_another_row_names_is_not_taken():
    for written in (["12.jpg", "0012.jpg"], ["0012.jpg", "12.jpg"]):
        matched = match_names(written, ["a/0012.jpg"])
        assert sorted(matched.rows.tolist()) == [-1, 0]
        row = written.index("12.jpg")
        assert why_not("12.jpg", row, matched, ["a/0012.jpg"]) == (
            "'12.jpg' is not there: the file 'a/0012.jpg' belongs to another row, or two rows mean it"
        )


def test_two_names_of_one_file_are_both_unsure():
    matched = match_names(["A.png", "a.png", "b.png"], ["a.PNG", "b.png"])
    assert matched.rows.tolist() == [-1, 0, 1]  # "a.png" differs by less
    assert match_names(["A.png", "B.png", "aa.png"], ["a.PNG", "b.png", "aA.png"]).rows.tolist() == [0, 1, 2]
    matched = match_names(["x/a.png", "y/a.png"], ["a.jpg"])
    assert matched.rows.tolist() == [-1, -1] and matched.several == {0: (0,), 1: (0,)}


def test_one_name_twice_means_its_file_twice():
    assert match_names(["a", "a"], ["a.png"]).rows.tolist() == [0, 0]


def test_what_is_written_otherwise_is_said_once_a_way():
    said = match_names(
        ["1", "2", "b\\003.png", "004.PNG", "005.png"], [*(f"b/{n:03}.png" for n in range(1, 5)), "005.png"]
    )
    assert said.notes == (
        "2 of 5 names are written without their folders, without their leading zeros and without their ending: '1' is "
        "read as 'b/001.png'",
        "1 of 5 names are written with backslashes: 'b\\\\003.png' is read as 'b/003.png'",
        "1 of 5 names are written without their folders and in another case: '004.PNG' is read as 'b/004.png'",
    )
    assert match_names(["b/001.png"], ["b/001.png"]).notes == ()


def test_a_name_with_its_folder_is_not_compared_with_those_of_other_folders(monkeypatch):
    """1,000 classes of 50 images, named without their endings, took minutes."""
    common, compared = names._common, []
    monkeypatch.setattr(names, "_common", lambda one, other: compared.append(1) or common(one, other))
    there = [f"class{folder}/{number:03d}.jpg" for folder in range(40) for number in range(5)]
    matched = match_names([name.removesuffix(".jpg") for name in there], there)
    assert matched.rows.tolist() == list(range(200))
    assert len(compared) == 200


def test_addresses():
    assert all(map(is_address, ["https://a.org/b", "https:/a.org/b", "s3://bucket", " ftp://x"]))
    assert not any(map(is_address, ["C:/photos", "a/b:/c", "c:\\x", "notes: /a", "https"]))
