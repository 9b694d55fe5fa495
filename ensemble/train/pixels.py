"""The decoded pixels of a run's rows: opened in the cache, once for all folds of a backbone, or read from the files."""

from collections.abc import Sequence

from ensemble.config import Data
from ensemble.data.cache.folder import cache_folder
from ensemble.data.cache.store import open_pixels
from ensemble.data.pixels.decode import Files, Pixels
from ensemble.data.pixels.preprocess import Decoding, Preprocess
from ensemble.events import Events, MessagesOnly
from ensemble.inference.decodings import decodings
from ensemble.train.evaluate import Evaluation
from ensemble.train.rows import Rows, TrainingData

OpenPixels = dict[Decoding, Pixels | Files]  # what this process has open


def training_data(
    settings: Data, rows: Rows, evaluation: Evaluation, open_ones: OpenPixels, events: Events
) -> TrainingData:
    """The rows with the pixels that a backbone needs. What is opened is added to `open_ones`, in place of another
    backbone's. events: hears of damage, not of progress."""
    preprocess = evaluation.preprocess
    eval_decodings = all_decodings(preprocess, evaluation.views)
    train_decoding = eval_decodings[0]
    if settings.cache == "off":
        train_decoding = Decoding(None, preprocess.interpolation, preprocess.crop)  # crops are cut from whole images
        for decoding in [train_decoding, *eval_decodings]:
            if decoding not in open_ones:
                open_ones[decoding] = Files(rows.paths, decoding)
    elif any(decoding not in open_ones for decoding in eval_decodings):
        open_ones.clear()  # a worker keeps the pixels of one backbone open
        folder, limit = cache_folder(settings.cache), int(settings.cache_limit_gb * 1e9)
        listener = MessagesOnly(events)  # a job counts its progress in images
        open_ones |= open_pixels(rows.paths, eval_decodings, folder, limit, listener, False, rows.digests)
    return TrainingData(rows, open_ones[train_decoding], {key: open_ones[key] for key in eval_decodings})


def all_decodings(preprocess: Preprocess, views: Sequence[str]) -> list[Decoding]:
    """How a backbone's images are decoded: for training first, then for evaluation under these views."""
    return list(dict.fromkeys([preprocess.cropping, preprocess.decoding, *decodings(preprocess, views)]))


def open_cache(settings: Data, rows: Rows, decodings: Sequence[Decoding], events: Events) -> dict[Decoding, Pixels]:
    """The decoded pixels of all rows, each compared with its checksum; what is missing is decoded first. They are kept
    where the experiment says, and as many as it says."""
    folder, limit = cache_folder(settings.cache), int(settings.cache_limit_gb * 1e9)
    return open_pixels(rows.paths, decodings, folder, limit, events, True, rows.digests)
