"""What stands after the question mark of a path."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from recall.errors import nearest
from service.problems import Fault, Kind, ProblemError

_LONGEST = 256  # characters of a name that are compared with those known


def check_names(request: Request, names: Sequence[str]) -> None:
    """Raise ProblemError unless all parameters have these names, and each is there once."""
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in names:
            raise _wrong(f"A parameter of this path is not known. {nearest(name[:_LONGEST], names)}")
        if given.count(name) > 1:
            raise _wrong(f"{name} is there twice.")


def whole_number(request: Request, name: str, usual: int, least: int, most: int | None = None) -> int:
    """A parameter that is a whole number of at least `least`, and at most `most` if that is given. Raises ProblemError."""
    text = request.query_params.get(name)
    if text is None:
        return usual
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    digits = text.isascii() and text.isdigit() and len(text) <= 18
    if not digits or int(text) < least or (most is not None and int(text) > most):
        raise _wrong(f"{name} is a whole number {bounds}.")
    return int(text)


def parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """How the OpenAPI document describes one."""
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _wrong(detail: str) -> ProblemError:
    return ProblemError(Kind.INVALID, detail, [Fault("", detail)])
