"""`ens verify`: every file of a run, and its cached pixels, held against the digests that were kept of them. Never
imports torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble import rundir
from ensemble.blend import list_blends, load_blend
from ensemble.config import Config, load_config, load_run_config
from ensemble.data.cache import shards
from ensemble.data.cache.store import cache_folder
from ensemble.data.digests import digests as digests_of
from ensemble.data.folds import read_folds
from ensemble.data.labelled import read_labelled
from ensemble.data.logits import load_logits
from ensemble.errors import UserError
from ensemble.files import sealed
from ensemble.files.damage import loss_of
from ensemble.files.reading import read_json
from ensemble.progress import Show
from ensemble.run import Run
from ensemble.run.vouched import digest_in_done, require_sound_in_fold

Check = Callable[[], object]  # raises UserError where a file is not sound; False: nothing vouches for it


@dataclass(frozen=True)
class Finding:
    """A file that is damaged, or missing. line: which, what is lost and what makes it again."""

    path: Path
    state: str  # "damaged" or "missing"
    line: str


@dataclass(frozen=True)
class Verified:
    """files: how many were looked at. unvouched: of these, those that were made before digests were kept. unfinished:
    folds that are begun and not done. images: cached ones that were compared. notes: what could not be looked at."""

    run: Path
    files: int
    findings: tuple[Finding, ...]
    unvouched: int
    unfinished: tuple[str, ...]
    images: int
    notes: tuple[str, ...]


def verify(run: Path, show: Show, cache: Path | None = None) -> Verified:
    """Look at all files of a run, wherever it lies now. cache: the folder of decoded pixels, if it is not where the
    run's config.toml has it. Changes nothing. Raises UserError if `run` is no run."""
    if not rundir.provenance_json(run).is_file():
        rundir.require_run(run)
    checks = list(_checks(run))
    findings: list[Finding] = []
    unvouched = 0
    for number, (path, check) in enumerate(checks):
        show("comparing digests", number, len(checks))
        if not path.is_file():
            lost, again = loss_of(path)
            findings.append(Finding(path, "missing", f"{path}: missing; lost: {lost}; {again}"))
            continue
        try:
            unvouched += check() is False
        except (UserError, OSError) as error:
            findings.append(Finding(path, "damaged", str(error)))
    images, notes = _verify_pixels(run, cache, show, findings)
    begun = [fold for fold in _folds(run) if rundir.log_file(fold).is_file() and not rundir.done_json(fold).is_file()]
    unfinished = tuple(f"{fold.parent.name} {fold.name}" for fold in begun)
    return Verified(run, len(checks), tuple(findings), unvouched, unfinished, images, notes)


def lines(found: Verified) -> list[str]:
    """What was found, in words."""
    said = [finding.line for finding in found.findings]
    if found.unfinished:
        said.append(f"not finished, so nothing vouches for them yet: {', '.join(found.unfinished)}")
    if found.unvouched:
        said.append(f"{found.unvouched} files were made before digests were kept: damage in them can't be told")
    said += found.notes
    counts = {state: sum(finding.state == state for finding in found.findings) for state in ("damaged", "missing")}
    sound = found.files - sum(finding.path.suffix != ".u8" for finding in found.findings) - found.unvouched
    words = [f"{sound} of {found.files} files sound", *(f"{n} {state}" for state, n in counts.items() if n)]
    words += [f"{found.unvouched} without a digest"] if found.unvouched else []
    return [*said, f"{found.run}: {', '.join(words)}; {found.images} cached images compared"]


def _checks(run: Path) -> Iterator[tuple[Path, Check]]:
    """Each file that has to be there, or is, with its check."""
    yield rundir.provenance_json(run), _sealed(rundir.provenance_json(run), lambda: rundir.read_provenance(run))
    yield rundir.folds_csv(run), _vouched(rundir.folds_csv(run), lambda: read_folds(Run(run)))
    yield rundir.classes_json(run), _vouched(rundir.classes_json(run), lambda: rundir.read_classes(run))
    yield rundir.config_toml(run), _sealed(rundir.config_toml(run), lambda: load_config(rundir.config_toml(run)))
    for path in (rundir.contents_json(run), rundir.view_search_json(run), rundir.audit_json(run)):
        if path.is_file():
            yield path, _sealed(path)
    for member in rundir.members(run):
        for path in (rundir.settings_json(run, member), rundir.preprocess_json(run, member)):
            yield path, _sealed(path)
        for path in (rundir.numerics_json(run, member), rundir.speeds_json(run, member)):
            if path.is_file():
                yield path, _sealed(path)
        path = rundir.probe_file(run, member)
        if path.is_file():
            yield path, _tensors(path)
    for fold in _folds(run):
        yield from _of_fold(fold)
    for name in list_blends(run):
        yield from _of_blend(run, name)
    for path in sorted((run / "predictions").rglob("*.safetensors")):
        yield path, _tensors(path)


