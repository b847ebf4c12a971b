"""The Idempotency-Key header: a client's name for a change, under which it is not taken twice."""

import re
from typing import Any

from fastapi import Request

from service.problems import Kind, ProblemError

_HEADER = "idempotency-key"
_LONGEST = 255
_PATTERN = "^[A-Za-z0-9._:-]+$"

KEY_PARAMETER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this change. Whoever got no answer sends it again with the same key: it is not taken twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST, "pattern": _PATTERN},
}
"""How the OpenAPI document describes the header."""


def key_of(request: Request) -> str | None:
    """The key of a request, if it has one. Raises ProblemError when it is none."""
    key = request.headers.get(_HEADER)
    if key is not None and not (len(key) <= _LONGEST and re.fullmatch(_PATTERN, key)):
        raise ProblemError(Kind.INVALID, f"An Idempotency-Key is 1 to {_LONGEST} letters, digits and . _ : -")
    return key
