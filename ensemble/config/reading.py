"""The experiment file: TOML in, checked and frozen settings out; what is wrong is one line that names the key."""

import difflib
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ensemble.config.backbones import starts_trained, train_settings, with_seeds
from ensemble.config.tables import Config, Train
from ensemble.errors import UserError
from ensemble.files import sealed


def load_config(path: Path, changes: tuple[str, ...] = (), added: Mapping[str, Any] | None = None) -> Config:
    """Read an experiment file, with `changes` such as "train.epochs=3" or "backbone.swin.weights=f.safetensors".

    added: one more [[backbone]], which changes may name.

    Raises UserError that names the file and the key; an unknown key is answered with the nearest known one.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write one with: ens init DATA -o {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; write an experiment file with: ens init {path}") from None
    except RecursionError:
        raise UserError(f"{path}: not valid TOML that ens reads (nested too deeply)") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None
    if added is not None:
        values["backbone"] = [*values.get("backbone", []), dict(added)]
    for change in changes:
        _set(values, change)
    try:
        config = Config.model_validate(values)
        check_backbones(config)
    except ValidationError as error:
        raise UserError(f"{path}: {_say(error, (), Config)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return with_seeds(config)


def check_backbones(config: Config) -> None:
    """Raise UserError that names the backbone whose settings do not go together."""
    for index, backbone in enumerate(config.backbone):
        try:
            settings = train_settings(config, backbone)
        except ValidationError as error:
            raise UserError(_say(error, ("backbone", index, "train"), Train)) from None
        strategy = settings.strategy
        if settings.head != "linear" and strategy != "probe":
            raise UserError(
                f"backbone {backbone.name!r}: head = {settings.head!r} is fitted on frozen features; it needs "
                f'strategy = "probe" (now {strategy!r})'
            )
        if strategy == "scratch" and backbone.weights is not None:
            raise UserError(f"backbone {backbone.name!r}: scratch starts without weights; remove weights")
        if strategy not in ("scratch", "full") and not starts_trained(backbone):
            raise UserError(
                f"backbone {backbone.name!r}: strategy {strategy!r} needs weights to start from; "
                'give some, or use strategy = "scratch"'
            )


def load_run_config(path: Path, changes: tuple[str, ...] = (), added: Mapping[str, Any] | None = None) -> Config:
    """A run's config.toml: the experiment as it was last trained. Raises Damaged if it is not as it was written (edited
    by hand, perhaps: `ens train-folds` takes that), UserError as `load_config` does. changes, added: as there."""
    if path.is_file():
        sealed.require_sound_file(path)
    return load_config(path, changes, added)


def parse_change(change: str) -> tuple[str, Any]:
    """The key and the value of KEY=VALUE; the value is TOML, or a plain string where it is not. Raises UserError."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {change}: must be KEY=VALUE, for example --set train.epochs=3")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), text


def _set(values: dict[str, Any], change: str) -> None:
    """Apply one KEY=VALUE to the parsed file."""
    key, value = parse_change(change)
    *tables, last = key.split(".")
    place: Any = values
    for table in tables:
        place = _named(place, table, change) if isinstance(place, list) else place.setdefault(table, {})
        if not isinstance(place, dict) and not (isinstance(place, list) and table == "backbone"):
            raise UserError(f"--set {change}: {table!r} is a value, not a table")
    if isinstance(place, list):
        raise UserError(f"--set {change}: name the backbone and its key: backbone.NAME.KEY=VALUE")
    place[last] = value


def _named(items: list[Any], name: str, change: str) -> Any:
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    if name not in names:
        raise UserError(f"--set {change}: no backbone is named {name!r}; there are: {', '.join(names)}")
    return items[names.index(name)]


def _say(error: ValidationError, prefix: tuple[str | int, ...], model: type[BaseModel]) -> str:
    """The first thing wrong, in one line."""
    first = error.errors()[0]
    place = (*prefix, *first["loc"])
    names = [str(part) for part in place if part != "str" and not str(part).startswith("literal[")]  # of a union
    key = ".".join(names) or "the file"
    match first["type"]:
        case "extra_forbidden":
            name = str(first["loc"][-1])
            if model is Config and place[0] == "backbone" and name in Train.model_fields:
                return f"unknown key {key}; it is a key of train: write train = {{ {name} = ... }} there"
            near = difflib.get_close_matches(name, _keys(model, first["loc"][:-1]), n=1, cutoff=0.5)
            known = ", ".join(_keys(model, first["loc"][:-1]))
            return f"unknown key {key}; " + (f"did you mean {near[0]!r}?" if near else f"known keys: {known}")
        case "missing":
            return f"{key} is missing"
        case "value_error":
            return str(first["msg"]).removeprefix("Value error, ")
        case _:
            return f"{key} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at `loc` may hold."""
    for part in loc:
        if isinstance(part, str):
            kind: Any = model.model_fields[part].annotation
            while get_origin(kind) in (tuple, Annotated, types.UnionType):
                kind = get_args(kind)[0]
            model = kind
    return list(model.model_fields)
