"""Read a configuration from TOML, with an error that names every fault."""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from recall.config.run import RunConfig
from recall.config.schema import FIELD_KINDS, FieldConfig
from recall.errors import ConfigError, did_you_mean


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration.

    Args:
        path: a TOML file.
        overrides: settings as `dotted.path=value`; the value is read as TOML, or as text when it is not TOML.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is wrong; all faults are named at once.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), hint="Give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the configuration cannot be read", where=str(path), why=str(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("this is not TOML", where=str(path), why=str(error), hint="Correct the line that is named") from None
    for override in overrides:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Validate plain values, as read from a TOML file.

    Args:
        values: by section.
        where: names the source in errors.

    Raises:
        ConfigError: Some keys or values are wrong; names all of them.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_faults(error, values)), where=where) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one setting of plain values, such as `train.sweeps=4`.

    Args:
        values: by section, changed in place.
        override: the setting.

    Raises:
        ConfigError: It is not `section.key=value`, or leads through a value.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"a setting must be section.key=value, got {override!r}", where="override", hint="Write it as section.key=value"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path!r} goes through {key!r}, which is a value, not a section", where="override")
    values[keys[-1]] = value


def _faults(error: ValidationError, values: dict[str, Any]) -> Iterable[str]:
    for fault in error.errors(include_url=False):
        models, shown = _walk(fault["loc"], values)
        if fault["type"] == "extra_forbidden":
            known = models[0].model_fields if len(models) == 1 else ()
            yield f"{'.'.join(shown)}: this key is not known. {did_you_mean(shown[-1], known)}"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = fault.get("input")
            tail = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            yield f"{'.'.join(shown) or 'config'}: {message}{tail}"


def _walk(location: Sequence[int | str], values: Any) -> tuple[list[type[BaseModel]], list[str]]:
    """Follow a pydantic error location.

    Returns:
        What the object with its last step may be, and the path without tags.
    """
    shown: list[str] = []
    here: Any = RunConfig
    models: list[type[BaseModel]] = []
    for part in map(str, location):
        models = models_of(here) if get_origin(here) is not dict else []
        tagged = [one for one in models if part in _tags(one)]
        if tagged and not (len(models) == 1 and isinstance(values, dict) and part in values):
            here = tagged[0]  # the tag of a discriminated union is not a key of the file
            continue
        shown.append(part)
        values = values.get(part) if isinstance(values, dict) else None
        if get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            field = models[0].model_fields.get(part) if len(models) == 1 else None
            here = None if field is None else field.annotation
        if get_origin(here) is not dict and models_of(here) == [*FIELD_KINDS.values()]:
            here = FIELD_KINDS.get(str(values.get("kind"))) if isinstance(values, dict) else None
    return models, shown


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a type may be: none, one, or those of a union or table."""
    if annotation is FieldConfig:
        return list(FIELD_KINDS.values())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [model for part in get_args(annotation) for model in models_of(part)]
    return models_of(get_args(annotation)[1]) if get_origin(annotation) is dict else []


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    fields = [model.model_fields[name] for name in ("kind", "by", "objective") if name in model.model_fields]
    return tuple(str(value) for field in fields for value in get_args(field.annotation))
