import pytest
from exported_file import content


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An exported file of three classes, see exported_file.py."""
    path = tmp_path_factory.mktemp("exported") / "art.onnx"
    path.write_bytes(content())
    return path
