"""timm's hub, where it can't be reached."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError


def is_unreachable(error: BaseException) -> bool:
    """Whether an error came of a hub that could not be reached, after all the hub's own tries, for weights that were
    not fetched before."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LocalEntryNotFoundError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


@contextmanager
def offline_once_unreachable() -> Iterator[None]:
    """Leave what `ask_no_more` set as it was."""
    before = constants.HF_HUB_OFFLINE
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def ask_no_more() -> None:
    """From now on take only what was fetched before: the tries for one network's weights take nearly a minute."""
    constants.HF_HUB_OFFLINE = True
