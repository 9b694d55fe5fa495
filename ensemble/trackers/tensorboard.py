"""TensorBoard: event files in RUN/tensorboard, a folder for each fold: one chart has the curves of all folds."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ensemble.trackers.opened import Opened, Start, Status


def open_tensorboard(start: Start) -> Opened:
    """Event files are written here and now, by no thread of TensorBoard's, so that a full disk is noticed."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder = start.folder / "tensorboard"
    files = ExitStack()
    writers: dict[str, Any] = {}

    def writer(series: str) -> Any:
        if series not in writers:
            path = folder / series / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            writers[series] = RecordWriter(files.enter_context(path.open("xb")))
            writers[series].write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return writers[series]

    def write(series: str, step: int, summary: Any) -> None:
        event = Event(wall_time=time.time(), step=step, summary=summary)
        writer(series).write(event.SerializeToString())
        writer(series).flush()

    def log(series: str, step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        write(series, step, Summary(value=scalars))

    def note(name: str, text: str) -> None:
        write("notes", 0, text_pb(name, text))

    def close(status: Status) -> None:
        files.close()

    if start.id is None:
        rows = "".join(f"| {key} | {value.replace('|', chr(92) + '|')} |\n" for key, value in start.settings.items())
        note("settings", f"| key | value |\n|---|---|\n{rows}")
    return Opened(folder.name, log, note, None, close)
