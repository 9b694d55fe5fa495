"""Prediction from Python: every kind of image gives what the command line gives for the file: to the bit from eight
images on, and but for the last bits of fewer."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from recorder import Recorder

import ensemble
from ensemble.blend import BlendOptions, ExternalFiles, blend_run
from ensemble.data.folds import read_folds
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json
from ensemble.inference import compiled
from ensemble.inference.formats import Inference, save_inference
from ensemble.inference.predict import FEW
from ensemble.run import Run
from ensemble.tta import member_views
from ensemble.tta.pictures import predict_pictures
from ensemble.tta.predict import PredictionRequest, tta_predict

ARRAY = "want uint8 (H, W, 3) or (H, W), or (N, H, W, 3)"
TENSOR = "want uint8, or float in [0, 1], (3, H, W) or (N, 3, H, W)"


@pytest.fixture(scope="module")
def run(noise_run, paint):
    """A finished run of two members and its blend "mean"; beside it six test images of one size, the last one grey."""
    for index in range(6):
        last = paint(noise_run.parent / "test" / f"{index}.png", 60, 44)
    Image.open(last).convert("L").save(last)
    return noise_run


@pytest.fixture(scope="module")
def files(run):
    return sorted((run.parent / "test").glob("*.png"))


@pytest.fixture(scope="module")
def want(run):
    """The log-probabilities that the command saves."""
    tta_predict(PredictionRequest(Run(run), run.parent / "test", run.parent / "s.csv"), SILENT)
    return load_logits(Run(run).predictions_file("test", "mean")).values[0]


@pytest.fixture(scope="module")
def loaded(run):
    return ensemble.load(run)


def test_a_blend_that_knows_what_mistakes_cost_decides_for_the_cheapest_class(run, files):
    (run.parent / "costs.csv").write_text("true,a,b\na,0,1\nb,1e6,0\n")  # to miss b is out of the question
    blend_run(Run(run), BlendOptions("mean", "expected_cost", costs=run.parent / "costs.csv"), events=SILENT)
    try:
        made = ensemble.predict(run, files, blend="mean-expected_cost")
        assert made.labels == ["b"] * 6 and (made.probabilities.argmax(axis=1) == 0).any()
        output = run.parent / "priced.csv"
        tta_predict(PredictionRequest(Run(run), run.parent / "test", output, "mean-expected_cost"), SILENT)
        assert [line.split(",")[1] for line in output.read_text().splitlines()[1:]] == ["b"] * 6
        (line, *_) = predict_pictures(Run(run), files[:1], None, "mean-expected_cost").lines()
        assert line.endswith("; of the least expected cost: b")
    finally:  # the run is shared
        for path in (run / "blends").glob("mean-expected_cost.*"):
            path.unlink()


def pixels(file):
    return np.array(Image.open(file))


def channels_first(file):
    return torch.from_numpy(pixels(file)).permute(2, 0, 1)


KINDS = {
    "texts": lambda files: [str(file) for file in files],
    "paths": lambda files: tuple(files),
    "PIL": lambda files: [Image.open(file) for file in files],
    "the same PIL image": lambda files: [*map(Image.open, files[:4]), *[Image.open(files[4])] * 40],
    "arrays": lambda files: [pixels(file) for file in files],
    "arrays in another order": lambda files: [np.asfortranarray(pixels(file)) for file in files],
    "a batch of arrays": lambda files: np.stack([pixels(file) for file in files[:5]]),
    "tensors": lambda files: [channels_first(file) for file in files[:5]],
    "floats": lambda files: [channels_first(file).float().requires_grad_() / 255 for file in files[:5]],
    "doubles": lambda files: [channels_first(file).double() / 255 for file in files[:5]],
    "a batch of tensors": lambda files: torch.stack([channels_first(file) for file in files[:5]]),
    "a batch of floats": lambda files: torch.stack([channels_first(file) for file in files[:5]]) / 255,
    "a mixture": lambda files: [
        files[0],
        str(files[1]),
        [Image.open(files[2]), channels_first(files[3])],
        pixels(files[4])[None],
        pixels(files[5]),
    ],
}


def is_as(log_probabilities, made):
    """Whether they are those of the command line, which fills its batches up: to the bit, unless they are of so few
    images that each was computed by itself."""
    if len(made.labels) < FEW:
        return np.allclose(np.log(made.probabilities), log_probabilities, rtol=0, atol=1e-5)
    return np.array_equal(np.log(made.probabilities), log_probabilities)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_gives_what_its_file_gives(loaded, files, want, kind):
    made = ensemble.predict(loaded, KINDS[kind](files))
    count = len(made.labels)
    expected = np.concatenate([want, np.repeat(want[4:5], 40, axis=0)])[: 5 if "a batch" in kind else count]
    if kind == "the same PIL image":
        expected = np.concatenate([want[:4], np.repeat(want[4:5], 40, axis=0)])
    assert count == len(expected) >= 5
    assert made.probabilities.dtype == np.float32 and is_as(expected, made)
    assert made.probabilities.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-6)
    assert made.classes == ("a", "b") and made.labels == [made.classes[best] for best in expected.argmax(axis=1)]
    assert len(np.unique(expected)) >= 10  # the images differ, so that a shifted row would show


def test_a_single_image_of_each_kind(run, loaded, files, want):
    tensor = channels_first(files[0])
    for image in (files[0], str(files[0]), Image.open(files[0]), pixels(files[0]), tensor, tensor / 255):
        made = ensemble.predict(loaded, image)
        assert made.probabilities.shape == (1, 2) and is_as(want[:1], made)
    assert is_as(want[5:], ensemble.predict(loaded, pixels(files[5])))
    assert is_as(want[:1], ensemble.predict(str(run), files[0], ["hflip", "identity"]))
    assert is_as(want[:1], ensemble.predict(run, files[0], blend="mean"))


def test_few_images_are_computed_one_by_one_and_more_in_full_batches(loaded, files, want):
    sizes = []
    hooks = [
        network.exact.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        for member in loaded.members
        for network in member.eval_models
    ]
    try:
        one = ensemble.predict(loaded, files[0]).probabilities
        assert sizes == [1] * 8  # two members of two folds under two views
        three = ensemble.predict(loaded, [files[4], files[0], files[2]]).probabilities
        assert set(sizes) == {1} and np.array_equal(three[1], one[0])  # whatever the neighbours
        sizes.clear()
        eight = ensemble.predict(loaded, [*files, *files[:2]]).probabilities
        assert set(sizes) == {16} and np.array_equal(np.log(eight), np.concatenate([want, want[:2]]))
    finally:
        for hook in hooks:
            hook.remove()


def test_images_larger_than_a_chunk_are_predicted_in_chunks(loaded, files, want):
    from ensemble.tta.chunks import chunk_rows

    preprocesses = [member.preprocess for member in loaded.members]
    times = chunk_rows(preprocesses, 4, loaded.batch_size, "cpu") // 6 + 1
    made = ensemble.predict(loaded, files * times)
    assert np.array_equal(np.log(made.probabilities), np.tile(want, (times, 1)))


def test_pil_images_are_turned_and_flattened_as_files_are(run, loaded, tmp_path):
    noise = np.random.default_rng(1)
    turned = Image.fromarray(noise.integers(0, 256, (44, 60, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(noise.integers(0, 256, (44, 60, 4), dtype=np.uint8)).save(tmp_path / "clear.png")
    Image.fromarray(noise.integers(0, 2**16, (44, 60), dtype=np.uint16)).save(tmp_path / "deep.png")
    for name in ("turned", "clear", "deep"):
        file = tmp_path / f"{name}.png"
        of_file, of_image = (ensemble.predict(loaded, image).probabilities for image in (file, Image.open(file)))
        assert np.array_equal(of_file, of_image)
    plain = ensemble.predict(loaded, turned).probabilities
    assert not np.array_equal(plain, ensemble.predict(loaded, tmp_path / "turned.png").probabilities)


BAD = {
    "an empty list": (lambda: [], "images: there are none; want one or more"),
    "an empty batch": (lambda: np.zeros((0, 4, 4, 3), np.uint8), "images: there are none; want one or more"),
    "floats in an array": (lambda: np.zeros((4, 5, 3)), f"images: an array float64 (4, 5, 3); {ARRAY}"),
    "four channels": (
        lambda: [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 4), np.uint8)],
        f"images[1]: an array uint8 (4, 5, 4); {ARRAY}",
    ),
    "channels first": (lambda: np.zeros((2, 3, 4, 5), np.uint8), f"images[0]: an array uint8 (3, 4, 5); {ARRAY}"),
    "no pixels": (lambda: np.zeros((0, 5, 3), np.uint8), f"images: an array uint8 (0, 5, 3); {ARRAY}"),
    "one dimension": (lambda: np.zeros(5, np.uint8), f"images: an array uint8 (5,); {ARRAY}"),
    "channels last": (
        lambda: torch.zeros(4, 5, 3, dtype=torch.uint8),
        f"images: a tensor uint8 (4, 5, 3); {TENSOR}",
    ),
    "whole numbers": (
        lambda: [torch.zeros(3, 4, 5), [torch.zeros(3, 4, 5, dtype=torch.int64)]],
        f"images[1][0]: a tensor int64 (3, 4, 5); {TENSOR}",
    ),
    "a grey tensor": (lambda: torch.zeros(4, 5), f"images: a tensor float32 (4, 5); {TENSOR}"),
    "a normalised tensor": (
        lambda: [torch.zeros(3, 4, 5), torch.linspace(-2, 2, 60).reshape(3, 4, 5)],
        "images[1]: a tensor with values from -2 to 2; want [0, 1]",
    ),
    "bytes as floats": (
        lambda: torch.full((3, 4, 5), 255.0),
        "images: a tensor with values from 255 to 255; want [0, 1]",
    ),
    "NaN": (lambda: torch.full((3, 4, 5), np.nan), "images: a tensor with values from nan to nan; want [0, 1]"),
    "a dict": (lambda: {"a": 1}, "images: a dict; want a path, a PIL image, an array, a tensor or a list"),
    "no file": (lambda: ["nowhere.png"], "images[0]: nowhere.png: no such file"),
    "a folder": (lambda: "/", "images: /: is a folder; name the files in it"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image_is_refused_in_one_line(loaded, what):
    make, line = BAD[what]
    with pytest.raises(UserError) as caught:
        ensemble.predict(loaded, make())
    assert str(caught.value) == line


def test_an_unreadable_file_is_named(loaded, files, tmp_path):
    (tmp_path / "bad.png").write_bytes(files[0].read_bytes()[:200])
    with pytest.raises(UserError, match=r"/bad\.png: not a readable image \("):
        ensemble.predict(loaded, [files[0], tmp_path / "bad.png"])
    with (
        Image.open(tmp_path / "bad.png") as image,
        pytest.raises(UserError, match=r"^images\[1\]: not a readable image \("),
    ):
        ensemble.predict(loaded, [files[0], image])


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_closed_image_is_named(loaded, files, tmp_path, ending):
    Image.new("RGB", (40, 40)).save(tmp_path / f"a.{ending}")
    with Image.open(tmp_path / f"a.{ending}") as image:
        image.load()
    image.close()  # a file that is loaded outlives its block
    with pytest.raises(UserError) as caught:
        ensemble.predict(loaded, [files[0], image])
    assert str(caught.value) == "images[1]: a PIL image that was closed; give it while it is open, or its path"


def test_jpegs_that_pil_opened_are_whole_or_refused_as_files_are(loaded, files, tmp_path):
    stored = Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    stored.save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "open.jpg").write_bytes(data[:-2])
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2] + data[-2:])
    with Image.open(tmp_path / "whole.jpg") as whole, Image.open(tmp_path / "open.jpg") as without_end:
        probabilities = ensemble.predict(loaded, [whole, without_end]).probabilities
    assert np.array_equal(*probabilities)
    line = r"^images\[1\]: not a readable image \(image file is truncated: the JPEG's data ends before its last block"
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(UserError, match=line):
        ensemble.predict(loaded, [files[0], image])


def test_a_broken_exif_block_hinders_no_prediction(loaded, files, tmp_path):
    """A resolution of a wrong type, beside an orientation."""
    block = b"Exif\0\0II*\0\x08\0\0\0\2\0\x12\1\3\0\1\0\0\0\6\0\0\0\x1a\1\2\0\2\0\0\0002\0\0\0\0\0\0\0"
    Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(40, 40, 3)).save(tmp_path / "a.png", exif=block)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif() == {0x112: 6, 0x11A: "2"}
        of_image = ensemble.predict(loaded, image).probabilities
    assert np.array_equal(of_image, ensemble.predict(loaded, tmp_path / "a.png").probabilities)


def test_views_and_blends_are_refused_as_by_the_command(run, loaded, files):
    line = "the blend was fitted on the views identity,hflip, not identity: fit one on these"
    with pytest.raises(UserError, match=line):
        ensemble.predict(run, files, views=["identity"])
    with pytest.raises(UserError, match=line):
        ensemble.load(run, views=["identity"])
    with pytest.raises(UserError, match="no blend 'men'; there are: mean"):
        ensemble.load(run, "men")
    with pytest.raises(UserError, match="not a run directory"):
        ensemble.predict(run.parent, files)
    for words in ({"views": ["identity", "hflip"]}, {"blend": "mean"}):
        with pytest.raises(UserError, match=r"chosen when the run was loaded; give them to ensemble\.load instead"):
            ensemble.predict(loaded, files, **words)


def test_a_blend_with_a_external_member_can_not_show_an_image(run, files, tmp_path):
    ids = read_folds(Run(run))["id"].tolist()
    for kind in ("oof", "test"):
        (tmp_path / f"{kind}.csv").write_text("\n".join(["id,a,b", *(f"{name},0.4,0.6" for name in ids)]))
    external = [ExternalFiles("knn", tmp_path / "oof.csv", tmp_path / "test.csv")]
    blend_run(Run(run), BlendOptions("mean", name="both", external=external), events=SILENT)
    try:
        with pytest.raises(UserError, match="blend 'both' holds knn, which ens did not train and can't predict new im"):
            ensemble.predict(run, files, blend="both")
    finally:
        Run(run).blend_json("both").unlink()


def test_a_stale_blend_is_refused(run, files):
    path = Run(run).blend_json("mean")
    before = path.read_text()
    stale = read_json(path)
    stale["fitted_on"]["vit"] = "0" * 64
    write_json(path, stale)
    try:
        with pytest.raises(UserError, match="blend 'mean' was fitted on another 'vit' than"):
            ensemble.load(run)
    finally:
        path.write_text(before)


def test_it_needs_one_import_which_does_not_load_torch(run, files, want):
    code = """
