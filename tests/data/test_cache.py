"""Decoded once, whatever is renamed, shared, damaged or killed; and never beyond the limit."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ens
from filelock import FileLock
from PIL import Image
from recorder import Recorder

from ensemble.data import digests
from ensemble.data.cache import shards
from ensemble.data.cache.folder import cache_folder
from ensemble.data.cache.store import clear, open_pixels, summary
from ensemble.data.copies.remembered import find_copies
from ensemble.data.pixels.decode import decode
from ensemble.data.pixels.preprocess import Decoding
from ensemble.data.scan import scan
from ensemble.errors import UserError
from ensemble.events import SILENT
from ensemble.files.reading import read_json
from ensemble.files.sealed import write_json

SMALL, LARGE = Decoding(32, "bicubic", None), Decoding(48, "bilinear", None)
LIMIT = 10**9
ONE = 32 * 32 * 3  # bytes of a square image, decoded to SMALL
SHAPES = [(40, 40), (70, 40), (40, 55), (200, 20), (33, 90)]
FILL = """
import sys
from pathlib import Path
from ensemble.data.cache import shards
from ensemble.data.cache.store import open_pixels
from ensemble.data.pixels.preprocess import Decoding
from ensemble.events import SILENT
folder, images, shard_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
shards.SHARD_BYTES = shard_bytes
decodings = [Decoding(32, "bicubic", None), Decoding(48, "bilinear", None)]
print("ready", flush=True)
sys.stdin.readline()
open_pixels(sorted(images.iterdir()), decodings, folder, 10**9, SILENT)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def paths(tmp_path, paint):
    """Five images of several shapes."""
    return [paint(tmp_path / "images" / f"{row}.png", *shape) for row, shape in enumerate(SHAPES)]


def fetch(paths, folder, *decodings, limit=LIMIT, **options):
    """Open the pixels: what they are, what was said, and how many files were decoded for it."""
    events = Recorder()
    pixels = open_pixels(paths, decodings or [SMALL], folder, limit, events, **options)
    return pixels, events.messages, sum(text.startswith("decoding") and done > 0 for text, done, _ in events.steps)


def assert_same(pixels, paths):
    for decoding, squares in pixels.items():
        for row, path in enumerate(paths):
            want = decode(path, decoding)
            assert squares.shapes[row].tolist() == list(want.shape[:2])
            assert np.array_equal(squares.image(row), want)


def parts(folder, ending="json"):
    return sorted((folder / "pixels").glob(f"*/*.{ending}"))


def age(folder, seconds, how=SMALL):
    """Make all shards of a decoding look as if they were used that long ago."""
    for path in (folder / "pixels" / shards.key(how)).glob("*.json"):
        os.utime(path, (time.time() - seconds,) * 2)


# ---- what is decoded, and when -------------------------------------------------------------------------------------


def test_the_second_call_decodes_nothing(paths, folder):
    pixels, said, decoded = fetch(paths, folder)
    assert decoded == 5 and said == []
    assert_same(pixels, paths)
    pixels, said, decoded = fetch(paths[::-1], folder)
    assert decoded == 0 and said == [] and len(parts(folder)) == len(parts(folder, "u8")) == 1
    assert_same(pixels, paths[::-1])


def test_a_renamed_file_is_not_decoded_again(paths, folder):
    fetch(paths, folder)
    moved = [path.rename(path.with_name(f"new {path.name}")) for path in paths]
    pixels, _, decoded = fetch(moved, folder)
    assert decoded == 0
    assert_same(pixels, moved)


def test_only_new_images_are_decoded(paths, folder):
    fetch(paths[:2], folder)
    pixels, _, decoded = fetch(paths, folder)
    assert decoded == 3
    assert_same(pixels, paths)


def test_copies_share_their_pixels(paths, folder):
    for path in paths[:2]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    rows = [*paths, *(path.with_name(f"copy of {path.name}") for path in paths[:2]), paths[3]]
    pixels, _, decoded = fetch(rows, folder)
    assert decoded == 5
    assert_same(pixels, rows)
    squares = pixels[SMALL]
    assert squares.starts[5:].tolist() == squares.starts[[0, 1, 3]].tolist()
    flat, starts = squares.flat()
    assert flat.dtype == np.uint8 and starts.dtype == np.int64
    assert flat.size == sum(decode(path, SMALL).size for path in paths)
    for row, path in enumerate(rows):
        want = decode(path, SMALL)
        assert np.array_equal(flat[starts[row] :][: want.size].reshape(want.shape), want)


