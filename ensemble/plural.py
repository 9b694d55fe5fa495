"""Numbers of things, in words."""


def pluralize(count: int, one: str, many: str = "") -> str:
    """ "1 row", "1,437 rows". many: the plural, where it is not `one` with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
