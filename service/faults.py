"""What is wrong with a body, in terms of the body that was sent; what was sent is not repeated."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_args

from pydantic import BaseModel

from recall.errors import nearest
from recall.serving.rerank.channels import AnyChannel, Channels
from recall.serving.rerank.rules import AnyRule
from service.problems import Fault, pointer

_LONGEST = 256  # characters of a name that are compared with those known


def fault_of(entry: Mapping[str, Any], model: type[BaseModel]) -> Fault:
    """One entry of a validation error, made with its context.

    Args:
        entry: as pydantic gives it.
        model: of the body.
    """
    path: tuple[str | int, ...] = entry["loc"]
    known = _keys(path, model)
    if path[:1] in (("rules",), ("channels",)):
        # the kind, by which an object in a list was told from others, is no part of its place
        path = tuple(step for at, step in enumerate(path) if not (at and isinstance(path[at - 1], int)))
    match entry["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return Fault(pointer(path), f"This key is not known. {nearest(str(path[-1])[:_LONGEST], known)}")
        case "union_tag_invalid":
            kinds = [tag.strip(" '") for tag in entry["ctx"]["expected_tags"].split(",")]
            near = nearest(str(entry["ctx"]["tag"])[:_LONGEST], kinds)
            return Fault(pointer((*path, "kind")), f"This kind is not known. {near}")
        case "union_tag_not_found":
            return Fault(pointer(path), "An object is wanted that says its 'kind'")
        case "model_type" if not path:
            return Fault("", "The body is a JSON object")
        case "dataclass_type" | "model_type":
            return Fault(pointer(path), "An object is wanted here")
    if path and path[-1] == "[key]":  # a key that is itself wrong is not repeated
        return Fault(pointer(path[:-2]), f"A name here is wrong: {entry['msg']}")
    return Fault(pointer(path), entry["msg"])


def _keys(path: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Keys of the object that a path leads into."""
    if path[:1] not in (("rules",), ("channels",)):
        for step in path[:-1]:
            field = model.model_fields.get(step) if isinstance(step, str) else None
            model = model if field is None else next(_models(field.annotation), model)
        return list(model.model_fields)
    kinds = {_kind(one): one for one in (*get_args(AnyRule), *get_args(AnyChannel))}
    for step in reversed(path[:-1]):
        if step in kinds:
            return [field.name for field in fields(kinds[step])]
    return [field.name for field in fields(Channels)]


def _models(of: Any) -> Iterator[type[BaseModel]]:
    """Models that a type speaks of, such as of a list of them."""
    if isinstance(of, type) and issubclass(of, BaseModel):
        yield of
    for part in get_args(of):
        yield from _models(part)


def _kind(of: Any) -> str:
    return next(str(field.default) for field in fields(of) if field.name == "kind")
