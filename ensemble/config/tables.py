"""The tables of the experiment file, checked and frozen. Plain arguments go on from here, not the config."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from ensemble.errors import UserError
from ensemble.files.mirror import as_url

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
MEMBER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
RESERVED = ("blends", "predictions", "tensorboard", "unknown", "wandb")
Strategy = Literal["scratch", "probe", "partial", "full", "probe-then-partial", "probe-then-full"]


class Table(BaseModel):
    """What all tables of the file share: no unknown keys, no infinite numbers, no change after reading. What stands
    below a key is its description in the reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Data(Table):
    train: Path
    """A folder of class folders, a CSV or a Parquet file; or a zip or another packed data set, or a URL."""
    image_size: Annotated[int, Field(ge=8)] = 224
    """Side of the network's input, in px."""
    crop: tuple[Count, Count] | None = None
    """`[height, width]` in px of the file, cut from its middle in training and prediction alike."""
    classes: tuple[str, ...] = ()
    """Which folders in `train` are the classes, where that can be read in several ways: `["*"]`, `["train/*",
    "val/*"]`, `["*", "!test"]`; by default their structure tells."""
    images: Path | None = None
    """Where a table's paths start, by default its own folder. Names are found below it whatever their case, ending or
    leading zeros, where one file fits."""
    path: str = "path"
    """The column of a table that holds the paths."""
    label: str | tuple[str, ...] = "label"
    """The column of the labels, or a list of columns of 0 and 1, one for each class."""
    id: str | None = None
    """The column that names the rows; by default the path does."""
    group: str | None = None
    """The column of what must stay in one fold: a person, a scene; `"from file names"` where names say it (`ens check`
    tells)."""
    weight: str | None = None
    """The column of sample weights: how much a row counts in training."""
    relabel: Path | None = None
    """A CSV of `ens relabel`, edited: new labels, and rows to drop."""
    cache: str = "auto"
    """The folder of decoded pixels, for all runs; `"auto"` is `$ENS_CACHE` or `~/.cache/ens`; `"off"` decodes in every
    epoch."""
    cache_limit_gb: Positive = 50.0
    """What that folder may hold; the pixels that were not used for longest go first."""

    @field_serializer("train", "images", when_used="json-unless-none")
    def _url_as_it_is_written(self, place: Path) -> str:
        return as_url(place) or str(place)

    @model_validator(mode="after")
    def _two_columns_or_more(self) -> "Data":
        if isinstance(self.label, tuple) and len(set(self.label)) < max(2, len(self.label)):
            raise ValueError(f"data.label = {list(self.label)}: a list names two or more different columns of 0 and 1")
        return self


class Folds(Table):
    k: Annotated[int, Field(ge=2, le=127)] = 5
    """The number of folds."""
    method: Literal["stratified", "grouped", "stratified-grouped"] | None = None
    """By default chosen by the data. Groups and copies of a file are never split."""
    fold: str | None = None
    """The column of your own folds: 0, 1, ..., and -1 for rows that are only trained on. `k` and `method` are then
    unused."""
    near_copies: bool = True
    """Whether near copies of a picture, and look-alikes, share a fold too, as copies always do."""


