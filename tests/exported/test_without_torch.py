"""Prediction where neither torch nor what comes with it is installed."""

import json
import subprocess
import sys

import numpy as np

import ensemble

BLOCKED = ("torch", "torchvision", "timm", "sklearn", "scipy", "cv2", "matplotlib", "jinja2", "onnx", "filelock")
TABLES = ("pandas", "pyarrow")


def attempt(code, *words, blocked=BLOCKED):
    start = f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", start + code, *map(str, words)], capture_output=True, text=True)


def run(code, *words, blocked=BLOCKED):
    made = attempt(code, *words, blocked=blocked)
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_pictures_by_command_and_from_python_need_no_tables_either(exported, tmp_path, paint):
    path = paint(tmp_path / "a.png", 90, 61)
    command = "from ensemble import cli; cli.main()"
    out = run(command, "predict-file", exported, path, "--json", blocked=(*BLOCKED, *TABLES))
    code = (
        "import json, numpy as np, ensemble as ens\nfrom PIL import Image\nmodel = ens.load(sys.argv[1])\n"
        "images = [sys.argv[2], Image.open(sys.argv[2]), np.asarray(Image.open(sys.argv[2]))]\n"
        "both = [ens.predict(model, images), ens.predict(sys.argv[1], images)]\n"
        "print(json.dumps([made.probabilities.tolist() for made in both]))"
    )
    from_python = np.array(json.loads(run(code, exported, path, blocked=(*BLOCKED, *TABLES))))
    want = ensemble.predict(exported, path).probabilities  # in this process, with torch
    assert np.array_equal(np.float32(json.loads(out)["result"]["probabilities"]), want)
    assert from_python.shape == (2, 3, 3)
    np.testing.assert_allclose(from_python, np.broadcast_to(want, (2, 3, 3)), atol=1e-6)  # in batches, and by OpenVINO


def test_a_folder_becomes_a_submission(exported, tmp_path, paint):
    for index in range(3):
        paint(tmp_path / "test" / f"{index}.png", 90, 61)
    output = tmp_path / "s.csv"
    run("from ensemble import cli; cli.main()", "predict-file", exported, tmp_path / "test", "-o", output)
    want = ensemble.predict(exported, [tmp_path / "test" / f"{index}.png" for index in range(3)]).labels
    assert output.read_text() == "id,label\n" + "".join(f"{index}.png,{label}\n" for index, label in enumerate(want))


def test_without_tables_a_folder_is_refused_in_one_line(exported, tmp_path, paint):
    path = paint(tmp_path / "test" / "a.png")
    code = "from ensemble import cli; cli.main()"
    for words in ([tmp_path / "test"], [path, "-o", tmp_path / "s.csv"]):
        made = attempt(code, "predict-file", exported, *words, blocked=(*BLOCKED, *TABLES))
        assert made.returncode == 2 and made.stderr.endswith(" takes pandas and pyarrow: pip install pandas pyarrow\n")
        assert made.stderr.count("\n") == 1
