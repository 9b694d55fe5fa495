"""A member of a run, ready to predict: its networks read from disk and brought to the device."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from ensemble.backbones import timm_model
from ensemble.backbones.heads import LINEAR, head_of
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.device import side_by_side
from ensemble.errors import UserError
from ensemble.exported.engines import NAMES
from ensemble.files.damage import damaged
from ensemble.inference.compiled import how_to_install
from ensemble.inference.eval_model import EvalModel, prepared
from ensemble.inference.formats import Inference, load_inference, missing_engine
from ensemble.inference.view_names import size_of
from ensemble.run import Fold, Member

LEAST_FREE = 0.4  # share of a GPU's memory that models leave free for what is computed


@dataclass(frozen=True)
class LoadedMember:
    """One backbone of a run, ready to predict.

    name: of the member
    preprocess: what its images go through
    eval_models: its networks, which give the logits of K folds in all, in the order of the folds
    """

    name: str
    preprocess: Preprocess
    eval_models: tuple[EvalModel, ...]


def load_member(member: Member, classes: int, folds: int, device: torch.device) -> LoadedMember:
    """All fold models of a finished member, see `load_networks`."""
    return load_networks(member, [member.fold(number) for number in range(folds)], classes, device)


def load_networks(member: Member, networks: Sequence[Fold], classes: int, device: torch.device) -> LoadedMember:
    """These networks of a finished member. Raises UserError that names the fold that is missing or not whole, Damaged
    if settings.json or preprocess.json are not those that the member was trained with.

    The folds of a linear probe share their network: it is loaded once, with all their classifiers. Networks that would
    leave too little of a GPU's memory free stay on the host, and are brought over for each chunk of images.
    """
    preprocess = load_preprocess(member.preprocess_json)
    _require_trained_with(member, preprocess)
    for network in networks:
        _require_done(network)
    is_probe = member.read_settings().get("strategy") == "probe"

    def load(fold: Fold) -> EvalModel:
        placed_on = device if _has_room(device) else torch.device("cpu")
        inference = load_inference(fold.inference_json, device)
        return _network(fold, preprocess.image_size, classes, inference, placed_on)

    eval_models = side_by_side(load, networks[:1] if is_probe else networks, device)
    if is_probe:
        eval_models = [with_heads(eval_models[0], networks)]
    return LoadedMember(member.name, preprocess, tuple(eval_models))


def missing_engines(networks: Sequence[Fold], device: torch.device) -> str | None:
    """A line where networks were evaluated by an engine that is not installed here."""
    missing = {engine for network in networks if (engine := missing_engine(network.inference_json, device)) is not None}
    if not missing:
        return None
    engine, name = min(missing), networks[0].member.name
    return (
        f"{name}: was evaluated with {NAMES.get(engine, engine)}, which is not installed here; torch computes it in "
        f"float32 instead, more slowly: {how_to_install(engine)}"
    )


def load_fold(fold: Fold, classes: int, dtype: str, device: torch.device) -> tuple[Preprocess, EvalModel]:
    """One fold's network on the device, to be computed in `dtype`, and what its images go through. Raises as
    `load_member` does."""
    preprocess = load_preprocess(fold.member.preprocess_json)
    _require_trained_with(fold.member, preprocess)
    _require_done(fold)
    eval_model = _network(fold, preprocess.image_size, classes, Inference(device.type, dtype), device)
    return preprocess, with_heads(eval_model, [fold]) if _head(fold.member) not in LINEAR else eval_model


def _network(fold: Fold, image_size: int, classes: int, inference: Inference, device: torch.device) -> EvalModel:
    model = timm_model.create(fold.member.timm_name(), classes, image_size)
    timm_model.fill(model, fold.model_file, has_classifier=_head(fold.member) in LINEAR)
    return prepared(model, inference, image_size, device)


def _require_done(fold: Fold) -> None:
    if not fold.is_done():
        raise UserError(f"{fold.path}: is not finished, or its files are cut short; run ens train-folds again")


def check_view_sizes(timm_name: str, preprocess: Preprocess, views: Sequence[str]) -> None:
    """Raise UserError that names the first view whose size the architecture does not take: it is tried."""
    sizes = {view: size_of(view) or preprocess.image_size for view in views}
    others = {size: view for view, size in reversed(sizes.items()) if size != preprocess.image_size}
    if others:
        model = timm_model.create(timm_name, 2, preprocess.image_size).eval()
    for size, view in others.items():
        if (problem := timm_model.problem_at(model, size)) is not None:
            raise UserError(f"view {view!r}: {timm_name} takes no images of {size} px ({problem}); leave the view out")


def _require_trained_with(member: Member, preprocess: Preprocess) -> None:
    """Raise Damaged if settings.json or preprocess.json are not those that the member was trained with."""
    settings, fold = dict(member.read_settings()), member.fold_of_other_settings()
    if fold is not None:
        raise damaged(member.settings_json, f"not the settings that fold {fold.number} was trained with")
    stored = json.loads(json.dumps(asdict(preprocess)))
    if any(settings.get(key, value) != value for key, value in stored.items()):
        raise damaged(member.preprocess_json, "not the preprocessing that settings.json names")


def with_heads(eval_model: EvalModel, folds: Sequence[Fold]) -> EvalModel:
    """The network with the classifiers in the weights files of these folds of a probe. Raises Damaged if there is none
    in one of them."""
    layer = timm_model.classifier(eval_model.exact)
    name = next(name for name, module in eval_model.exact.named_modules() if module is layer)
    heads = []
    for fold in folds:
        state = timm_model.read_state(fold.model_file)
        tensors = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        try:
            head = head_of(_head(fold.member), tensors)
        except KeyError as error:
            raise damaged(fold.model_file, f"holds no {_head(fold.member)} classifier (it lacks {error})") from None
        heads.append(head.to(layer.weight.device).eval())
    return EvalModel(eval_model.inference, eval_model.exact, None, tuple(heads))


def _head(member: Member) -> str:
    """The kind of the member's classifier."""
    return member.read_settings().get("head", "linear")


def _has_room(device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    return free > LEAST_FREE * total


def fold_eval_models(member: LoadedMember) -> list[EvalModel]:
    """One network for each fold; a probe's, which all folds share, with the fold's own classifier."""
    first = member.eval_models[0]
    if first.heads is None:
        return list(member.eval_models)
    return [EvalModel(first.inference, first.exact, None, (head,)) for head in first.heads]
