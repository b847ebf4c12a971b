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
"""A rule as plain values, told apart by `kind`."""

MOST_RULES = 10
"""Rules that one request may have."""


def read_rules(values: Sequence[object]) -> tuple[AnyRule, ...]:
    """Rules, or plain values that say what a rule does, as rules that are checked.

    Raises:
        RequestError: one is no rule, or a part of it is out of bounds; `where` is the JSON pointer within a request.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) > MOST_RULES:
        raise RequestError("these are no rules", where="/rules", hint=f"Give a list of at most {MOST_RULES} rules")
    try:
        return tuple(_adapter().validate_python(list(values)))
    except ValidationError as error:
        raise refused("rules", error) from None


def pointer_of(part: str, path: Sequence[str | int]) -> str:
    """The JSON pointer of a fault in a list of tagged values: the tag, which follows a position, is no part of it."""
    kept = [step for at, step in enumerate(path) if not (at and isinstance(path[at - 1], int))]
    return pointer(part, *kept)


def refused(part: str, error: ValidationError) -> RequestError:
    """The first fault of a part of a request that holds tagged values, as this library tells it."""
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
