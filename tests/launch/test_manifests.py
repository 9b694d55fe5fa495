"""`ens launch --print k8s|sky`: held to the schemas of Kubernetes and SkyPilot, and the commands in them run here."""

import shlex
import subprocess
import sys

import pytest
import yaml
from commands import ens

EXPERIMENT = """# made by hand: "quoted" $HOME
run = "runs/art"
[data]
train = "data/art/train.csv"
[folds]
k = 3
[[backbone]]
name = "a"
timm = "test_resnet"
pretrained = false
seeds = 2
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "My_art 2.toml"
    path.write_text(EXPERIMENT)
    return path


def printed(monkeypatch, capfd, *words):
    status, out, err = ens(monkeypatch, capfd, "launch", *words)
    assert (status, err) == (0, ""), err
    return out, list(yaml.safe_load_all(out))


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_job(monkeypatch, capfd, file, version):
    validate = pytest.importorskip("kubernetes_validate").validate
    words = ("--storage", "photos", "--gpus", "2", "--image", "me/ens:1", "--set", "train.epochs=3")
    text, documents = printed(monkeypatch, capfd, file, "--print", "k8s", *words)
    for document in documents:
        validate(document, version, strict=True)
    config_map, job = documents
    assert config_map["data"] == {"experiment.toml": EXPERIMENT}
    assert config_map["metadata"]["name"] == job["metadata"]["name"] == "ens-my-art-2"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3  # 6 jobs, two at a time
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "me/ens:1" and container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    command = "ens train-folds /experiment/experiment.toml --set train.epochs=3 --wait"
    assert shlex.join(container["command"]) == command
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "photos"}
    seconds = next(entry["value"] for entry in container["env"] if entry["name"] == "ENS_STOP_SECONDS")
    assert int(seconds) < pod["terminationGracePeriodSeconds"]
    assert text.startswith("# 3 workers of My_art 2.toml.") and not any(" \n" in line for line in text.splitlines())


def test_kubernetes_without_a_gpu(monkeypatch, capfd, file):
    words = ("--storage", "photos", "--gpus", "0", "--workers", "2")
    _, (_, job) = printed(monkeypatch, capfd, file, "--print", "k8s", *words)
    assert job["spec"]["parallelism"] == 2
    assert "limits" not in job["spec"]["template"]["spec"]["containers"][0]["resources"]


def test_skypilot_takes_the_job(monkeypatch, capfd, file):
    schemas = pytest.importorskip("sky.utils.schemas")
    jsonschema = pytest.importorskip("jsonschema")
    _, (task,) = printed(monkeypatch, capfd, file, "--print", "sky", "--storage", "s3://photos", "--gpus", "A100:2")
    jsonschema.validate(task, schemas.get_task_schema())
    jsonschema.validate(task["resources"], schemas.get_resources_schema())
    for mount in task["file_mounts"].values():
        jsonschema.validate(mount, schemas.get_storage_schema())


def test_the_job_of_skypilot(monkeypatch, capfd, file, tmp_path):
    text, (task,) = printed(monkeypatch, capfd, file, "--print", "sky", "--storage", "s3://photos/", "--gpus", "A100:2")
    assert task["resources"]["accelerators"] == {"A100": 2}
    assert task["file_mounts"] == {"~/ens/data/art": {"source": "s3://photos/data/art", "mode": "COPY"}}
    assert "for worker in $(seq 3); do sky jobs launch -y -d -n ens-my-art-2-$worker" in text
    # what it runs, with a home and an `ens` of the test
    (tmp_path / "home" / "ens").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ens").write_text(f'#!{sys.executable}\nimport sys\nprint(*sys.argv[1:], sep="|")\n')
    (tmp_path / "bin" / "ens").chmod(0o755)
    environment = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    ran = subprocess.run(["bash", "-c", task["run"]], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "train-folds|experiment.toml|--set|run=s3://photos/runs/art|--wait\n" and ran.stderr == ""
    assert (tmp_path / "home" / "ens" / "experiment.toml").read_text() == EXPERIMENT


def test_a_run_on_an_object_store_stays_there(monkeypatch, capfd, bucket, file):
    file.write_text(EXPERIMENT.replace("runs/art", f"{bucket}/runs/art"))
    _, (task,) = printed(monkeypatch, capfd, file, "--print", "sky", "--storage", "s3://photos")
    _, (_, job) = printed(monkeypatch, capfd, file, "--print", "k8s", "--storage", "photos")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "ens-my-art-2"}}]
    assert "--set" not in task["run"] and f'run = "{bucket}/runs/art"' in task["run"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--gpus", "A100", "--storage", "x"], "ens: --gpus A100: want a number, or NAME:NUMBER, as in A100:1\n"),
        (
            ["--storage", "photos", "--print", "sky"],
            "ens: --storage photos: SkyPilot's workers share a bucket: name it, as in s3://my-bucket\n",
        ),
    ],
)
def test_wrong_input_is_one_line(monkeypatch, capfd, file, words, line):
    assert ens(monkeypatch, capfd, "launch", file, "--print", "k8s", *words) == (2, "", line)
