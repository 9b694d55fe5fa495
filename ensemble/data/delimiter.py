"""Which character parts the cells of a CSV that a spreadsheet may have saved anew: where the comma is the decimal mark,
Excel writes semicolons."""

DELIMITERS = ",;\t"


def delimiter_of(head: str) -> str:
    """The commonest of DELIMITERS in the first line of a file, of equal ones the first."""
    return max(DELIMITERS, key=head.partition("\n")[0].count)
