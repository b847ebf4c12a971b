"""Read a configuration from TOML, with an error that names every fault."""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

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
        location = list(fault["loc"])
        if fault["type"] == "extra_forbidden":
            model, shown = _walk(RunConfig, location[:-1], values)
            known = model.model_fields if model is not None else ()
            yield f"{'.'.join([*shown, str(location[-1])])}: this key is not known. {did_you_mean(str(location[-1]), known)}"
        else:
            _, shown = _walk(RunConfig, location, values)
            message = fault["msg"].removeprefix("Value error, ")
            given = fault.get("input")
            tail = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            yield f"{'.'.join(shown) or 'config'}: {message}{tail}"


def _walk(
    model: type[BaseModel] | None, location: Sequence[int | str], values: Any
) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow a pydantic error location; return the model, and the path without tags."""
    shown: list[str] = []
    here: Any = model
    for part in location:
        members = _members(here)
        tagged = [member for member in members if str(part) in _tags(member)]
        if tagged and not (isinstance(values, dict) and part in values and len(members) == 1):
            here = tagged[0]  # the tag of a discriminated union is not a key of the file
            continue
        shown.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
        here = _child(members[0], str(part)) if len(members) == 1 else None
        if _members(here) == [FieldConfig]:
            here = FIELD_KINDS.get(str(values.get("kind"))) if isinstance(values, dict) else None
    members = _members(here)
    return (
        members[0] if len(members) == 1 and isinstance(members[0], type) and issubclass(members[0], BaseModel) else None
    ), shown


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if isinstance(annotation, type) or get_origin(annotation) in (dict, tuple, list, Literal) or annotation is None:
        return [annotation]
    return [leaf for member in get_args(annotation) if member is not NoneType for leaf in _members(member)]


def _tags(member: Any) -> tuple[str, ...]:
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return ()
    return tuple(
        str(value)
        for name in ("kind", "by", "objective")
        if name in member.model_fields
        for value in get_args(member.model_fields[name].annotation)
    )


def _child(member: Any, name: str) -> Any:
    if isinstance(member, type) and issubclass(member, BaseModel) and name in member.model_fields:
        return member.model_fields[name].annotation
    if get_origin(member) is dict:
        return get_args(member)[1]
    return None
