"""Where a command is silent: python benchmarks/waits.py check data/art/train --test data/art/test

Runs the command and prints every wait of more than SECONDS between two things that it reports (a message, or progress),
with both texts; then each step of its progress. What the command prints itself goes to stderr.
"""

import contextlib
import itertools
import re
import sys
import time
from collections.abc import Iterator

SECONDS = 2.0


def main() -> None:
    began, heard = time.monotonic(), [(0.0, "(start)")]

    def hear(text: str) -> None:
        heard.append((time.monotonic() - began, text))

    from ensemble import bar, cli
    from ensemble.cli.session import Session

    @contextlib.contextmanager
    def listening() -> Iterator[object]:
        yield bar.timed(lambda text, done, total: hear(f"{text}  {done:.0f}/{total:.0f}"))

    say = Session.message

    def message(session: Session, line: str) -> None:
        hear(line[:80])
        say(session, line)

    bar.progress_bar, Session.message = listening, message
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        cli.main()
    hear("(end)")
    for (before, first), (after, second) in itertools.pairwise(heard):
        if after - before > SECONDS:
            print(f"{after - before:6.1f} s  from {first!r} to {second!r}")
    steps = dict.fromkeys(re.sub(r"[\d.]+", "#", text) for _, text in heard)
    print(f"{heard[-1][0]:.1f} s in all; reported: {'; '.join(steps)}")


if __name__ == "__main__":  # processes that train import this file again
    main()