def test_two_sizes_are_each_what_decode_gives_whatever_jpegs_scale(tmp_path, paint, folder):
    """64 px can be had from a half-scale JPEG of 300 px, 100 px can't: then the file is decoded in two ways."""
    files = [paint(tmp_path / "images" / name, 300, 280) for name in ("a.jpg", "b.png")]
    decodings = [Decoding(64, "bicubic", None), Decoding(100, "bicubic", None), Decoding(60, "lanczos", (90, 80))]
    pixels, _, decoded = fetch(files, folder, *decodings)
    assert decoded == 2 and list(pixels) == decodings
    assert_same(pixels, files)


def test_what_a_decoding_lacks_does_not_depend_on_another(paths, folder):
    fetch(paths[:3], folder, SMALL)
    fetch(paths[2:4], folder, LARGE)
    pixels, _, decoded = fetch(paths, folder, SMALL, LARGE)
    assert decoded == 4  # 0 and 1 lack LARGE, 3 SMALL, 4 both; 2 lacks none
    assert_same(pixels, paths)


def test_rows_lie_in_several_shards(paths, folder, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 2 * ONE)
    pixels, _, _ = fetch(paths, folder)
    assert len(parts(folder)) >= 3 and len(pixels[SMALL].parts) == len(parts(folder))
    assert_same(pixels, paths)
    pixels, _, decoded = fetch(paths, folder)
    assert decoded == 0
    assert_same(pixels, paths)
    flat, starts = pixels[SMALL].flat()
    assert (
        flat.size == sum(part.size for part in pixels[SMALL].parts) and starts[0] == 0 and (np.diff(starts) > 0).all()
    )


def test_the_key_names_all_that_pixels_depend_on():
    keys = {
        shards.key(Decoding(size, interpolation, crop))
        for size in (32, 33)
        for interpolation in ("bicubic", "bilinear")
        for crop in (None, (10, 20), (20, 10))
    }
    assert len(keys) == 12
    assert re.fullmatch(r"32-bicubic-full-a2-v\d+-pillow[\d.]+-jpeg[\d.]+-torch[\d.]+\S*", shards.key(SMALL))


# ---- changes on disk -----------------------------------------------------------------------------------------------


