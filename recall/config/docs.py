"""Document every configuration key with its type, default and meaning.

The tables of docs/reference/configuration.md, the commented file of `recall init` and `recall config keys` are generated from
the models that check the file, so that they cannot disagree with the program.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from recall.config import RunConfig
from recall.config.run import models_of

_TAGS = ("by", "kind", "objective")
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class KeyDocs:
    """One key of a section; `default` is TOML, or empty when the key has none."""

    name: str
    type: str
    default: str
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class SectionDocs:
    """One table of the file.

    Attributes:
        path: its TOML header.
        variant: the key and value that select it among alternatives.
    """

    path: str
    variant: str
    default: bool
    text: str
    keys: tuple[KeyDocs, ...]


def sections() -> list[SectionDocs]:
    """Return all sections in file order; top-level keys have an empty path."""
    found = {(section.path, section.variant): section for section in _sections(RunConfig, "", "", default=True)}
    return list(found.values())  # both methods of training have the same stopping section


def markdown() -> str:
    """Return the reference as Markdown: one heading and one table for each section."""
    blocks = []
    for section in sections():
        title = f"`[{section.path}]`" if section.path else "Top of the file"
        if section.variant:
            title += f" with `{section.variant}`" + (" (the default)" if section.default else "")
        lines = [f"#### {title}", ""]
        if section.text:
            lines += [section.text, ""]
        if section.keys:
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key in section.keys:
            default = "required" if key.required else f"`{key.default}`" if key.default else "absent"
            cells = (f"`{key.name}`", key.type, default, key.text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        blocks.append("\n".join(lines).rstrip())
    return "\n\n".join(blocks) + "\n"


def dotted(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield every setting that is not None by its dotted key.

    Args:
        model: a configuration or part of one.
        prefix: of the keys.
    """
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from dotted(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, member in value.items():
                path = f"{prefix}{name}.{toml_key(key)}"
                if isinstance(member, BaseModel):
                    yield from dotted(member, f"{path}.")
                else:
                    yield path, member
        elif value is not None:
            yield f"{prefix}{name}", value


def toml(value: object) -> str:
    """Format a value as TOML on one line; None is empty."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case tuple() | list():
            return "[" + ", ".join(toml(part) for part in value) + "]"
        case Mapping():
            return f"{{ {', '.join(f'{toml_key(name)} = {toml(one)}' for name, one in value.items())} }}"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case _:
            return str(value)


def toml_key(name: str) -> str:
    """Return a name as a key of TOML, quoted where necessary."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else toml(name)


def _sections(model: type[BaseModel], path: str, variant: str, default: bool) -> Iterator[SectionDocs]:
    keys = []
    inner: list[tuple[str, list[type[BaseModel]], Any]] = []
    for name, field in model.model_fields.items():
        models = models_of(field.annotation)
        if models:
            below = f"{path}.{name}" if path else name
            inner.append((f"{below}.NAME" if get_origin(field.annotation) is dict else below, models, field.default))
        elif not (variant and name in _TAGS):
            keys.append(_key(name, field))
    text = cleandoc(model.__doc__ or "") if path else ""
    yield SectionDocs(path, variant, default, " ".join(text.split()), tuple(keys))
    for below, models, chosen in inner:
        for member in models:
            tag = _variant(member) if len(models) > 1 else ""
            yield from _sections(member, below, tag, default=len(models) == 1 or type(chosen) is member)


def _variant(model: type[BaseModel]) -> str:
    for tag in _TAGS:
        if tag in model.model_fields:
            return f"{tag} = {' or '.join(map(toml, get_args(model.model_fields[tag].annotation)))}"
    raise TypeError(f"{model.__name__} is one of several kinds of section but has none of the keys {_TAGS}")


def _key(name: str, field: FieldInfo) -> KeyDocs:
    default = "" if field.default is PydanticUndefined else toml(field.default)
    return KeyDocs(name, _type(field), default, field.is_required(), " ".join((field.description or "").split()))


def _type(field: FieldInfo) -> str:
    name = _type_name(field.annotation)
    bounds = [
        f"{sign} {getattr(mark, attribute)}"
        for mark in field.metadata
        for attribute, sign in _BOUNDS.items()
        if hasattr(mark, attribute)
    ]
    return f"{name} {', '.join(bounds)}" if bounds else name


def _type_name(annotation: Any) -> str:
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not Ellipsis]
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return " or ".join(f"`{toml(part)}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_type_name(part) for part in parts if part is not NoneType)
    if origin is dict:
        return f"table of {_type_name(parts[1])}s"
    if origin is tuple:
        names = [_type_name(part) for part in parts]
        return f"list of {names[0]}" if Ellipsis in get_args(annotation) else f"[{', '.join(names)}]"
    return _NAMES[annotation]
