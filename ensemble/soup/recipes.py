"""`ens soup --name`: averages of several members (recipes, or seeds of one), fold by fold, with an honest score.

The soup of fold i averages fold-i networks of some of the members, none of which saw fold i's rows. Which members is
chosen on the rows of the other folds alone, where a choice is scored by the soups of those folds' own networks. So its
logits of fold i's rows are out of fold, and the soup is saved as a member like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble.backbones import timm_model
from ensemble.backbones.weights import read_state
from ensemble.blend.oof import Rows, read_oof
from ensemble.config import check_member_name, load_run_config
from ensemble.data.folds import read_folds
from ensemble.data.logits import Logits
from ensemble.data.pixels.preprocess import Preprocess, load_preprocess
from ensemble.device import choose_device, keep_freed_memory
from ensemble.errors import UserError
from ensemble.events import Events
from ensemble.files.atomic import remove
from ensemble.files.sealed import write_json
from ensemble.inference.eval_model import prepared
from ensemble.inference.formats import Inference
from ensemble.inference.member import LoadedMember, load_networks
from ensemble.run import Fold, Member, Run
from ensemble.soup.average import averaged_network
from ensemble.soup.greedy import select_without
from ensemble.soup.images import logits_of_files, sample
from ensemble.soup.members import chosen_members, require_one_start
from ensemble.train.finish import finish_fold, write_log
from ensemble.tta.oof import run_samples


@dataclass(frozen=True)
class MemberSoup:
    """A soup of members, saved as one.

    member: its name
    chosen: for each fold the names of those that were averaged, the best one first
    """

    member: str
    chosen: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Ingredients:
    """M members whose networks of each fold can be averaged.

    members: M
    preprocess: of all of them
    rows: the validated rows of their run
    files: of all rows of folds.csv, in its order
    folds: int64, of the same rows, -1 for those that are only trained on
    at: int64 (N,), the places of `rows` among them
    views: V names
    """

    members: Sequence[Member]
    preprocess: Preprocess
    rows: Rows
    files: Sequence[Path]
    folds: np.ndarray
    at: np.ndarray
    views: tuple[str, ...]

    def network(self, choice: Sequence[int], fold: int, batch_size: int, device: torch.device) -> torch.nn.Module:
        """The average of these members' networks of a fold."""
        jobs = [self.members[number].fold(fold) for number in choice]
        classes = len(self.rows.classes)
        loaded = [load_networks(job.member, [job], classes, device).eval_models[0] for job in jobs]
        create = partial(timm_model.create, self.members[0].timm_name(), classes, self.preprocess.image_size)
        states, networks = (
            [read_state(job.model_file) for job in jobs],
            LoadedMember("", self.preprocess, tuple(loaded)),
        )
        training_files = sample([self.files[row] for row in np.flatnonzero(self.folds != fold).tolist()])
        return averaged_network(create, states, networks, training_files, batch_size, device)[0]

    def logits(self, model: torch.nn.Module, fold: int, batch_size: int, device: torch.device) -> np.ndarray:
        """A network's logits of the rows that a fold holds out, float32 (V, n, C)."""
        files = [self.files[row] for row in self.at[self.rows.folds == fold].tolist()]
        exact = prepared(model, Inference(device.type), self.preprocess.image_size, device)
        return np.asarray(logits_of_files([exact], files, self.preprocess, self.views, batch_size, device)[0])