def test_an_image_that_changed_is_read_again(tmp_path, folder):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (32, 32), "red").save(path)
    fetch([path], folder)
    size, times = path.stat().st_size, (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    Image.new("RGB", (32, 32), "blue").save(path)
    os.utime(path, ns=times)
    assert path.stat().st_size == size
    pixels, _, decoded = fetch([path], folder)
    assert decoded == 1 and pixels[SMALL].image(0)[0, 0].tolist() == [0, 0, 255]


def test_the_index_of_contents_knows_files_that_did_not_change(tmp_path, paths, folder, monkeypatch):
    monkeypatch.setattr(digests, "RACY_SECONDS", -60.0)
    ask = lambda: digests.digests(paths, folder, SILENT)  # noqa: E731
    first = ask()
    (index,) = folder.glob("*.json")
    held = read_json(index)
    assert held.keys() == {f"/{path.name}" for path in paths}
    held["/0.png"][3] = "remembered"
    write_json(index, held)
    assert ask() == ["remembered", *first[1:]]
    times = (paths[0].stat().st_atime_ns, paths[0].stat().st_mtime_ns)
    paths[0].write_bytes(paths[0].read_bytes())
    os.utime(paths[0], ns=times)  # a copy that keeps its time has another ctime
    assert ask() == first
    paths[4].unlink()
    paths[3].write_bytes(paths[3].read_bytes() + b"x")
    del paths[4]
    assert ask()[:3] == first[:3] and read_json(index).keys() == {f"/{path.name}" for path in paths}
    for broken in ("", "[]", "{", '{"a": 3}'):
        index.write_text(broken)
        assert ask()[:3] == first[:3]


def test_a_file_that_just_changed_is_not_remembered(paths, folder):
    digests.digests(paths, folder, SILENT)
    assert not list(folder.glob("*"))


def test_one_wrong_byte_is_found_and_mended(paths, folder):
    fetch(paths, folder)
    (path,) = parts(folder, "u8")
    data = bytearray(path.read_bytes())
    data[ONE + 5] ^= 1  # in the second image
    path.write_bytes(data)
    assert not np.array_equal(fetch(paths, folder, verify=False)[0][SMALL].image(1), decode(paths[1], SMALL))
    pixels, said, decoded = fetch(paths, folder)
    assert said == ["cache: 1 image was damaged on disk; decoding again"] and decoded == 1
    assert_same(pixels, paths)
    pixels, said, decoded = fetch(paths, folder)
    assert said == [] and decoded == 0
    assert_same(pixels, paths)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(("keep", "lost"), [(0, 5), (ONE, 4), (2 * ONE, 4), (-1, 1)])
def test_a_shard_that_was_cut_short_is_mended(paths, folder, keep, lost, verify):
    fetch(paths, folder)
    (path,) = parts(folder, "u8")
    path.write_bytes(path.read_bytes()[:keep])
    pixels, said, decoded = fetch(paths, folder, verify=verify)
    assert decoded == lost and len(said) == 1 and said[0].startswith(f"cache: {lost} image")
    assert_same(pixels, paths)
    pixels, said, decoded = fetch(paths, folder)
    assert said == [] and decoded == 0


@pytest.mark.parametrize("keep", [0, 1, 40, -3])
def test_a_list_that_was_cut_short_is_mended(paths, folder, keep):
    fetch(paths, folder)
    (path,) = parts(folder)
    path.write_text(path.read_text()[:keep])
    pixels, _, decoded = fetch(paths, folder)
    assert decoded == 5 and path not in parts(folder) and len(parts(folder)) == len(parts(folder, "u8")) == 1
    assert_same(pixels, paths)


@pytest.mark.parametrize("held", ["{}", "[]", '{"images": 3}', '{"images": {"a": [1]}}', '{"images": {"a": "bcde"}}'])
def test_a_list_of_something_else_is_mended(paths, folder, held):
    fetch(paths, folder)
    parts(folder)[0].write_text(held)
    pixels, _, decoded = fetch(paths, folder)
    assert decoded == 5
    assert_same(pixels, paths)


def test_a_file_that_changes_while_it_is_read_is_named(paths, folder, monkeypatch):
    monkeypatch.setattr(digests, "RACY_SECONDS", -60.0)
    digests.digests(paths, folder / "digests", SILENT)
    (index,) = (folder / "digests").glob("*.json")
    held = read_json(index)
    held["/2.png"][3] = "of another time"
    write_json(index, held)
    with pytest.raises(UserError, match=r"2\.png: changed while it was read; start again"):
        fetch(paths, folder)


# ---- what is not an image, or not there ----------------------------------------------------------------------------


def test_an_unreadable_image_is_named_and_the_others_are_kept(paths, folder):
    bad = paths[3].with_name("bad.png")
    bad.write_text("no")
    with pytest.raises(UserError) as caught:
        fetch([*paths[:3], bad, *paths[3:]], folder)
    assert str(caught.value) == (
        f"{bad}: not a readable image (cannot identify image file 'it'); replace it or remove it"
    )
    pixels, _, decoded = fetch(paths, folder)
    assert decoded == 2
    assert_same(pixels, paths)


def test_a_missing_image_is_named(paths, folder):
    paths[2].unlink()
    with pytest.raises(UserError, match=r"2\.png: not a readable image \(\[Errno 2\]"):
        fetch(paths, folder)


def test_no_images(folder):
    pixels, _, _ = fetch([], folder)
    assert len(pixels[SMALL].shapes) == 0 and pixels[SMALL].flat()[0].size == 0


def test_a_folder_that_can_not_be_written_is_named(paths, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        fetch(paths, tmp_path / "file" / "cache")
    assert str(caught.value) == (
        f"{tmp_path / 'file' / 'cache'}: decoded pixels can't be kept there (Not a directory); set data.cache to a "
        'folder that can be written, or to "off"'
    )


# ---- the limit -----------------------------------------------------------------------------------------------------


@pytest.fixture
def squares(tmp_path, paint):
    """squares(name): four square images, which take 4 x ONE bytes."""
    return lambda name: [paint(tmp_path / name / f"{name}{row}.png") for row in range(4)]


def test_the_least_recently_used_pixels_go_first(squares, folder):
    for name in "abcde":
        fetch(squares(name), folder)
    held = parts(folder)
    for position, path in enumerate(held):  # the names are random, so their order is none that could help
        os.utime(path, (time.time() - 100 * position,) * 2)
    fetch(squares("f"), folder, limit=16 * ONE)
    assert set(parts(folder)) - set(held) and set(parts(folder)) & set(held) == set(held[:3])
    assert len(parts(folder)) == len(parts(folder, "u8")) == 4


def test_opening_is_use(squares, folder):
    fetch(squares("a"), folder)
    (path,) = parts(folder)
    age(folder, 300)
    fetch(squares("b"), folder)
    assert path.stat().st_mtime < time.time() - 200
    fetch(squares("a"), folder)
    assert path.stat().st_mtime > time.time() - 200


def test_pixels_that_this_call_needs_stay_however_old(squares, folder):
    first, second, third = (squares(name) for name in "abc")
    fetch(first, folder)
    age(folder, 300)
    fetch(second, folder)
    pixels, _, decoded = fetch([*first, *third], folder, limit=8 * ONE)
    assert decoded == 4
    assert_same(pixels, [*first, *third])
    assert sum(path.stat().st_size for path in parts(folder, "u8")) == 8 * ONE


def test_what_can_not_fit_is_refused_before_anything_is_decoded_or_removed(squares, folder):
    first, second = (squares(name) for name in "ab")
    fetch(first, folder)
    with pytest.raises(UserError) as caught:
        fetch(second, folder, limit=4 * ONE - 1)
    assert str(caught.value) == (
        f"the decoded pixels of this run need at least 12.3 kB, and the cache in {folder} may hold 12.3 kB: raise "
        'data.cache_limit_gb, or set data.cache = "off"'
    )
    assert fetch(first, folder)[2] == 0
    with pytest.raises(UserError, match=r"need at least 24\.6 kB"):
        fetch([*first, *second], folder, limit=8 * ONE - 1)
    assert fetch(second, folder, limit=4 * ONE)[2] == 4


def test_the_need_is_measured_where_the_count_does_not_tell(paths, folder):
    need = sum(decode(path, SMALL).size for path in paths)
    assert 5 * ONE < need < 10 * ONE
    with pytest.raises(UserError, match=r"need 25 kB, and"):
        fetch(paths, folder, limit=need - 1)
    assert not parts(folder, "u8")
    pixels, _, decoded = fetch(paths, folder, limit=need)
    assert decoded == 5 and sum(path.stat().st_size for path in parts(folder, "u8")) == need
    assert_same(pixels, paths)


def test_a_shard_that_also_holds_what_is_not_needed_may_have_to_go(squares, folder):
    first, second, third = (squares(name) for name in "abc")
    fetch([*first, *second[:2]], folder)
    fetch(third, folder)
    pixels, _, decoded = fetch(second, folder, limit=7 * ONE)  # 2 of them lie there, among 4 others
    assert decoded == 4 and sum(path.stat().st_size for path in parts(folder, "u8")) == 4 * ONE
    assert_same(pixels, second)


def test_mapped_pixels_outlive_their_file(squares, folder):
    first, second = (squares(name) for name in "ab")
    pixels, _, _ = fetch(first, folder)
    fetch(second, folder, limit=4 * ONE)
    assert_same(pixels, first)


# ---- processes -----------------------------------------------------------------------------------------------------


def filler(folder, images, shard_bytes=4 * ONE):
    """Another process, about to fill the cache when told to."""
    command = [sys.executable, "-c", FILL, str(folder), str(images), str(shard_bytes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process):
    _, errors = process.communicate()
    return process.returncode, errors.decode()


@pytest.fixture
def many(tmp_path, paint):
    return [paint(tmp_path / "many" / f"{row:03}.png", 64, 48 + row % 16) for row in range(150)]


@pytest.mark.process
def test_two_processes_at_once_make_one_copy(tmp_path, many, folder):
    fillers = [filler(folder, tmp_path / "many") for _ in range(2)]
    for process in fillers:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [end(process) for process in fillers] == [(0, ""), (0, "")]
    held = [digest for path in parts(folder) for digest in shards.read_places(path)]
    assert len(held) == 300 and len(set(held)) == 150 and len(parts(folder)) > 50
    pixels, said, decoded = fetch(many, folder, SMALL, LARGE)
    assert decoded == 0 and said == []
    assert_same(pixels, many)


def test_the_one_that_waits_says_so(paths, folder, monkeypatch):
    from ensemble.data.cache import store

    monkeypatch.setattr(store, "WAIT_SECONDS", 0.01)
    folder.mkdir()
    other = FileLock(folder / ".lock")
    other.acquire()

    def release(text, done, total):
        if text.startswith("waiting"):
            other.release()

    events = Recorder(on_progress=release)
    open_pixels(paths, [SMALL], folder, LIMIT, events)
    shown = [text for text, *_ in events.steps]
    assert "waiting for another process, which fills the cache" in shown and shown[-1] == "checking the cached pixels"


@pytest.mark.process
@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_killed_while_filling_the_next_one_goes_on(tmp_path, many, folder, count):
    process = filler(folder, tmp_path / "many")
    process.stdin.write(b"\n")
    process.stdin.flush()
    while not (folder / ".lock").exists() or len(parts(folder)) < count:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    end(process)
    whole = {digest for path in parts(folder) for digest in shards.read_places(path)}
    pixels, said, decoded = fetch(many, folder, SMALL, LARGE)
    assert said == [] and 150 - len(whole) <= decoded <= 150
    assert_same(pixels, many)
    assert {path.stem for path in parts(folder)} == {path.stem for path in parts(folder, "u8")}
    assert not list(folder.rglob(".*.tmp"))
    assert fetch(many, folder, SMALL, LARGE)[2] == 0


@pytest.mark.process
def test_a_full_disk_is_one_line_and_what_was_whole_is_used(tmp_path, many, folder):
    fetch(many[:100], folder, SMALL, LARGE)
    before = parts(folder)
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    )
    command = [sys.executable, "-c", limited + FILL, str(folder), str(tmp_path / "many"), str(LIMIT)]
    done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("OSError: [Errno 27] could not be written (File too large)")
    assert re.search(rf"{re.escape(str(folder))}/pixels/[^/]*/[0-9a-f]+\.u8'$", last)
    assert set(before) <= set(parts(folder))
    assert {path.stem for path in parts(folder)} == {path.stem for path in parts(folder, "u8")}
    pixels, said, decoded = fetch(many, folder, SMALL, LARGE)
    assert said == [] and 0 < decoded <= 50
    assert_same(pixels, many)


def test_a_disk_without_room_is_said_before_anything_is_decoded(paths, folder):
    with pytest.raises(OSError, match=r"its disk has .* free") as caught:
        fetch(paths, folder, Decoding(10**7, "bicubic", None), limit=10**18)
    assert caught.value.filename == str(folder)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder("~/pixels").as_posix() == "/home/me/pixels"
    assert cache_folder("pixels").as_posix() == "pixels"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("ENS_CACHE", str(tmp_path))
    assert cache_folder("auto") == tmp_path
    monkeypatch.delenv("ENS_CACHE")
    assert cache_folder("auto").as_posix() == "/caches/ens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("auto").as_posix() == "/home/me/.cache/ens"


def test_the_command_lists_and_clears(monkeypatch, capfd, tmp_path, paths, folder):
    monkeypatch.setenv("ENS_CACHE", str(folder))
    assert ens(monkeypatch, capfd, "cache") == (0, f"{folder}: 0 kB of decoded pixels\n", "")
    assert ens(monkeypatch, capfd, "cache", "--clear")[:2] == (0, f"{folder}: removed 0 kB\n")
    assert not folder.exists()
    fetch(paths, folder, SMALL)
    fetch(paths[:2], folder, LARGE)
    scanned = scan(paths, folder, SILENT)
    find_copies(scanned, np.arange(len(paths)), folder, SILENT)
    age(folder, 3600, LARGE)
    assert [(row.images, row.decoding) for row in summary(folder)] == [(5, shards.key(SMALL)), (2, shards.key(LARGE))]
    mine = [folder / "pixels" / "notes.json", folder / "pixels" / shards.key(LARGE) / "notes.json"]
    mine += [folder / "pixels" / "other" / "a.json", folder / "digests" / "a.json", folder / "copies" / "notes.json"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    _, out, _ = ens(monkeypatch, capfd, "cache")
    lines = out.splitlines()
    today = time.strftime("%Y-%m-%d")
    assert lines[0] == f"{folder}: 44 kB of decoded pixels" and len(lines) == 4
    assert lines[2] == f"       5    25 kB  {today}  {shards.key(SMALL)}"
    for name, digits in {"digests": 16, "numerics": 24, "speeds": 24}.items():
        write_json(folder / name / f"{'0' * digits}.json", {})
    kept = {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"} - set(mine)
    assert {path.relative_to(folder).parts[0] for path in kept} == {
        "copies", "digests", "numerics", "pixels", "scans", "speeds"
    }  # fmt: skip
    removed = sum(path.stat().st_size for path in kept if path.parent.parent.name != "pixels" or path.suffix == ".u8")
    assert ens(monkeypatch, capfd, "cache", "--clear", "--folder", folder)[:2] == (
        0,
        f"{folder}: removed {shards.size(removed)}\n",
    )
    assert {path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"} == set(mine)
    assert fetch(paths, folder)[2] == 5


def test_a_cache_that_is_being_filled_is_not_cleared(paths, folder):
    fetch(paths, folder)
    with FileLock(folder / ".lock"), pytest.raises(UserError, match="another process is filling it; clear it when"):
        clear(folder)
    assert fetch(paths, folder)[2] == 0
