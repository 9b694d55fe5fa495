"""`ens serve`."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import CERTAINTY, ENGINE, FOLDER_OR_FILE, JSON, certainty_options
from ensemble.cli.session import session
from ensemble.errors import UserError
from ensemble.run.networks import KINDS

TOKEN = "ENS_TOKEN"


@click.command()
@click.argument("model", type=FOLDER_OR_FILE)
@click.option("--blend", metavar="NAME", help="Of a run: which blend. [default: the only one]")
@click.option("--networks", type=click.Choice(KINDS), help="Of a run: which of its networks. [default: folds]")
@certainty_options
@ENGINE
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for all networks.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--token-file", type=FOLDER_OR_FILE, help=f"File with a token that requests need. [default: {TOKEN}]")
@click.option(
    "--max-batch", type=click.IntRange(1), default=16, show_default=True, help="Images for the model at a time."
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="How long an image waits at most for others that are being decoded; a single one never waits.",
)
@click.option("--threads", type=click.IntRange(1), help="To decode with, and to compute with. [default: all cores]")
@click.option("--max-mb", type=click.FloatRange(0.001), default=32.0, show_default=True, help="Of a request's body.")
@click.option("--max-images", type=click.IntRange(1), default=64, show_default=True, help="In a request.")
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Images that may wait; further requests are answered 503.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="In which a request has to arrive, and its answer to be taken.",
)
@JSON
def serve(
    model: Path,
    blend: str | None,
    networks: str | None,
    token_file: Path | None,
    max_mb: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Serve MODEL, what ens export wrote or a run, to programs and to people.

    POST one image or several to /predict: files of a form, JSON with base64 ({"images": ["..."]}), or the bytes of one
    image. The answer is JSON: for each image its class and the probabilities, with ?members=true each member's too.
    /openapi.json describes it, /healthz says whether the model answers, /metrics counts for Prometheus, and / is a page
    to drop an image on. Ctrl-C or SIGTERM ends it when all accepted requests are answered.

    Example: ens serve art.onnx --port 8000
    """
    from ensemble.exported.cascade_description import is_cascade

    run = model if model.is_dir() and not is_cascade(model) else None
    with session(as_json, run, is_server=True) as events:
        from ensemble.serve import require_extra

        require_extra()
        from ensemble.cli.plain import plain
        from ensemble.predictions.certainty import CertaintyRequest
        from ensemble.serve.options import ServeOptions
        from ensemble.serve.server import serve

        _quiet()
        asked = CertaintyRequest(**{name: options.pop(name) for name in CERTAINTY})
        options["certainty"] = None if asked.is_empty else asked
        chosen = ServeOptions(token=_token(token_file), max_bytes=int(max_mb * 2**20), **options)
        served = serve(model, blend, networks, chosen, events)
        events.answer(plain(served))
        events.message(f"stopped; {served.answered:,} of {served.accepted:,} accepted requests were answered")


def _quiet() -> None:
    """What others send fills no log: the parser of forms and Pillow report each thing that is broken."""
    for name in ("python_multipart", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _token(file: Path | None) -> str | None:
    """The token in the file, or in the environment; None without either."""
    from ensemble.files.reading import read_text

    text = os.environ.get(TOKEN) if file is None else read_text(file).strip()
    if text is not None and not (text.isascii() and text.isprintable() and text and " " not in text):
        raise UserError(f"{file or TOKEN}: want a token of printable ASCII characters, without spaces")
    return text
