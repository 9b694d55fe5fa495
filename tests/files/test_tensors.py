"""Arrays of safetensors files, left in the file until they are used."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from ensemble.files.tensors import map_tensors, of_array, write_tensors

ARRAYS = {
    "odd": np.arange(3, dtype=np.uint8),
    "counts": np.array([[-(2**40), 7]], dtype=np.int64),
    "logits": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "half": np.array([0.5, -2], dtype=np.float16),
    "mask": np.array([True, False, True]),
    "none": np.zeros((0, 5), dtype=np.float32),
    "one": np.array(2.5),
}


@pytest.mark.parametrize("writer", ["ens", "safetensors"])
def test_mapped_arrays_are_those_that_were_written(tmp_path, writer):
    path = tmp_path / "a.safetensors"
    if writer == "ens":
        write_tensors(path, {name: of_array(array) for name, array in ARRAYS.items()}, {"kind": "test"})
    else:
        save_file(ARRAYS, path, {"kind": "test"})
    found = map_tensors(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape and not found[name].flags.writeable, name


def test_a_type_that_numpy_lacks_is_an_error_and_not_another_type(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(KeyError, match="BF16"):
        map_tensors(tmp_path / "a.safetensors")
