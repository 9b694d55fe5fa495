"""`ens serve art.onnx`: an exported file behind the server, and without torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
from exported_file import CLASSES, content, description, expected
from serve_model import form, picture, post, service_of

from ensemble.errors import Damaged, UserError
from ensemble.serve.app import make_app
from ensemble.serve.model import load_model


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "art.onnx"
    path.write_bytes(content())
    return path


def test_a_file_is_served_with_its_members(file):
    service = service_of(load_model(file, None, None, 1))
    colours = [(255, 51, 0), (0, 204, 102)]
    content_type, body = form(*[(f"{row}", picture(colour, size=(60, 90))) for row, colour in enumerate(colours)])
    status, answer = post(make_app(service), content_type, body, "/predict?members=true")
    service.close()
    assert status == 200 and answer["model"] == "art.onnx"
    blend, of_members = expected(np.array(colours) / 255)
    for row, image in enumerate(answer["images"]):
        assert image["class"] == CLASSES[row]
        np.testing.assert_allclose([image["probabilities"][name] for name in CLASSES], blend[row], atol=1e-6)
        for number, member in enumerate(("sharp", "soft")):
            values = [image["members"][member][name] for name in CLASSES]
            np.testing.assert_allclose(values, of_members[number, row], atol=1e-6)


def test_costs_decide_the_class(tmp_path):
    path = tmp_path / "careful.onnx"
    path.write_bytes(content(description(costs=((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (90.0, 90.0, 0.0)))))
    service = service_of(load_model(path, None, None, 1))
    status, answer = post(make_app(service), "image/png", picture((255, 51, 0)))
    service.close()
    (image,) = answer["images"]
    assert status == 200 and image["class"] == "blue"
    assert max(image["probabilities"], key=image["probabilities"].get) == "red"


def test_a_file_that_can_not_be_served_is_a_line(tmp_path, file):
    with pytest.raises(UserError, match="no such file"):
        load_model(tmp_path / "none.onnx", None, None, 1)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(data)
    with pytest.raises(Damaged, match=r"damaged\.onnx: damaged"):
        load_model(tmp_path / "damaged.onnx", None, None, 1)
    (tmp_path / "foreign.onnx").write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match="without the digest of ens"):
        load_model(tmp_path / "foreign.onnx", None, None, 1)
    with pytest.raises(UserError, match="engine 'torch': want one of auto, openvino, onnxruntime"):
        load_model(file, None, None, 1, "torch")
    with pytest.raises(UserError, match="--blend and --networks choose within a run"):
        load_model(file, "mean", None, 1)


WITHOUT = (
    "torch",
    "torchvision",
    "timm",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "cv2",
    "jinja2",
    "onnx",
)


def test_serving_a_file_needs_little(file):
    """What serve/requirements.txt leaves out can't be imported."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
import asyncio, json
from ensemble import cli
from pathlib import Path
from ensemble.serve.app import make_app
from ensemble.serve.model import load_model
from ensemble.serve.options import ServeOptions
from ensemble.serve.server import serve_model
from ensemble.serve.service import first_answer, new_service
service = new_service(load_model(Path({str(file)!r}), None, None, 1), ServeOptions())
print(json.dumps(first_answer(service).result()[0].tolist()))
service.close()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), [1 / 3] * 3, atol=1e-6)