def soup_members(run: Run, names: Sequence[str], name: str, events: Events) -> MemberSoup:
    """Average members fold by fold, as the module says, and save the soup as the member `name`.

    Raises UserError for fewer than two members, for ones that are unknown, not finished, of different architectures or
    starts, and for a name that the run has given to another member.
    """
    run.require()
    soup = run.member(name)
    _require_free(soup)
    if len(set(names)) < 2:
        raise UserError(f"--members {','.join(names)}: a soup of members needs two or more of them")
    ingredients, oof = _ingredients(run, names, events)
    device, batch_size = choose_device(), load_run_config(run.config_toml).tta.batch_size
    keep_freed_memory()
    rows, folds = ingredients.rows, np.unique(ingredients.rows.folds).tolist()

    @cache
    def logits(choice: tuple[int, ...], fold: int) -> np.ndarray:
        """Of the fold's rows, float32 (n, C), the mean over views."""
        if len(choice) == 1:
            values = oof[choice[0]][:, rows.folds == fold]
        else:
            values = ingredients.logits(ingredients.network(choice, fold, batch_size, device), fold, batch_size, device)
        return np.asarray(values.mean(axis=0))

    _write_settings(soup, ingredients)
    chosen = []
    for number, fold in enumerate(folds):
        events.progress(f"{name}: choosing and averaging", number, len(folds))
        choice = select_without(fold, len(ingredients.members), logits, rows.labels, rows.folds)
        model = ingredients.network(choice, fold, batch_size, device)
        values = ingredients.logits(model, fold, batch_size, device)
        _write_fold(soup.fold(fold), model, values, ingredients, device)
        chosen.append(tuple(ingredients.members[each].name for each in choice))
    return MemberSoup(name, tuple(chosen))


def _ingredients(run: Run, names: Sequence[str], events: Events) -> tuple[Ingredients, Sequence[np.ndarray]]:
    """The members, and of each the logits float32 (V, N, C) that it has of its run's validated rows."""
    table = read_folds(run)
    members = chosen_members(run, names, int(table["fold"].max()) + 1, events)
    require_one_start(members)
    oof = read_oof(run, members=[member.name for member in members])
    samples = run_samples(load_run_config(run.config_toml), run)
    path_of = dict(zip(samples.ids.tolist(), samples.paths, strict=True))
    place_of = {name: place for place, name in enumerate(table["id"])}
    ingredients = Ingredients(
        members,
        load_preprocess(members[0].preprocess_json),
        oof.rows,
        [path_of[name] for name in table["id"]],
        table["fold"].to_numpy(np.int64),
        np.array([place_of[name] for name in oof.rows.ids.tolist()]),
        oof.views[0],
    )
    return ingredients, oof.values


def _require_free(soup: Member) -> None:
    check_member_name(soup.name)
    if soup.path.exists() and (not soup.settings_json.is_file() or "soup" not in soup.read_settings()):
        raise UserError(f"--name {soup.name}: {soup.path} is there already and is no soup; choose another name")


def _write_settings(soup: Member, ingredients: Ingredients) -> None:
    settings = _shared_settings(ingredients.members)
    for job in soup.folds():  # of an earlier soup of this name
        remove(job.done_json)
    soup.path.mkdir(exist_ok=True)
    ingredients.preprocess.save(soup.preprocess_json)
    names = [member.name for member in ingredients.members]
    write_json(soup.settings_json, {**settings, "views": list(ingredients.views), "soup": names})


def _shared_settings(members: Sequence[Member]) -> dict[str, Any]:
    """The settings of the first member, but for what holds of a soup if it holds of any of them: that its folds do not
    share one network, as a probe's do; that its epochs are the best on its held-out rows; and that it is a student."""
    settings = [dict(member.read_settings()) for member in members]
    shared = settings[0]
    for of_member in settings:
        if shared.get("strategy") == "probe":
            shared["strategy"] = of_member.get("strategy")
        if of_member.get("keep") == "best":
            shared["keep"] = "best"
        if "learned_from" in of_member:
            shared.setdefault("learned_from", of_member["learned_from"])
    return shared


def _write_fold(
    job: Fold, model: torch.nn.Module, values: np.ndarray, ingredients: Ingredients, device: torch.device
) -> None:
    """values: its logits of the fold's rows, float32 (V, n, C)."""
    rows, meta = ingredients.rows, {"member": job.member.name, "fold": job.label}
    held_out = Logits(rows.ids[rows.folds == job.number], ingredients.views, rows.classes, values, meta)
    job.path.mkdir(exist_ok=True)
    write_log(job, [])  # the member's settings are a fact from here on
    finish_fold(job, model, Inference(device.type), held_out, 0.0)
