"""A folder that is whole or not there; and what no file is written to."""

from pathlib import Path

import pytest

from ensemble.errors import UserError
from ensemble.files.atomic import replacing, replacing_folder, require_writable


def test_it_takes_the_place_of_what_was_there_or_leaves_it(tmp_path):
    folder = tmp_path / "deep" / "art"
    for text in ("one", "two"):
        with replacing_folder(folder) as new:
            (new / text).write_text(text)
            assert not (folder / text).exists()
        assert [path.name for path in folder.iterdir()] == [text]
    with pytest.raises(OSError, match="full"), replacing_folder(folder) as new:
        (new / "three").write_text("three")
        raise OSError("full")
    assert [path.name for path in folder.iterdir()] == ["two"] and list(folder.parent.iterdir()) == [folder]


def test_what_was_there_stays_where_the_new_one_can_not_take_its_place(tmp_path, monkeypatch):
    folder, rename = tmp_path / "art", Path.rename
    folder.mkdir()
    (folder / "one").touch()

    def refused(path, target):
        if path.suffix == ".tmp":
            raise OSError("refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="refused"), replacing_folder(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["one"] and list(tmp_path.iterdir()) == [folder]


def test_an_address_is_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Path("s3://bucket/out/submission.csv")
    for write in (
        require_writable,
        lambda path: replacing(path).__enter__(),
        lambda path: replacing_folder(path).__enter__(),
    ):
        with pytest.raises(
            UserError, match=r"^s3://bucket/out/submission\.csv: only a run may lie on an object store; "
        ):
            write(place)
    assert not list(tmp_path.iterdir())