def _of_fold(fold: Path) -> Iterator[tuple[Path, Check]]:
    marker = rundir.done_json(fold)
    if marker.is_file():
        yield marker, _sealed(marker, lambda: rundir.read_done(fold))
        for path in (rundir.model_file(fold), rundir.oof_file(fold)):
            yield path, _tensors(path)
        if rundir.log_file(fold).is_file():
            yield rundir.log_file(fold), lambda: _log(fold)
    for path in (rundir.added_file(fold), rundir.state_file(fold)):
        if path.is_file():
            yield path, _tensors(path)
    if rundir.inference_json(fold).is_file():
        yield rundir.inference_json(fold), _sealed(rundir.inference_json(fold))


def _of_blend(run: Path, name: str) -> Iterator[tuple[Path, Check]]:
    path = rundir.blend_json(run, name)
    yield path, _sealed(path)
    yield rundir.blend_file(run, name), lambda: load_blend(run, name) and None
    try:
        foreign = load_blend(run, name).foreign
    except UserError:
        return  # which the check of the same says
    for member in foreign:
        kept = rundir.foreign_file(run, name, member)
        if kept.is_file():  # without test predictions there is none
            yield kept, lambda kept=kept: load_logits(kept, mapped=True) and _tensors(kept)()  # type: ignore[misc]


def _sealed(path: Path, read: Callable[[], object] | None = None) -> Check:
    def check() -> bool:
        vouched = sealed.require_sound_file(path)
        if read is not None:
            read()
        elif path.suffix == ".json":
            read_json(path)
        return vouched

    return check


def _vouched(path: Path, read: Callable[[], object]) -> Check:
    """Of a file that provenance.json vouches for."""

    def check() -> bool:
        try:
            vouched = path.name in rundir.read_provenance(path.parent).get("files", {})
        except UserError:  # which is said of that file
            return False
        read()
        return vouched

    return check


def _tensors(path: Path) -> Check:
    return lambda: require_sound_in_fold(path)


def _log(fold: Path) -> bool:
    rundir.read_log(fold)
    return digest_in_done(rundir.log_file(fold)) is not None


def _folds(run: Path) -> list[Path]:
    return [rundir.fold_dir(run, name, fold) for name in rundir.members(run) for fold in rundir.folds_of(run, name)]


def _verify_pixels(run: Path, cache: Path | None, show: Show, findings: list[Finding]) -> tuple[int, tuple[str, ...]]:
    """How many cached images of the run were compared with their checksums. What is damaged is added to `findings`; it
    is decoded again where it is needed, so no number was ever made of it."""
    try:
        config = load_run_config(rundir.config_toml(run))
    except (UserError, OSError):
        return 0, (f"without {rundir.config_toml(run)} it is not known where its pixels are cached",)
    if cache is None and config.data.cache == "off":
        return 0, ()
    folder = cache or cache_folder(config.data.cache)
    if not (folder / "pixels").is_dir():
        where = "" if cache else "; name its folder with --cache if it was moved"
        return 0, (f"{folder}: holds no cached pixels{where}",)
    digests, notes = _images(config, folder, show)
    wanted = None if digests is None else set(digests)
    compared = 0
    lists = [path for own in shards.decodings(folder) for path in shards.lists(own)]
    for number, path in enumerate(lists):
        show("comparing the cached pixels", number, len(lists))
        places = shards.read_places(path)
        again = "its images are decoded again where they are needed"
        if places is None:
            findings.append(Finding(path, "damaged", f"{path}: damaged: not the list that ens wrote; {again}"))
            continue
        names = places.keys() if wanted is None else places.keys() & wanted
        for shard in shards.open_shards_at([path], names):
            compared += len(shard.places)
            bad = shard.damaged(shard.places, verify=True)
            if bad:
                data = shards.data_file(path)
                count = f"{len(bad)} of {len(shard.places)} images"
                findings.append(Finding(data, "damaged", f"{data}: {count} damaged; {again}"))
    return compared, notes


def _images(config: Config, folder: Path, show: Show) -> tuple[Sequence[str] | None, tuple[str, ...]]:
    """The digests of the run's images; None where these can't be read: all that the cache holds counts then."""
    try:
        return digests_of(read_labelled(config).paths, folder / "digests", show), ()
    except (UserError, OSError) as error:
        return None, (f"the images of the run can't be read here ({error}): all of {folder} was compared instead",)