class Train(Table):
    strategy: Strategy | None = None
    """What is trained, and from where; by default `"full"`, or `"scratch"` where there are no weights to start from."""
    head: Literal["linear", "lda", "gaussian", "knn"] = "linear"
    """Of a probe: the classifier on the frozen features."""
    stages: Count = 2
    """Of the partial strategies: how many of the last stages (timm's parameter groups) are trained."""
    epochs: Count = 12
    """Every fold trains for so many epochs."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Images in a step of the optimizer."""
    lr: Positive = 1e-3
    """The highest learning rate of AdamW."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    """Epochs in which the rate rises linearly; then it falls as half a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Not on biases and norms."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer's rate as a share of the next one's."""
    head_lr: Positive = 1.0
    """The classifier's rate, as a multiple of `lr`."""
    freeze_bn: bool = False
    """Whether the statistics of the batch norms are kept as they came."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Stochastic depth: the last block's chance to be skipped."""
    loss: Literal["cross_entropy", "focal", "class_balanced", "logit_adjusted"] = "cross_entropy"
    """Which loss is minimised; the last three are for uneven classes."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each label that is spread over all classes."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """Of the focal loss: how little well classified images count."""
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    """`"balanced"` shows all classes equally often."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """Decay of the averaged weights, which are the ones kept; 0 for none."""
    swa_epochs: Annotated[int, Field(ge=0)] = 0
    """The weights after each of the last so many epochs are averaged equally, in place of `ema`; their learning rate
    stays where it was."""
    keep: Literal["last", "best"] = "last"
    """`"best"` keeps the epoch that is best on the held-out rows, and marks the score as optimistic."""
    crop_size: Annotated[int, Field(ge=8)] | None = None
    """Side of the training crops, by default the image size; three quarters of `image_size` is faster and often as
    good."""
    crop_area: tuple[Fraction, Fraction] = (0.35, 1.0)
    """Random resized crop: least and largest share of the area."""
    hflip: bool = True
    """Mirror left and right at random."""
    vflip: bool = False
    """Mirror top and bottom at random."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """The greatest angle in degrees, either way."""
    color_jitter: Fraction = 0.2
    """Strength of random brightness, contrast and saturation."""
    trivial_augment: bool = False
    """One random operation an image, of 14, at a random strength."""
    augment_rare: bool = False
    """That for images of the rarer classes: for 1 - n/m of them, of n in the class and m in the largest. It lost on the
    paintings."""
    erase: Fraction = 0.0
    """Share of the images of which a random box is hidden."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup; 0 for none. With both, each image takes one of them."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix; 0 for none."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`"auto"`, here and in the next three: found by timed steps (anew in the next run where the machine was busy)."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """The layout of images and weights in memory."""
    compile: Literal["auto"] | bool = "auto"
    """Whether by `torch.compile`."""
    micro_batch: Literal["auto"] | Count = "auto"
    """Images at a time; their gradients add up to `batch_size`."""

    @model_validator(mode="after")
    def _crop_area_in_order(self) -> "Train":
        low, high = self.crop_area
        if not 0 < low <= high:
            raise ValueError(f"crop_area = [{low}, {high}] must be two shares with 0 < first <= second")
        return self

    @model_validator(mode="after")
    def _swa_averages_what_is_kept(self) -> "Train":
        if self.swa_epochs > self.epochs:
            raise ValueError(f"swa_epochs = {self.swa_epochs} is more than epochs = {self.epochs}")
        if self.swa_epochs and self.keep == "best":
            raise ValueError("swa_epochs averages the last epochs, keep = 'best' takes one: take one of the two")
        return self

    @model_validator(mode="after")
    def _one_remedy_for_imbalance(self) -> "Train":
        if self.sampler == "balanced" and self.loss in ("class_balanced", "logit_adjusted"):
            raise ValueError(f"sampler = 'balanced' and loss = {self.loss!r} mend the same imbalance twice: take one")
        return self

    @model_validator(mode="after")
    def _more_for_rare_classes_only(self) -> "Train":
        if self.augment_rare and self.trivial_augment:
            raise ValueError("trivial_augment gives all classes what augment_rare gives the rarer ones: take one")
        return self


class Tta(Table):
    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("identity", "hflip")
    """Views of each image, or named sets of them."""
    batch_size: Count = 64
    """Images per pass on a GPU (on a CPU it is 16, a thread each)."""
    dtype: Literal["auto", "float32"] = "auto"
    """`"auto"`: a faster number format where a network holds its answers in it."""
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    """What computes a network in evaluation and prediction on a CPU. `"auto"`: OpenVINO or ONNX Runtime, if they are
    installed (`pip install "ens-vision[export]" openvino`), where that is faster (1.1 to 1.5 times in float32, measured
    on two cores) and the network holds its answers."""


class Log(Table):
    to: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = ()
    """Experiment trackers that the run is sent to, one or several: `["mlflow"]`."""
    project: Annotated[str, Field(min_length=1)] = "ens"
    """What MLflow (as its experiment), wandb and trackio file the run under."""


