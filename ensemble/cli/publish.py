"""`ens publish`."""

from pathlib import Path

import click

from ensemble.cli.options import FOLDER_OR_FILE, JSON, NETWORKS
from ensemble.cli.session import session
from ensemble.run import Run


@click.command()
@click.argument("run", type=FOLDER_OR_FILE)
@click.option("--blend", help="Name of the blend. [default: the run's only one]")
@click.option("-o", "--output", type=FOLDER_OR_FILE, required=True, help="The folder to make.")
@NETWORKS
@click.option(
    "--license", help="Of the model, as the Hub names it: apache-2.0, mit, cc-by-4.0, ... [default: none yet]"
)
@click.option("--name", help="Of the model. [default: the output folder's name]")
@JSON
def publish(
    run: Path, blend: str | None, output: Path, networks: str, license: str | None, name: str | None, as_json: bool
) -> None:
    """Write a folder that the Hugging Face Hub can show: the exported model of a RUN, and its model card.

    The card says how good the model is, by class and with intervals, what it was not tested on, and how to load it.
    Pushing it is left to you.

    Example: ens publish runs/art --blend stack --license apache-2.0 -o art-paintings
    """
    with session(as_json, run) as events:
        from ensemble.publish.command import PublishOptions, publish_run

        options = PublishOptions(output, blend, networks, license, name)
        model = publish_run(Run(run), options, events)
        events.answer({"folder": str(output), "model": str(model)})
        events.message(f"wrote {output}: read its README.md, then push it with:  hf upload USER/NAME {output}")
