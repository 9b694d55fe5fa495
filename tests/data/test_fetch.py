"""Images and tables on object stores: moto's S3, and fsspec's store in memory in place of gs:// and the others."""

import shutil
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pytest
from commands import ens
from pyarrow.parquet import write_table
from recorder import Recorder

from ensemble.config import load_config
from ensemble.data.labelled import read_labelled
from ensemble.data.samples import read_class_folders, read_images, read_samples
from ensemble.data.source import follow
from ensemble.data.submission.sample import read_sample
from ensemble.data.unpacked import copies, fetch
from ensemble.data.unpacked.local import as_local
from ensemble.data.unpacked.source_names import source_name, with_source_names
from ensemble.errors import UserError
from ensemble.files import stores
from ensemble.toml import to_toml


@pytest.fixture
def new_process(monkeypatch):
    """new_process(): what a process that has just begun knows."""

    def forget():
        monkeypatch.setattr(fetch, "_fetched", {})
        monkeypatch.setattr(copies, "_opened", {})

    forget()
    return forget


@pytest.fixture(params=["s3", "memory"])
def art(request, tmp_path, paint, monkeypatch, new_process):
    """The URL of art/, and the folder that it was made from: a train folder of two classes, test images, tables."""
    if request.param == "s3":
        url = f"{request.getfixturevalue('bucket')}/art"
    else:
        monkeypatch.setenv("ENS_CACHE", str(tmp_path / "cache"))
        stores._store.cache_clear()
        url = f"memory://bucket{id(monkeypatch)}/art"
    folder = tmp_path / "art"
    for index in range(8):
        paint(folder / "train" / ("cat", "dog")[index % 2] / f"{index:02}.png")
    for index in range(3):
        paint(folder / "test" / f"t{index}.png")
    (folder / "sample_submission.csv").write_text("id,label\nt0.png,cat\nt1.png,cat\nt2.png,cat\n")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stores.upload(path, f"{url}/{path.relative_to(folder).as_posix()}")
    return url, folder


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return with_source_names(str(caught.value))