class Backbone(Table):
    name: Annotated[str, Field(pattern=MEMBER_NAME)]
    """The member's name, and its folder's."""
    timm: str
    """A timm architecture, with a pretrained tag if you like."""
    pretrained: bool = True
    """Whether it starts from timm's weights; false trains from scratch."""
    weights: Path | None = None
    """A file of weights (safetensors, or PyTorch's), or a member of another run, to start from instead; its classifier
    is left aside."""
    image_size: Annotated[int, Field(ge=8)] | None = None
    """This backbone's own side of the input, in px."""
    seeds: Count | None = None
    """Members that differ in nothing but their chances: with 3, `NAME`, `NAME-2` and `NAME-3`."""
    train: dict[str, Any] = {}
    """Keys of `[train]` for this backbone: `{ lr = 1e-4 }`."""

    @field_validator("timm")
    @classmethod
    def _timms_own_repositories_are_its_names(cls, name: str) -> str:
        """timm/resnet18.a1_in1k, by which the hub has it, is timm's resnet18.a1_in1k, weights and all."""
        return re.sub(r"^(hf[-_]hub:)?timm/", "", name)


class Config(Table):
    """An experiment. From Python its tables may be given as dicts of the keys of an experiment file; what is wrong in
    them is a pydantic.ValidationError.

    >>> config = ens.Config(
    ...     run="runs/art",
    ...     data={"train": "data/art/train", "image_size": 64},
    ...     backbone=[{"name": "resnet", "timm": "resnet18"}],
    ... )
    >>> config.train.epochs
    12
    """

    run: Path
    """The directory of all that the run makes, or a URL on an object store (`s3://bucket/runs/art`)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of folds, augmentation and new weights."""
    workers: Literal["auto"] | Count = "auto"
    """Folds that are trained side by side on each machine: one for each GPU, two on a CPU."""
    gpus_per_job: int | str = "auto"
    """GPUs that train one fold together (on a CPU: processes), or `"1/k"`: k folds side by side on each GPU; `"auto"`:
    as many on each as train best, by a trial."""
    data: Data
    folds: Folds = Folds()
    train: Train = Train()
    tta: Tta = Tta()
    log: Log | None = None
    backbone: Annotated[tuple[Backbone, ...], Field(min_length=1)]

    @field_validator("gpus_per_job", mode="before")
    @classmethod
    def _gpus_or_a_share_of_one(cls, value: Any) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        if isinstance(value, str) and re.fullmatch(r"auto|1/[1-9]\d*", value):
            return value
        raise ValueError(
            f'gpus_per_job = {value!r}: must be "auto", a number of GPUs (1, 2, ...), or "1/k": k jobs on each GPU'
        )

    @field_serializer("run", when_used="json")
    def _url_as_it_is_written(self, run: Path) -> str:
        return as_url(run) or str(run)

    @model_validator(mode="after")
    def _backbones_are_sound(self) -> "Config":
        names = [each.name for backbone in self.backbone for each in seed_members(backbone)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two backbones are named {name!r}: give each its own name")
            if name in RESERVED:
                raise ValueError(f"a backbone cannot be named {name!r}: the run keeps its own files there")
        return self


def seed_members(backbone: Backbone) -> list[Backbone]:
    """A backbone for each of its seeds: NAME, NAME-2, NAME-3, ... What is drawn in training depends on the name."""
    numbers = range(1, (backbone.seeds or 1) + 1)
    names = [backbone.name if number == 1 else f"{backbone.name}-{number}" for number in numbers]
    return [backbone.model_copy(update={"name": name, "seeds": None}) for name in names]


def check_member_name(name: str) -> None:
    """Raise UserError for what is no name of a member."""
    if not re.fullmatch(MEMBER_NAME, name):
        raise UserError(f"member name {name!r}: use letters, digits, '_' and '-' only, a letter or digit first")
    if name in RESERVED:
        raise UserError(f"a member cannot be named {name!r}: the run keeps its own files there")