import sys
import ensemble
assert {"load", "predict", "Prediction", "Predictor", "__version__"} <= set(dir(ensemble)) & set(ensemble.__all__)
assert not hasattr(ensemble, "prdict")
assert "torch" not in sys.modules and "numpy" not in sys.modules
made = ensemble.predict(sys.argv[1], sys.argv[2])
assert "torch" in sys.modules and isinstance(made, ensemble.Prediction)
print(made.probabilities.tolist(), made.labels)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, run, files[0]], capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == 0
    probabilities, label = done.stdout.strip().rsplit(" ", 1)
    assert np.allclose(np.log(np.float32(eval(probabilities))), want[:1], rtol=0, atol=1e-5)
    assert label == f"['{'ab'[int(want[0].argmax())]}']"


@pytest.mark.skipif("onnxruntime" not in compiled.installed(), reason="onnxruntime is not installed")
def test_a_network_is_computed_by_its_engine_and_by_torch_where_that_is_missing(
    run, files, want, monkeypatch, tmp_path
):
    monkeypatch.setenv("ENS_CACHE", str(tmp_path))
    file = Run(run).member("vit").fold(0).inference_json
    before = file.read_bytes()
    output, heard = run.parent / "engine.csv", Recorder()
    request = PredictionRequest(Run(run), run.parent / "test", output)
    built = []
    build = compiled._onnxruntime
    monkeypatch.setattr(compiled, "_onnxruntime", lambda *words: built.append(words[1]) or build(*words))
    try:
        save_inference(file, Inference("cpu", "float32", 1e-9, engine="onnxruntime"))
        made = tta_predict(request, SILENT).probabilities
        assert built == [(16, 3, 48, 48)] and np.allclose(np.log(made), want, rtol=0, atol=1e-5)
        one = ensemble.predict(run, files[0]).probabilities
        assert built[1:] == [(1, 3, 48, 48)] and np.allclose(np.log(one), want[:1], rtol=0, atol=1e-5)
        monkeypatch.setattr(compiled, "installed", lambda: ())
        monkeypatch.setattr(member_views, "_version", lambda engine: None)  # as without its package
        tta_predict(request, heard)
        assert np.array_equal(load_logits(Run(run).predictions_file("test", "mean")).values[0], want)
    finally:
        file.write_bytes(before)
    assert len(built) == 2
    line = "vit: was evaluated with ONNX Runtime, which is not installed here; torch computes it in float32 instead, m"
    assert any(message.startswith(line) for message in heard.messages)
