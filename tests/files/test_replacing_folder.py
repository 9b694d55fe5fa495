"""A folder that is whole or not there."""

import pytest

from ensemble.files.atomic import replacing_folder


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
