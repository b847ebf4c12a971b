"""Ids in paths. Paths are matched as they were sent, so that an id may hold a slash: `/v1/items/a%2Fb` is the item "a/b"."""

from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from service.problems import Fault, Kind, ProblemError
from service.wire import Id

_ID = TypeAdapter[str](Id)


def id_in(request: Request, name: str) -> str:
    """The id that a part of the path stands for. Raises ProblemError when it is none."""
    encoded: str = request.path_params[name]
    try:
        return _ID.validate_python(unquote_to_bytes(encoded.encode("latin-1")).decode())
    except (UnicodeDecodeError, ValidationError):
        fault = Fault("", "An id is UTF-8 of 1 to 1024 characters, percent-encoded")
        raise ProblemError(Kind.INVALID, f"The path names no {name.removesuffix('_id')}.", [fault]) from None


def id_parameter(name: str) -> dict[str, Any]:
    """How the OpenAPI document describes such a part."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 1024}}