def test_a_folder_is_fetched_once_and_what_changed_again(art, paint, new_process):
    url, folder = art
    heard = Recorder()
    place = as_local(Path(url), heard)  # Path takes one of the slashes away
    found, expected = follow(Path(url), None), follow(folder, None)
    assert source_name(found.path) == f"{url}/train" and expected.path == folder / "train"
    samples = read_class_folders(found.path)
    assert samples.fingerprint() == read_class_folders(expected.path).fingerprint()
    assert read_images(Path(f"{url}/test"))[0] == ["t0.png", "t1.png", "t2.png"]
    lines = [line for line in heard.messages if "fetched into the cache" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{url}: 12 files (")

    def again():
        new_process()
        heard.messages.clear()
        assert as_local(Path(url), heard) == place
        return [line.partition(" fetched")[0].rpartition(": ")[2].partition(" (")[0] for line in heard.messages]

    assert again() == []
    (place / "test" / "t0.png").write_bytes(b"damaged")
    paint(folder / "train" / "cat" / "00.png", seed=1)
    stores.upload(folder / "train" / "cat" / "00.png", f"{url}/train/cat/00.png")
    stores.delete(f"{url}/test/t2.png")
    assert again() == ["2 files"]
    for name in ("train/cat/00.png", "test/t0.png"):
        assert (place / name).read_bytes() == (folder / name).read_bytes()
    assert not (place / "test" / "t2.png").exists()
    assert fetch.summary() > 0 and fetch.clear() > 0 and fetch.summary() == 0


def test_a_table_brings_its_images_and_a_sample_comes_alone(art, tmp_path, new_process):
    url, folder = art
    sample = read_sample(Path(f"{url}/sample_submission.csv"))
    assert len(sample) == 3 and not list(fetch.fetched_folder().rglob("*.png"))
    (folder / "t.csv").write_text("path,label\n" + "".join(f"test/t{i}.png,{'ab'[i % 2]}\n" for i in range(3)))
    stores.upload(folder / "t.csv", f"{url}/t.csv")
    assert read_samples(Path(f"{url}/t.csv")).fingerprint() == read_samples(folder / "t.csv").fingerprint()
    with ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.write(folder / "t.csv", "t.csv")
    stores.upload(tmp_path / "t.csv.zip", f"{url}/t.csv.zip")
    fetch.clear()
    new_process()
    assert len(read_samples(Path(f"{url}/t.csv.zip"))) == 3
    shutil.copy(folder / "t.csv", tmp_path / "here.csv")
    assert len(read_samples(tmp_path / "here.csv", images=Path(url))) == 3


def test_init_writes_the_url_and_training_reads_it(art, tmp_path, monkeypatch, capfd):
    url, folder = art
    monkeypatch.chdir(tmp_path)
    sample = f"{url}/sample_submission.csv"
    status, printed, errors = ens(monkeypatch, capfd, "init", url, "--sample-submission", sample, "-o", "e.toml")
    assert status == 0, errors
    text = Path("e.toml").read_text()
    assert f'train = "{url}/train"' in text and 'run = "runs/art"' in text and "cache/fetched" not in text + printed
    assert f"ens tta-predict runs/art {url}/test --sample-submission {sample} -o submission.csv" in text
    config = load_config(Path("e.toml"))
    assert read_labelled(config).fingerprint() == read_class_folders(folder / "train").fingerprint()
    assert f'train = "{url}/train"' in to_toml(config)
    status, printed, errors = ens(monkeypatch, capfd, "check", "e.toml", "--test", f"{url}/test", "-o", "audit.json")
    assert status == 0 and f"e.toml trains on {url}/train" in printed, errors
    assert f'"source": "{url}/train"' in Path("audit.json").read_text()


def test_packed_images_on_a_store(art, tmp_path, new_process):
    url, folder = art
    stores.upload(Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder)), f"{url}/more/packed.zip")
    found = follow(Path(f"{url}/more/packed.zip"), None)
    assert source_name(found.path) == f"{url}/more/packed.zip/train"
    assert read_class_folders(found.path).fingerprint() == read_class_folders(folder / "train").fingerprint()
    assert read_images(Path(f"{url}/more/packed.zip/test"))[0] == ["t0.png", "t1.png", "t2.png"]
    image = {"bytes": (folder / "test" / "t0.png").read_bytes(), "path": "t0.png"}
    write_table(pa.table({"image": [image]}), tmp_path / "one.parquet")
    for part in ("train", "test"):
        stores.upload(tmp_path / "one.parquet", f"{url}/food/data/{part}-00000-of-00001.parquet")
    assert read_images(Path(f"{url}/food/test"))[0] == ["t0.png"]


def test_what_cannot_be_fetched_is_one_line(art, monkeypatch, tmp_path):
    url, folder = art
    assert refusal(as_local, Path(f"{url}/none")) == f"{url}/none: nothing is there; {stores.CHECK}"
    assert "write the address without '..'" in refusal(as_local, Path(f"{url}/../other"))
    assert "is an address, and ens fetches nothing" in refusal(as_local, Path("https://localhost:9/a.zip"))
    assert "stores are, for example, s3:// and gs://" in refusal(as_local, Path("nostore://bucket/a"))
    stores.write(f"{url}/odd/a\\b.png", b"1")
    assert refusal(as_local, Path(f"{url}/odd")) == (
        f"{url}/odd/a\\b.png: not a name that a file can have; rename the object"
    )
    download = stores.download
    monkeypatch.setattr(stores, "download", lambda url, file: file.write_bytes(b"short") > 0)
    assert "changed while it was fetched (5 of " in refusal(as_local, Path(f"{url}/test"))
    monkeypatch.setattr(stores, "download", download)
    assert read_images(Path(f"{url}/test"))[0] == ["t0.png", "t1.png", "t2.png"]
    monkeypatch.setenv("ENS_CACHE", str(folder / "t.txt"))
    (folder / "t.txt").write_text("")
    assert "t.txt/fetched: can't be written (" in refusal(as_local, Path(f"{url}/train"))
