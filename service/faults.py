"""What is wrong with a body, in terms of the body that was sent; what was sent is not repeated."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

from recall.channels.kinds import AnyChannel, Channels
from recall.errors import nearest
from recall.rules.kinds import AnyRule
from service.problems import Fault, pointer

_LONGEST = 256  # characters of a name that are compared with those known


def fault_of(entry: Mapping[str, Any], known: Iterable[str]) -> Fault:
    """One entry of a validation error, made with its context.

    Args:
        entry: as pydantic gives it.
        known: keys of the body.
    """
    path: tuple[str | int, ...] = entry["loc"]
    if path[:1] in (("rules",), ("channels",)):
        known = _keys(path)
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
        case "model_type":
            return Fault("", "The body is a JSON object")
        case "dataclass_type":
            return Fault(pointer(path), "An object is wanted here")
    if path and path[-1] == "[key]":  # a key that is itself wrong is not repeated
        return Fault(pointer(path[:-2]), f"A name here is wrong: {entry['msg']}")
    return Fault(pointer(path), entry["msg"])


def _keys(path: tuple[str | int, ...]) -> list[str]:
    """Keys of the object that a path leads into."""
    kinds = {_kind(one): one for one in (*get_args(AnyRule), *get_args(AnyChannel))}
    for step in reversed(path[:-1]):
        if step in kinds:
            return [field.name for field in fields(kinds[step])]
    return [field.name for field in fields(Channels)]


def _kind(of: Any) -> str:
    return next(str(field.default) for field in fields(of) if field.name == "kind")
