"""Learning from other networks beside the labels (Hinton, Vinyals and Dean, Distilling the knowledge in a neural
network, 2015).

The teachers of fold i are the fold-i networks of finished members: none of them ever saw a row that the student of fold
i is scored on. They answer the very images that the student is given, augmented and mixed as they are, and nothing is
stored (Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022). Their logits are
averaged as they are: weights and temperatures of a blend were fitted on all out-of-fold rows, fold i's among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ensemble.backbones.timm_model import has_fixed_size
from ensemble.data.pixels.preprocess import load_preprocess
from ensemble.device import in_layout, is_out_of_memory
from ensemble.errors import RunFailure
from ensemble.files.reading import Finite, read_json
from ensemble.inference.eval_model import EvalModel, logits_of
from ensemble.inference.formats import DTYPES
from ensemble.inference.member import load_fold
from ensemble.inference.predict import batch_rows
from ensemble.run import Fold
from ensemble.train.losses import RowLosses
from ensemble.train.step import Target


@dataclass(frozen=True)
class TeacherNetwork:
    """A network that is asked about the student's images.

    eval_model: the network.
    size: side of the images that it is given, px.
    scale: float32 (3, 1, 1), what the student's normalised values are multiplied with to be normalised for it.
    shift: float32 (3, 1, 1), what is added then.
    """

    eval_model: EvalModel
    size: int
    scale: torch.Tensor
    shift: torch.Tensor


@dataclass(frozen=True)
class Teacher:
    """What the student of one fold learns from.

    networks: those of this fold.
    weight: of their answers in the loss, 0 to 1; the labels have the rest.
    temperature: by which logits are divided before they are compared.
    """

    networks: tuple[TeacherNetwork, ...]
    weight: float
    temperature: float


def read_teacher_speeds(path: Path) -> dict[str, dict[str, float]]:
    """Images per second of each teacher's network in each number format. Raises UserError that names the file."""
    return read_json(path, dict[str, dict[str, Finite]], "delete it, and the speeds are measured again")


def fastest_dtype(speeds: Mapping[str, float]) -> str:
    """The fastest of torch's formats: teachers see images of many sizes, for each of which an engine would have to
    compile them."""
    return max(DTYPES.keys() & speeds.keys(), key=speeds.__getitem__)


def teacher_of(fold: Fold, classes: int, crop_size: int, device: torch.device) -> Teacher | None:
    """The teacher of a fold; None where its member learns from labels alone. Raises UserError that names a teacher's
    fold that is not finished or not whole, and RunFailure where their networks don't fit into memory.

    crop_size: side of the fold's training crops, px. A teacher sees them as much larger as its own images are than the
    student's; one that takes images of one size only, in that.
    """
    learned_from = fold.member.read_settings().get("learned_from", {})
    if "temperature" not in learned_from:
        return None
    student = load_preprocess(fold.member.preprocess_json)
    speeds = read_teacher_speeds(fold.member.teachers_json)
    networks = []
    for member in map(fold.member.run.member, learned_from["teachers"]):
        # Soft targets may be rounded as much as the student's own activations: no check of the format is needed.
        dtype = fastest_dtype(speeds[member.name])
        try:
            preprocess, eval_model = load_fold(member.fold(fold.number), classes, dtype, device)
        except RuntimeError as error:
            raise _without_memory(error) from None
        size = preprocess.image_size
        if not has_fixed_size(member.timm_name()):
            size = round(size * crop_size / student.image_size)
        mean, std, teacher_mean, teacher_std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (student.mean, student.std, preprocess.mean, preprocess.std)
        )
        networks.append(TeacherNetwork(eval_model, size, std / teacher_std, (mean - teacher_mean) / teacher_std))
    return Teacher(tuple(networks), learned_from["teacher weight"], learned_from["temperature"])


def with_teacher(teacher: Teacher, images: torch.Tensor, targets: Sequence[Target]) -> list[Target]:
    """The targets of a batch, their weights lowered, and the teacher's answer to its images beside them, which weighs
    as much as the targets of an image do together.

    images: float32 (B, 3, H, W), as the student is given them, normalised and mixed.
    """
    weights = torch.stack([target.weights for target in targets]).sum(0)
    lowered = [target._replace(weights=(1 - teacher.weight) * target.weights) for target in targets]
    answers = Target(soft_targets(teacher, images), teacher.weight * weights, distillation(teacher.temperature))
    return [*lowered, answers] if teacher.weight < 1 else [answers]


@torch.no_grad()
def soft_targets(teacher: Teacher, images: torch.Tensor) -> torch.Tensor:
    """Softmax of the teacher networks' mean logits at the temperature, float32 (B, C). Raises RunFailure where memory
    does not suffice."""
    total = torch.zeros((), device=images.device)
    rows = batch_rows(len(images), images.device)
    try:
        for network in teacher.networks:
            parts = torch.split(_input(network, images), rows)
            answers = [logits_of(network.eval_model, part)[0] for part in parts]
            total = total + torch.cat(answers)
    except RuntimeError as error:
        raise _without_memory(error) from None
    return (total / len(teacher.networks) / teacher.temperature).softmax(1)


def _input(network: TeacherNetwork, images: torch.Tensor) -> torch.Tensor:
    """The student's images as the network takes them."""
    images = images * network.scale + network.shift
    if images.shape[-1] != network.size:
        images = F.interpolate(images, (network.size, network.size), mode="bilinear", antialias=True)
    # A probe with a classifier beside its network is float32 in any format.
    is_fast = network.eval_model.fast is not None
    return in_layout(images.to(network.eval_model.inference.input_dtype) if is_fast else images)


def distillation(temperature: float) -> RowLosses:
    """The loss of logits z against a teacher's probabilities q, both at a temperature T: T^2 KL(q || softmax(z / T)),
    whose gradients are as large at one temperature as at another."""

    def row_losses(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        log_p = (logits.float() / temperature).log_softmax(1)
        return temperature**2 * F.kl_div(log_p, answers, reduction="none").sum(1)

    return row_losses


def _without_memory(error: RuntimeError) -> RuntimeError | RunFailure:
    """The error itself, unless it is a lack of memory."""
    if not is_out_of_memory(error):
        return error
    return RunFailure("out of memory in the teachers' networks; lower batch_size, or name fewer with --teachers")
