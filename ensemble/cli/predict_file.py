"""`ens predict-file`."""

from pathlib import Path
from typing import Any

import click

from ensemble.cli.options import ENGINE, FOLDER_OR_FILE, JSON, submission_options
from ensemble.cli.session import session
from ensemble.run.networks import UNSCORED


@click.command()
@click.argument("model", type=FOLDER_OR_FILE)
@click.argument("images", type=FOLDER_OR_FILE, nargs=-1, required=True)
@submission_options
@ENGINE
@JSON
def predict_file(
    model: Path, images: tuple[Path, ...], output: Path | None, engine: str, as_json: bool, **options: Any
) -> None:
    """Predict IMAGES (pictures, a folder or a table) by a MODEL, a file or a cascade's folder that ens export wrote.

    Takes neither the run nor torch. Of pictures that are named one by one, the most likely classes are printed with
    their probabilities. Predictions of a folder or a table are saved in shards beside the output as they are made:
    after a stop the same command resumes, and ends with the same file.

    Example: ens predict-file art.onnx data/art/test --sample-submission sample.csv
    """
    with session(as_json) as events:
        from ensemble.cli.plain import plain
        from ensemble.data.inputs import pictures_or_source
        from ensemble.exported.cascade_description import CASCADE_JSON
        from ensemble.exported.engines import FEW, engine_for
        from ensemble.exported.model import load_exported
        from ensemble.predictions.pictures import predict_pictures, require_tables

        source = pictures_or_source(images)
        count = len(source) if isinstance(source, list) else FEW
        opened = load_exported(model, engine=engine_for(engine, count), at_once=count >= FEW)
        unscored = UNSCORED.get(opened.description.networks)
        if isinstance(source, list):
            on_bad, sample = options["on_bad"], options["sample_submission"]
            if sample is not None or options["form"] is not None:
                output = output or Path("submission.csv")
            pictures = predict_pictures(
                lambda files: opened.predict_files(files, on_bad),
                source,
                opened.classes,
                opened.costs,
                output,
                sample,
                options["form"],
                [model, model / CASCADE_JSON],
            )
            for line in [*pictures.lines(), *filter(None, [unscored])]:
                events.message(line)
            events.answer(plain(pictures))
            return
        require_tables("a folder or a table of images")
        from ensemble.exported import predict

        if unscored is not None:
            events.message(unscored)
        request = predict.FileRequest(opened, source, output or Path("submission.csv"), **options)
        made = predict.predict_file(request, events)
        events.answer(plain(made))
        events.message(f"wrote {made.submission} ({made.said})")
