"""Before training: files of a run that are damaged are found, so that they are made again."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ensemble.errors import Damaged, UserError
from ensemble.events import Events
from ensemble.files.atomic import remove
from ensemble.files.claims import Taken, claimed
from ensemble.run import Fold, Member
from ensemble.run.vouched import require_sound_in_fold


def reopen_damaged(members: Sequence[Member], events: Events) -> None:
    """Remove the done marker of each finished fold whose weights or logits are not as they were written, so that it is
    trained again. A marker that is damaged itself is written again if the files vouch for themselves. A damaged log is
    reported and left: no number comes from it. Reads all weights once."""
    folds = [fold for member in members for fold in (*member.folds(), *member.refits())]
    for number, fold in enumerate(folds):
        events.progress("checking what is finished", number, len(folds))
        if not fold.done_json.is_file():
            continue
        try:
            with claimed(fold.claim_file):
                _mend(fold, events)
        except Taken:
            pass  # another process trains it


def is_readable(path: Path, read: Callable[[Path], object], events: Events) -> bool:
    """True if a file is there and `read` takes it. Damage is reported; what follows writes the file again."""
    if not path.is_file():
        return False
    try:
        read(path)
        return True
    except UserError as error:
        events.message(f"warning: {error}")
        return False


def _mend(fold: Fold, events: Events) -> None:
    try:
        if not fold.is_done():
            return
        has_marker = True
    except UserError as error:
        events.message(f"warning: {error}")
        remove(fold.done_json)
        has_marker = False
    sound = [_is_sound(path, events) for path in fold.result_files]  # all, so that all are reported
    if not all(sound):
        remove(fold.done_json)
        return
    seconds = 0.0
    try:
        seconds = sum(line.get("seconds", 0.0) for line in fold.read_log())
    except UserError as error:
        events.message(f"warning: {error}")
    if not has_marker:
        fold.finish(seconds)


def _is_sound(path: Path, events: Events) -> bool:
    if not path.is_file():
        return False
    try:
        require_sound_in_fold(path)
        return True
    except Damaged as error:
        events.message(f"warning: {error}")
        return False
