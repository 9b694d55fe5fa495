"""`ens soup`: a member's K fold networks averaged into one, which costs a K-th of them at prediction.

The average has seen the rows of all folds, so that no row is left to score it out of fold. What can be said without
labels is how near it is to the ensemble of the K networks, whose score is known; an average that is farther from it
than the single networks are is refused.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from ensemble.backbones import timm_model
from ensemble.backbones.weights import read_state, write_state
from ensemble.config import load_run_config
from ensemble.data.folds import fold_count
from ensemble.data.samples import read_images
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files import sealed
from ensemble.files.atomic import remove
from ensemble.files.claims import claimed_when_free
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import load_member
from ensemble.run import Member, Run
from ensemble.run.networks import fold_digests
from ensemble.soup.average import averaged_network
from ensemble.soup.closeness import Closeness, closeness
from ensemble.soup.images import MOST_IMAGES, logits_of_files, sample
from ensemble.soup.members import chosen_members
from ensemble.tta.oof import run_samples

ROUNDING = 1e-4  # nats: the barrier of networks that are all but equal may be so far above 0


@dataclass(frozen=True)
class Comparison:
    """The images that averages are compared with their ensembles on.

    files: N
    what: they are, in words
    """

    files: Sequence[Path]
    what: str


@dataclass(frozen=True)
class FoldSoup:
    """What became of a member's soup.

    member: its name
    networks: K, how many were averaged
    batch_norms: how many were estimated anew
    on: the images that it was compared on, in words
    closeness: to the ensemble of the K networks
    is_kept: False where the average is farther from the ensemble than its networks are; then it is not written
    """

    member: str
    networks: int
    batch_norms: int
    on: str
    closeness: Closeness
    is_kept: bool

    def line(self) -> str:
        near = self.closeness
        text = (
            f"{self.member}: {self.networks} networks averaged, {self.batch_norms} batch norms estimated anew; on "
            f"{self.on} it predicts the ensemble's class for {near.agreement:.2%} (a single network for "
            f"{near.networks_agreement:.2%}), its divergence from the ensemble is {near.divergence:.4f} nats (a single "
            f"network's {near.networks_divergence:.4f}), its barrier {near.barrier:+.4f}"
        )
        if self.is_kept:
            return text
        return f"{text}: refused, since its networks don't connect (each of them is nearer to the ensemble on average)"


def soup_folds(run: Run, members: Sequence[str] | None, images: Path | None, events: Events) -> list[FoldSoup]:
    """Average the fold networks of these members (None: of all that can be), and write the soup of each beside its
    folds, unless its barrier is above 0.

    images: a folder or table of images, best unlabelled ones, that soups are compared with their ensembles on; None for
    training images, which the networks know.

    Raises UserError before anything is averaged for a member that is unknown or not finished, and for networks without
    a common start.
    """
    run.require()
    count = fold_count(run)
    chosen = chosen_members(run, members, count, events)
    config = load_run_config(run.config_toml)
    samples = run_samples(config, run)
    training_files = sample(samples.paths)
    compared = _compared(images, training_files, events)
    keep_freed_memory()
    soups = []
    for number, member in enumerate(chosen):
        events.progress(f"{member.name}: averaging", number, len(chosen))
        member.soup().path.mkdir(exist_ok=True)
        with claimed_when_free(member.soup().claim_file):
            soup = _soup(member, count, len(samples.classes), training_files, compared, config.tta.batch_size)
        soups.append(soup)
        events.message(soup.line())
    return soups


def _compared(images: Path | None, training_files: Sequence[Path], events: Events) -> Comparison:
    if images is None:
        files = training_files[:MOST_IMAGES]
        return Comparison(files, f"{len(files)} training images, which its networks know (--on names better ones)")
    _, files, notes = read_images(images, events)
    for line in notes:
        events.message(line)
    if not files:
        raise UserError(f"{images}: holds no image to compare soups on")
    return Comparison(files, f"{len(files)} images of {images}")


def _soup(
    member: Member, folds: int, classes: int, training_files: Sequence[Path], compared: Comparison, batch_size: int
) -> FoldSoup:
    device = choose_device()
    networks = load_member(member, classes, folds, device)
    preprocess = networks.preprocess
    states = [read_state(member.fold(number).model_file) for number in range(folds)]
    create = partial(timm_model.create, member.timm_name(), classes, preprocess.image_size)
    model, batch_norms = averaged_network(create, states, networks, training_files, batch_size, device)
    soup = prepared(model, Inference(device.type), preprocess.image_size, device)
    every = (*networks.eval_models, soup)
    logits = logits_of_files(every, compared.files, preprocess, ("identity",), batch_size, device)[:, 0]
    near = closeness(logits[:-1], logits[-1])
    made = FoldSoup(member.name, folds, batch_norms, compared.what, near, near.barrier <= ROUNDING)
    directory = member.soup()
    remove(directory.done_json)  # of an earlier soup
    remove(directory.model_file)
    if made.is_kept:
        write_state(directory.model_file, model.state_dict(), {"member": member.name, "fold": directory.label})
        directory.mark_done(
            [directory.model_file],
            of=fold_digests(member, folds),
            settings=sealed.file_checksum(member.settings_json),
            batch_norms=batch_norms,
            on=compared.what,
            **asdict(near),
        )
    return made
