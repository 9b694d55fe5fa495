"""Runs on an object store: what one machine's mirror writes, another one's has. The store is moto's, on loopback."""

import json
import os
import pickle
import shutil
import time

import pytest
from test_claims import at, claim_race, write_claim

from ensemble.blend.sources import Sources, other_runs, seen_from
from ensemble.config import Config
from ensemble.errors import UserError
from ensemble.files import mirror, shared, stores
from ensemble.files.atomic import remove, remove_folder, require_writable, write_text
from ensemble.files.claims import ClaimLost, Taken, claimed, holder_of
from ensemble.run import Run
from ensemble.toml import to_toml


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(name): from here on this process is on another machine, which has a mirror of its own."""

    def go(name):
        monkeypatch.setenv("ENS_CACHE", str(tmp_path / name))
        monkeypatch.setattr(mirror, "_opened", set())
        monkeypatch.setattr(mirror, "_writable", set())

    return go


def objects(url):
    return sorted(stores.listed(url))


# ---- files ---------------------------------------------------------------------------------------------------------


def test_what_one_machine_writes_another_one_reads(bucket, machine, tmp_path):
    url = f"{bucket}/runs/art"
    machine("a")
    a = Run(url)
    assert a.path == tmp_path / "a" / "mirrors" / "s3" / bucket[5:] / "runs" / "art" and str(a) == url
    fold = a.member("net").fold(0)
    write_text(fold.log_file, "one\n")
    write_text(fold.state_file, "state")
    machine("b")
    b = Run(url)
    other = b.member("net").fold(0)
    assert other.log_file.read_text() == "one\n" and not other.state_file.exists()  # that is for who goes on with it
    with claimed(other.claim_file):
        assert other.state_file.read_text() == "state"
    assert other.path.is_relative_to(tmp_path / "b")
    write_text(other.log_file, "two\n")
    remove_folder(other.state_file.parent)
    remove(other.member.settings_json)  # what is not there is removed too
    assert objects(url) == ["net/fold0/log.jsonl"]
    machine("a")
    assert Run(url).member("net").fold(0).log_file.read_text() == "two\n" and not fold.state_file.exists()
    write_text(fold.log_file, "three\n")
    machine("b")
    b.refresh()
    assert other.log_file.read_text() == "three\n"


def test_only_what_has_changed_is_read_again(bucket, machine, monkeypatch):
    machine("a")
    run = Run(bucket)
    for name in "abc":
        write_text(run.path / name, name)
    machine("b")
    other = Run(bucket)
    stores.write(f"{bucket}/b", b"changed")
    (other.path / "c").unlink()
    read = []
    download = stores.download
    monkeypatch.setattr(stores, "download", lambda url, file: read.append(url) or download(url, file))
    other.refresh()
    assert sorted(read) == [f"{bucket}/b", f"{bucket}/c"] and (other.path / "b").read_text() == "changed"
    read.clear()
    other.refresh()
    assert read == []


def test_what_could_not_be_written_is_kept_and_written_later(bucket, machine, monkeypatch):
    """The markers of finished folds come last."""
    machine("a")
    run = Run(bucket)
    fold = run.member("net").fold(0)
    write_text(fold.log_file, "old")
    with monkeypatch.context() as unreachable:
        unreachable.setattr(stores, "PAUSES", (0.0,))
        stores._store.cache_clear()
        unreachable.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        for path in (fold.log_file, fold.done_json, fold.model_file):
            with pytest.raises(OSError, match="could not be written") as error:
                write_text(path, "new")
            assert error.value.filename == f"{bucket}/net/fold0/{path.name}"
            assert f"it is kept in {path}, and the same command goes on from there" in error.value.strerror
            assert path.read_text() == "new"
    stores._store.cache_clear()
    assert objects(bucket) == ["net/fold0/log.jsonl"]
    with stores_of_another_machine(bucket, fold) as claim:
        run.refresh()  # not while another machine works there
        assert objects(bucket) == [claim, "net/fold0/log.jsonl"]
    written = []
    upload = stores.upload
    monkeypatch.setattr(stores, "upload", lambda file, *words: written.append(file.name) or upload(file, *words))
    run.refresh()
    assert written == ["log.jsonl", "model.safetensors", "done.json"]
    run.refresh()
    assert len(written) == 3
    machine("b")
    assert Run(bucket).member("net").fold(0).log_file.read_text() == "new"


class stores_of_another_machine:
    def __init__(self, bucket, fold):
        self.url = f"{bucket}/net/fold0/.claim-1"

    def __enter__(self):
        stores.write(self.url, b"{}")
        return "net/fold0/.claim-1"

    def __exit__(self, *error):
        stores.delete(self.url)


def test_another_machine_that_has_written_meanwhile_is_right(bucket, machine, monkeypatch):
    machine("a")
    run = Run(bucket)
    write_text(run.path / "file", "old")
    monkeypatch.setattr(stores, "upload", lambda *words: (_ for _ in ()).throw(OSError(5, "down", "there")))
    with pytest.raises(OSError, match="could not be written"):
        write_text(run.path / "file", "kept")
    stores.write(f"{bucket}/file", b"other's")
    run.refresh()
    assert (run.path / "file").read_text() == "other's"


def test_what_another_process_writes_meanwhile_stays(bucket, machine, monkeypatch):
    """It shares the mirror; the store was asked just before."""
    machine("a")
    run = Run(bucket)
    write_text(run.path / "changed", "old")
    listed = stores.listed

    def late(url):
        found = listed(url)
        monkeypatch.setattr(stores, "listed", listed)
        for name in ("changed", "new"):
            write_text(run.path / name, "new")
        return found

    monkeypatch.setattr(stores, "listed", late)
    run.refresh()
    assert (run.path / "changed").read_text() == (run.path / "new").read_text() == "new"
    assert stores.contents(bucket, lambda name: True) == {"changed": b"new", "new": b"new"}


def test_names_that_lead_out_of_the_mirror_are_refused(bucket, machine):
    stores._store("s3").call_s3("put_object", Bucket=bucket[5:], Key="art/../../x", Body=b"1")
    with pytest.raises(UserError, match=r"x: not the name of a file of a run"):
        Run(f"{bucket}/art")
    with pytest.raises(UserError, match=r"write the address without '\.\.'"):
        Run(f"{bucket}/../art")


def test_a_small_file_that_all_machines_see(bucket, machine, tmp_path):
    machine("a")
    for folder in (Run(f"{bucket}/art").path, tmp_path):
        file = folder / "predictions" / ".stop-1"
        assert shared.read(file) is None
        (folder / "predictions").mkdir(exist_ok=True)
        shared.write(file, b"now")
        assert shared.read(file) == b"now" and shared.create(file, b"then") is False
        shared.delete(file)
        assert shared.read(file) is None


def test_one_file_is_brought_up_to_date(bucket, machine, tmp_path):
    machine("a")
    a = Run(bucket).path
    machine("b")
    b = Run(bucket).path
    for text in ("one", "two"):
        machine("a")
        write_text(a / "predictions" / "shard", text)
        write_text(a / "predictions" / "other", text)
        machine("b")
        for _ in range(2):
            mirror.refresh_file(b / "predictions" / "shard")
            assert (b / "predictions" / "shard").read_text() == text and not (b / "predictions" / "other").exists()
    machine("a")
    remove(a / "predictions" / "shard")
    machine("b")
    for path in (b / "predictions" / "shard", tmp_path / "none"):
        mirror.refresh_file(path)
        assert not path.exists()


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://bucket/runs/art", "s3://bucket/runs/art"),
        ("s3:/bucket/runs/art", "s3://bucket/runs/art"),  # as Path has it
        ("gs://bucket/art/", "gs://bucket/art"),
        ("runs/art", None),
        ("/runs/s3:/art", None),
        ("C:/runs/art", None),
        ("c:/runs", None),
        ("s3:", None),
    ],
)
def test_a_url_is_told_from_a_folder(place, url):
    assert mirror.as_url(place) == url


def test_a_run_is_sent_to_other_machines_by_its_url(bucket, machine, tmp_path):
    machine("a")
    sent = pickle.dumps(Run(f"{bucket}/art").member("net").fold(1))
    machine("b")
    assert pickle.loads(sent).path.is_relative_to(tmp_path / "b") and pickle.loads(sent).number == 1


def test_a_blend_finds_the_other_run_on_each_machine(bucket, machine, tmp_path):
    machine("a")
    saved = seen_from(Run(f"{bucket}/runs/a"), Run(f"{bucket}/runs/b"))
    write_text(Run(f"{bucket}/runs/b").folds_csv, "id,fold\n")
    machine("b")
    sources = Sources({"b": saved}, {"": (), "b": ()})
    (other,) = other_runs(Run(f"{bucket}/runs/a"), sources)
    assert str(other) == f"{bucket}/runs/b" and other.folds_csv.read_text() == "id,fold\n"
    assert other.path.is_relative_to(tmp_path / "b")


def test_an_experiment_keeps_the_url(tmp_path):
    config = Config(run="s3://bucket/runs/art", data={"train": "t"}, backbone=[{"name": "a", "timm": "b"}])
    assert 'run = "s3://bucket/runs/art"\n' in to_toml(config)
    assert 'run = "runs/art"\n' in to_toml(config.model_copy(update={"run": tmp_path.parent / "runs/art"})).replace(
        f"{tmp_path.parent}/", ""
    )


# ---- claims --------------------------------------------------------------------------------------------------------


def test_a_claim_is_one_of_all_machines(bucket, machine, monkeypatch):
    machine("a")
    path = Run(f"{bucket}/art").path / ".claim"
    write_text(path.with_name("log"), "old")
    with claimed(path):
        machine("b")
        there = Run(f"{bucket}/art").path / ".claim"
        with pytest.raises(Taken, match=f"process {os.getpid()} on"), claimed(there):
            pass
        machine("a")
    with claimed(path, beat=0.05) as claim:
        assert ".claim-1" in objects(f"{bucket}/art") and not path.with_name(".claim-1").exists()
        deadline = time.monotonic() + 30
        while f".claim-1.{claim.id}" not in objects(f"{bucket}/art"):
            assert time.monotonic() < deadline
        write_text(path.with_name("log"), "new")
    assert objects(f"{bucket}/art") == ["log"]
    machine("b")
    with claimed(there):  # with it comes what was written meanwhile
        assert there.with_name("log").read_text() == "new"


def test_a_claim_of_a_dead_machine_is_taken_over_and_its_holder_writes_nothing_more(bucket, machine, tmp_path):
    write_claim(tmp_path / ".claim", count=1)
    folder = Run(f"{bucket}/art").path
    with claimed(folder / ".claim") as old:
        write_text(folder / "done.json", "old")
        seen = {".claim-1": None, f".claim-1.{old.id}": b"7"}
        dead = json.loads(stores.contents(f"{bucket}/art", lambda name: name == ".claim-1")[".claim-1"])
        stores.write(f"{bucket}/art/.claim-1", json.dumps({**dead, "machine": "9"}).encode())
        stores.write(f"{bucket}/art/.claim-1.{old.id}", seen[f".claim-1.{old.id}"])
        machine("b")
        there = Run(f"{bucket}/art").path
        for seconds in (0, 59):
            with pytest.raises(Taken), claimed(there / ".claim", clock=at(seconds)):
                pass
        with claimed(there / ".claim", clock=at(60)) as new:
            assert new.generation == 2
            write_text(there / "done.json", "new")
            machine("a")
            with pytest.raises(ClaimLost, match="was taken over by"):
                write_text(folder / "done.json", "older")
            machine("b")
    assert objects(f"{bucket}/art") == ["done.json"]
    assert stores.contents(f"{bucket}/art", lambda name: True) == {"done.json": b"new"}
    assert holder_of(there / ".claim") is None


def test_a_claim_is_given_back_where_its_folder_can_not_be_read(bucket):
    path = Run(f"{bucket}/art").path / ".claim"
    stores.write(f"{bucket}/art/a\\b", b"1")
    with pytest.raises(UserError, match="not the name of a file of a run"), claimed(path):
        pass
    assert objects(f"{bucket}/art") == ["a\\b"]


def test_a_claim_of_a_process_that_was_killed_here_is_free(bucket):
    path = Run(f"{bucket}/art").path / ".claim"
    stores.write(f"{bucket}/art/.claim-1", json.dumps({"id": "dead", **claim_race.DEAD}).encode())
    with claimed(path) as claim:
        assert claim.generation == 2 and objects(f"{bucket}/art") == [".claim-2"]


# ---- bad input -----------------------------------------------------------------------------------------------------


def refusal(url):
    with pytest.raises(UserError) as error:
        Run(url)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_can_not_be_read_is_one_line(bucket, monkeypatch, tmp_path):
    absent = refusal("s3://no-such-bucket/art")
    assert absent.startswith("s3://no-such-bucket/art: can't be read (The specified bucket does not exist); check")
    assert refusal("xyz://a/b").startswith("xyz://a/b: Protocol not known: xyz; stores are, for example, s3://")
    assert refusal("gs://a/b") == "gs://a/b: Please install gcsfs to access Google Storage"
    stores._store.cache_clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert refusal(f"{bucket}/art") == (
        f"{bucket}/art: can't be read (Unable to locate credentials); check the address, and that this machine has the "
        "store's credentials"
    )
    stores._store.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    assert refusal(f"{bucket}/art").endswith('not installed: pip install "ens-vision[cloud]"')
    assert not (tmp_path / "cache" / "mirrors").exists()


def test_a_bucket_that_can_not_be_written_is_one_line(bucket, monkeypatch):
    run = Run(f"{bucket}/art")
    denied = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket[5:]}/*"}
        ],
    }
    stores._store("s3").call_s3("put_bucket_policy", Bucket=bucket[5:], Policy=json.dumps(denied))
    for write in (lambda: require_writable(run.report_html), lambda: write_text(run.report_html, "page")):
        with pytest.raises(UserError, match=r"art: can't be written \(.*\); check the address, .* with leave to write"):
            write()
    with pytest.raises(UserError, match="can't be written"), claimed(run.path / ".claim"):
        pass
    assert objects(f"{bucket}/art") == []


def test_a_store_that_creates_an_object_twice_is_refused(bucket, monkeypatch):
    """An older one, which ignores If-None-Match."""
    run = Run(f"{bucket}/art")
    monkeypatch.setattr(stores, "create", lambda url, data, pauses: stores.write(url, data) or True)
    with pytest.raises(UserError, match="creates an object that is there already, without an error"):
        require_writable(run.report_html)


def test_folders_need_none_of_it(tmp_path):
    assert Run(tmp_path).path == tmp_path and pickle.loads(pickle.dumps(Run("runs/art"))) == Run("runs/art")
    shutil.rmtree(tmp_path)
    Run(tmp_path).refresh()
