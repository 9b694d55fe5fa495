"""Before training: finished folds whose files are damaged are opened again."""

from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ensemble import rundir
from ensemble.errors import Damaged, UserError
from ensemble.progress import Show
from ensemble.run.vouched import require_sound_in_fold

Say = Callable[[str], None]


def reopen_damaged(run: Path, members: Sequence[str], show: Show, say: Say) -> None:
    """Take the done marker of each finished fold away whose weights or logits are not as they were written, so that it
    is trained again; a marker that is damaged itself is written again if the files vouch for themselves. A log that is
    damaged is only said: no number comes from it. Reads all weights once."""
    folds = [rundir.fold_dir(run, member, fold) for member in members for fold in rundir.folds_of(run, member)]
    for number, fold in enumerate(folds):
        show("checking what is finished", number, len(folds))
        if not rundir.done_json(fold).is_file():
            continue
        try:
            with FileLock(rundir.lock_file(fold), timeout=0):
                _mend(fold, say)
        except Timeout:
            pass  # another process trains it


def _mend(fold: Path, say: Say) -> None:
    files = [rundir.model_file(fold), rundir.oof_file(fold)]
    try:
        if not rundir.is_done(fold):
            return
        marked = True
    except UserError as error:
        say(f"warning: {error}")
        rundir.done_json(fold).unlink()
        marked = False
    whole = [path.is_file() and _is_whole(path, say) for path in files]  # both are looked at, and said
    if not all(whole):
        rundir.done_json(fold).unlink(missing_ok=True)
        return
    seconds = 0.0
    try:
        seconds = sum(line.get("seconds", 0.0) for line in rundir.read_log(fold))
    except UserError as error:
        say(f"warning: {error}")
    if not marked:
        rundir.finish(fold, seconds)


def _is_whole(path: Path, say: Say) -> bool:
    try:
        require_sound_in_fold(path)
        return True
    except Damaged as error:
        say(f"warning: {error}")
        return False
