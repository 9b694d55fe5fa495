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
RESERVED = ("blends", "predictions")
Strategy = Literal["scratch", "probe", "partial", "full", "probe-then-partial", "probe-then-full"]


class Table(BaseModel):
    """What all tables of the file share: no unknown keys, no infinite numbers, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Table):
    train: Path
    image_size: Annotated[int, Field(ge=8)] = 224
    crop: tuple[Count, Count] | None = None  # height, width in pixels of the file, cut from its middle, always
    classes: tuple[str, ...] = ()  # patterns of a folder's class folders; none: found by their structure
    images: Path | None = None  # the folder that a table's paths start from; None: the table's own
    path: str = "path"
    label: str | tuple[str, ...] = "label"  # several: a column of 0 and 1 for each class
    id: str | None = None  # None: the path as written is the id
    group: str | None = None
    weight: str | None = None  # a column of sample weights
    relabel: Path | None = None  # a CSV of `ens relabel`, edited: new labels, and rows to drop
    cache: str = "auto"  # folder of decoded pixels; "auto": the user's cache folder; "off": decode in every epoch
    cache_limit_gb: Positive = 50.0

    @model_validator(mode="after")
    def _two_columns_or_more(self) -> "Data":
        if isinstance(self.label, tuple) and len(set(self.label)) < max(2, len(self.label)):
            raise ValueError(f"data.label = {list(self.label)}: a list names two or more different columns of 0 and 1")
        return self


class Folds(Table):
    k: Annotated[int, Field(ge=2, le=127)] = 5
    method: Literal["stratified", "grouped", "stratified-grouped"] | None = None  # None: by whether there are groups
    fold: str | None = None  # a column that holds the user's own folds; k and method are then unused
    near_copies: bool = True  # near copies and look-alikes share a fold, as byte-for-byte copies always do


class Train(Table):
    strategy: Strategy | None = None  # None: full, or scratch where there are no weights to start from
    head: Literal["linear", "lda", "gaussian", "knn"] = "linear"  # of a probe: the classifier on the frozen features
    stages: Count = 2  # of the partial strategies: how many stages from the end are trained, beside the head
    epochs: Count = 12
    batch_size: Annotated[int, Field(ge=2)] = 64  # batch norm has no variance over one image
    lr: Positive = 1e-3
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # each layer's rate, as a share of the next one's
    head_lr: Positive = 1.0  # the classifier's rate, times lr
    freeze_bn: bool = False  # keep the statistics of the batch norms as they came
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0  # stochastic depth
    loss: Literal["cross_entropy", "focal", "class_balanced", "logit_adjusted"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998  # 0 turns it off
    swa_epochs: Annotated[int, Field(ge=0)] = 0  # the last epochs whose weights are averaged equally, instead of ema
    keep: Literal["last", "best"] = "last"  # "best" looks at the held-out rows: their score is then optimistic
    crop_size: Annotated[int, Field(ge=8)] | None = None  # side of the training crops; None: the image_size
    crop_area: tuple[Fraction, Fraction] = (0.35, 1.0)  # random resized crop: least and largest share of the area
    hflip: bool = True
    vflip: bool = False
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, either way
    color_jitter: Fraction = 0.2
    trivial_augment: bool = False
    augment_rare: bool = False  # TrivialAugment for images of the rarer classes, the rarer the more often
    erase: Fraction = 0.0  # share of the images with a random box erased
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha; 0 turns it off
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # "auto": found by timed steps, here and in the next three
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    micro_batch: Literal["auto"] | Count = "auto"  # images at a time; their gradients add up to batch_size

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
    batch_size: Count = 64  # images per pass on a GPU
    dtype: Literal["auto", "float32"] = "auto"  # "auto": a faster format where a network holds its answers in it
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"  # "auto": a faster one, likewise


class Backbone(Table):
    name: Annotated[str, Field(pattern=MEMBER_NAME)]
    timm: str
    pretrained: bool = True  # False trains from scratch
    weights: Path | None = None  # a safetensors or PyTorch file, or a member of another run, not timm's hub weights
    image_size: Annotated[int, Field(ge=8)] | None = None
    seeds: Count | None = None  # members NAME, NAME-2, NAME-3, ..., that differ in nothing but their chances; None: one
    train: dict[str, Any] = {}

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

    run: Path  # a folder, or the URL of one on an object store
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Literal["auto"] | Count = "auto"  # jobs that are trained side by side
    # GPUs that train one job together, or "1/k": k jobs share a GPU; "auto": as many as train best, by a trial
    gpus_per_job: int | str = "auto"
    data: Data
    folds: Folds = Folds()
    train: Train = Train()
    tta: Tta = Tta()
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


def with_seeds(config: Config) -> Config:
    """The experiment with each seed as a backbone of its own, which is what training is given."""
    members = tuple(each for backbone in config.backbone for each in seed_members(backbone))
    return config.model_copy(update={"backbone": members})


def check_member_name(name: str) -> None:
    """Raise UserError for what is no name of a member."""
    if not re.fullmatch(MEMBER_NAME, name):
        raise UserError(f"member name {name!r}: use letters, digits, '_' and '-' only, a letter or digit first")
    if name in RESERVED:
        raise UserError(f"a member cannot be named {name!r}: the run keeps its own files there")


def train_settings(config: Config, backbone: Backbone) -> Train:
    """The [train] table with this backbone's own `train = {...}` laid over it, and the strategy settled."""
    settings = Train.model_validate({**config.train.model_dump(), **backbone.train})
    if settings.strategy is None:
        return settings.model_copy(update={"strategy": "full" if starts_trained(backbone) else "scratch"})
    return settings


def starts_trained(backbone: Backbone) -> bool:
    return backbone.pretrained or backbone.weights is not None
