"""`ens verify`: compares every file of a run, and its cached pixels, with the digests that were kept of them. Never
imports torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.blend import list_blends, load_blend
from ensemble.blend.described import read_described
from ensemble.blend.held_out import load_held_out
from ensemble.blend.sources import other_runs
from ensemble.config import Config, load_config, load_run_config
from ensemble.data.cache import shards
from ensemble.data.cache.folder import cache_folder
from ensemble.data.digests import digests as digests_of
from ensemble.data.folds import read_folds
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.files.damage import loss_of
from ensemble.files.mirror import display_name
from ensemble.files.reading import read_json
from ensemble.plural import pluralize
from ensemble.run import Fold, Run
from ensemble.run.vouched import digest_in_done, require_sound_in_fold

Check = Callable[[], object]  # raises UserError where a file is not sound; False: nothing vouches for it


@dataclass(frozen=True)
class BadFile:
    """A file that is damaged or missing.

    state: "damaged" or "missing"
    line: which file, what is lost with it, and which command makes it again
    """

    path: Path
    state: str
    line: str


@dataclass(frozen=True)
class Verified:
    """What `verify` found.

    run: its directory
    files: how many were checked
    findings: the files that are damaged or missing
    unvouched: how many of the files were made before digests were kept
    unfinished: folds that have begun and are not done
    images: how many cached images were compared
    notes: what could not be checked
    """

    run: Path
    files: int
    findings: tuple[BadFile, ...]
    unvouched: int
    unfinished: tuple[str, ...]
    images: int
    notes: tuple[str, ...]


def verify(run: Run, events: Events, cache: Path | None = None) -> Verified:
    """Check all files of a run, wherever it lies now. Changes nothing.

    cache: the folder of decoded pixels, if it is not where the run's config.toml says. Raises UserError if `run` is not
    a run.
    """
    if not run.provenance_json.is_file():
        run.require()
    checks = list(_checks(run))
    findings: list[BadFile] = []
    unvouched = 0
    for number, (path, check) in enumerate(checks):
        events.progress("comparing digests", number, len(checks))
        if not path.is_file():
            lost, again = loss_of(path)
            findings.append(BadFile(path, "missing", f"{path}: missing; lost: {lost}; {again}"))
            continue
        try:
            unvouched += check() is False
        except (UserError, OSError) as error:
            findings.append(BadFile(path, "damaged", str(error)))
    images, notes = _verify_pixels(run, cache, events, findings)
    unfinished = tuple(str(fold) for fold in _folds(run) if fold.log_file.is_file() and not fold.done_json.is_file())
    return Verified(run.path, len(checks), tuple(findings), unvouched, unfinished, images, notes)


def lines(found: Verified) -> list[str]:
    """What was found, in words."""
    report = [finding.line for finding in found.findings]
    if found.unfinished:
        report.append(f"not finished, so nothing vouches for them yet: {', '.join(found.unfinished)}")
    if found.unvouched:
        count = pluralize(found.unvouched, "file was", "files were")
        report.append(f"{count} made before digests were kept: damage there cannot be detected")
    report += found.notes
    counts = {state: sum(finding.state == state for finding in found.findings) for state in ("damaged", "missing")}
    sound = found.files - sum(finding.path.suffix != ".u8" for finding in found.findings) - found.unvouched
    words = [
        f"{sound} of {pluralize(found.files, 'file')} sound",
        *(f"{n} {state}" for state, n in counts.items() if n),
    ]
    words += [f"{found.unvouched} without a digest"] if found.unvouched else []
    return [
        *report,
        f"{display_name(found.run)}: {', '.join(words)}; {pluralize(found.images, 'cached image')} compared",
    ]


def _checks(run: Run) -> Iterator[tuple[Path, Check]]:
    """Each file that has to be there, or is, with its check."""
    yield run.provenance_json, _sealed(run.provenance_json, run.read_provenance)
    yield run.folds_csv, _vouched(run, run.folds_csv, lambda: read_folds(run))
    yield run.classes_json, _vouched(run, run.classes_json, run.read_classes)
    yield run.config_toml, _sealed(run.config_toml, lambda: load_config(run.config_toml))
    trackers = sorted(run.tracker_json("x").parent.glob("*.json"))
    for path in (run.contents_json, run.view_search_json, run.audit_json, run.slices_json, *trackers):
        if path.is_file():
            yield path, _sealed(path)
    for member in map(run.member, run.member_names()):
        for path in (member.settings_json, member.preprocess_json):
            yield path, _sealed(path)
        for path in (
            member.numerics_json,
            member.speeds_json,
            member.memory_json,
            member.teachers_json,
            member.aside_json,
        ):
            if path.is_file():
                yield path, _sealed(path)
        for path in (member.probe_file, member.refit_probe_file):
            if path.is_file():
                yield path, _tensors(path)
    for fold in _folds(run):
        yield from _of_fold(fold)
    for name in list_blends(run):
        yield from _of_blend(run, name)
    for path in sorted((run.path / "unknown").rglob("*.safetensors")):
        yield path, _tensors(path)
    for path in sorted((run.path / "predictions").rglob("*.safetensors")):
        yield path, _tensors(path)
    for path in sorted((run.path / "predictions").rglob("written-*.json")):  # beside the shards of an unfinished one
        yield path, _sealed(path)


def _of_fold(fold: Fold) -> Iterator[tuple[Path, Check]]:
    if fold.done_json.is_file():
        yield fold.done_json, _sealed(fold.done_json, fold.read_done)
        for path in fold.result_files:
            yield path, _tensors(path)
        if fold.log_file.is_file():
            yield fold.log_file, lambda: _log(fold)
    for path in (fold.added_views_file, fold.state_file):
        if path.is_file():
            yield path, _tensors(path)
    for path in (fold.inference_json, fold.failure_json):
        if path.is_file():
            yield path, _sealed(path)


def _of_blend(run: Run, name: str) -> Iterator[tuple[Path, Check]]:
    yield run.blend_json(name), _sealed(run.blend_json(name))
    yield run.blend_file(name), lambda: load_blend(run, name) and None
    try:
        blend = load_blend(run, name)
    except UserError:
        return  # the check of the same file says so
    sha256 = read_described(run, name).get("held_out")
    if sha256 is not None:
        yield run.held_out_file(name), lambda: load_held_out(run, name, sha256, len(blend.classes)) and True
    for other in other_runs(run, blend.sources):
        yield run.blend_json(name), lambda other=other: _is_there(other)  # type: ignore[misc]
    for member in blend.external:
        kept = run.external_file(name, member)
        if kept.is_file():  # without test predictions there is none
            yield kept, lambda kept=kept: load_logits(kept, mapped=True) and _tensors(kept)()  # type: ignore[misc]


def _is_there(other: Run) -> bool:
    """Of another run that a blend holds members of: `ens verify` of that run checks its files."""
    if not other.folds_csv.is_file():
        raise UserError(f"{other}: is no run directory, but the blend holds members of it; bring it back there")
    return True


def _sealed(path: Path, read: Callable[[], object] | None = None) -> Check:
    def check() -> bool:
        vouched = sealed.require_sound_file(path)
        if read is not None:
            read()
        elif path.suffix == ".json":
            read_json(path)
        return vouched

    return check


def _vouched(run: Run, path: Path, read: Callable[[], object]) -> Check:
    """Of a file that provenance.json vouches for."""

    def check() -> bool:
        try:
            vouched = path.name in run.read_provenance().get("files", {})
        except UserError:  # the check of provenance.json says so
            return False
        read()
        return vouched

    return check


def _tensors(path: Path) -> Check:
    return lambda: require_sound_in_fold(path)


def _log(fold: Fold) -> bool:
    fold.read_log()
    return digest_in_done(fold.log_file) is not None


def _folds(run: Run) -> list[Fold]:
    """All networks' directories: of folds, soups and refits."""
    members = [run.member(name) for name in run.member_names()]
    return [each for member in members for each in (*member.folds(), member.soup(), *member.refits())]


