"""`ens export`."""

from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, NETWORKS
from ensemble.cli.session import session
from ensemble.run import Run
from ensemble.run.networks import UNSCORED


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--blend", "blend_name", metavar="NAME", help="Which blend. [default: the only one]")
@click.option(
    "-o",
    "--output",
    type=FOLDER_OR_FILE,
    required=True,
    help="The file to write, such as art.onnx; of a cascade, the folder.",
)
@NETWORKS
@click.option(
    "--format",
    type=click.Choice(["onnx", "pt2"]),
    default="onnx",
    show_default=True,
    help="ONNX, which runs without PyTorch, or PyTorch's own, of torch.export.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 lets OpenVINO compute in it, if it keeps the predictions of out-of-fold rows.",
)
@JSON
def export(run: Path, as_json: bool, **options: Any) -> None:
    """Write a blend of a RUN with all its networks as one file.

    From uint8 squares (any number of images) to probabilities: views, normalisation, networks, folds, weights,
    temperature, priors and class bias are inside, the classes, the preprocessing and the out-of-fold scores are in its
    metadata. A cascade becomes a folder of such files, of which an image needs those that it comes to. Before the file
    gets its name, it must predict the run's own classes on images of the run.

    Example: ens export runs/art --blend stack -o art.onnx
    """
    with session(as_json, run) as events:
        from ensemble.cli.plain import plain
        from ensemble.export.export import ExportRequest
        from ensemble.export.export import export as export_blend

        made = export_blend(ExportRequest(run=Run(run), **options), events)
        events.answer(plain(made))
        parity = made.description.parity
        events.message(
            f"on {parity.rows} training images it predicts the run's classes, and its probabilities differ from the "
            f"run's by at most {parity.largest:.1g}"
        )
        if (unscored := UNSCORED.get(made.description.networks)) is not None:
            events.message(unscored)
        events.message(f"wrote {made.output} ({made.bytes / 1e6:.1f} MB)")
