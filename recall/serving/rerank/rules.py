"""All kinds of rules, and the check of what a request says of them."""

from collections.abc import Sequence
from functools import cache
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from recall.errors import RequestError, did_you_mean, pointer
from recall.serving.rerank.mmr import Diversify
from recall.serving.rerank.pins import Pin
from recall.serving.rerank.quota import Dedupe, Quota

AnyRule = Quota | Dedupe | Diversify | Pin
TaggedRule = Annotated[AnyRule, Field(discriminator="kind")]
"""A rule as plain values, distinguished by `kind`."""

MOST_RULES = 10
"""Rules that one request may have."""


def read_rules(values: Sequence[object]) -> tuple[AnyRule, ...]:
    """Rules, or plain values that say what a rule does, as rules that are checked.

    Raises:
        RequestError: A rule is malformed or out of bounds; `where` is the JSON pointer within a request.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) > MOST_RULES:
        found = f"{len(values)} rules" if isinstance(values, list | tuple) else type(values).__name__
        raise RequestError(f"rules must be a list of at most {MOST_RULES} rules, got {found}", where="/rules")
    try:
        return tuple(_adapter().validate_python(list(values)))
    except ValidationError as error:
        raise refused("rules", error) from None


def pointer_of(part: str, path: Sequence[str | int]) -> str:
    """Return the JSON pointer of a fault in a list of tagged values.

    Args:
        part: key of the list in the request.
        path: of pydantic's error; the tag, which follows a position, is left out.
    """
    kept = [step for at, step in enumerate(path) if not (at and isinstance(path[at - 1], int))]
    return pointer(part, *kept)


def refused(part: str, error: ValidationError) -> RequestError:
    """Convert the first fault of a part of a request with tagged values.

    Args:
        part: key of the list in the request.
        error: of pydantic.
    """
    fault = error.errors(include_url=False, include_input=False)[0]
    where, context = pointer_of(part, fault["loc"]), fault.get("ctx", {})
    if fault["type"] == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return RequestError(
            "this kind is not known", where=f"{where}/kind", hint=did_you_mean(str(context["tag"])[:256], known)
        )
    return RequestError(fault["msg"], where=where)


@cache
def _adapter() -> TypeAdapter[list[AnyRule]]:
    return TypeAdapter(list[TaggedRule])
