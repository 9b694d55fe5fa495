"""timm's hub, where it can't be reached."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError


def is_unreachable(error: BaseException) -> bool:
    """Whether an error came of a hub that could not be reached, after all of its client's tries, for weights that were
    not fetched before."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LocalEntryNotFoundError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


@contextmanager
def asked_until_unreachable() -> Iterator[Callable[[], None]]:
    """Yield a function after which, until the end of the `with`, only what was fetched before is taken: the tries for
    one network's weights take nearly a minute."""
    before = constants.HF_HUB_OFFLINE

    def ask_no_more() -> None:
        constants.HF_HUB_OFFLINE = True

    try:
        yield ask_no_more
    finally:
        constants.HF_HUB_OFFLINE = before