def _verify_pixels(
    run: Run, cache: Path | None, events: Events, findings: list[BadFile]
) -> tuple[int, tuple[str, ...]]:
    """How many cached images of the run were compared with their checksums. What is damaged is added to `findings`; it
    is decoded again where it is needed, so no number was ever made of it."""
    try:
        config = load_run_config(run.config_toml)
    except (UserError, OSError):
        return 0, (f"without {run.config_toml} it is not known where its pixels are cached",)
    if cache is None and config.data.cache == "off":
        return 0, ()
    folder = cache or cache_folder(config.data.cache)
    if not (folder / "pixels").is_dir():
        where = "" if cache else "; name its folder with --cache if it was moved"
        return 0, (f"{folder}: holds no cached pixels{where}",)
    digests, notes = _images(config, folder, events)
    wanted = None if digests is None else set(digests)
    compared = 0
    lists = [path for decoding in shards.decodings(folder) for path in shards.lists(decoding)]
    for number, path in enumerate(lists):
        events.progress("comparing the cached pixels", number, len(lists))
        places = shards.read_places(path)
        again = "its images are decoded again where they are needed"
        if places is None:
            findings.append(BadFile(path, "damaged", f"{path}: damaged: not the list that ens wrote; {again}"))
            continue
        names = places.keys() if wanted is None else places.keys() & wanted
        for shard in shards.open_shards_at([path], names):
            compared += len(shard.places)
            bad = shard.damaged(shard.places, verify=True)
            if bad:
                data = shards.data_file(path)
                count = f"{len(bad)} of {pluralize(len(shard.places), 'image')}"
                findings.append(BadFile(data, "damaged", f"{data}: {count} damaged; {again}"))
    return compared, notes


def _images(config: Config, folder: Path, events: Events) -> tuple[Sequence[str] | None, tuple[str, ...]]:
    """The digests of the run's images; None where these can't be read: then the whole cache is compared."""
    try:
        return digests_of(read_labelled(config).paths, folder / "digests", events), ()
    except (UserError, OSError) as error:
        return None, (f"the images of the run can't be read here ({error}): all of {folder} was compared instead",)
