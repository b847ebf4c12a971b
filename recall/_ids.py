"""Validate external ids, and name some of them."""

from collections.abc import Sequence

from recall.errors import RequestError


def check_ids(ids: Sequence[str], where: str) -> None:
    """Check that every element is an id.

    Args:
        ids: any values.
        where: JSON pointer of the list, used in the error.

    Raises:
        RequestError: An element is not a valid id, and the error points at it; or a single string was given.
    """
    if isinstance(ids, str):
        what = f"{where.rpartition('/')[2]} must be a list of strings, got a single string"
        raise RequestError(what, where=where, hint="Give a list of ids")
    try:
        "".join(ids).encode()  # one pass over thousands of ids; each is checked by itself only to name the invalid one
        sound = all(map(str.strip, ids))
    except (TypeError, UnicodeEncodeError):
        sound = False
    if not sound:
        for position, one in enumerate(ids):
            check_id(one, f"{where}/{position}")


def check_id(value: object, where: str) -> None:
    """Check that a value is an id: valid text that is not blank.

    Args:
        value: anything.
        where: JSON pointer of the value, used in the error.

    Raises:
        RequestError: The value is not text, not valid Unicode, empty, or blank.
    """
    check_text(value, where)
    if isinstance(value, str) and not value.strip():
        raise RequestError(
            "the id is empty" if not value else "the id is blank",
            where=where,
            hint="Give an id, or leave it out",
        )


_SHOWN = 5  # ids named in one message


def first_few(ids: Sequence[str]) -> str:
    """Return the first few of some ids, as a message names them."""
    return ", ".join(map(repr, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")


def id_warnings(*found: tuple[Sequence[str], str]) -> tuple[str, ...]:
    """Return a warning for each fault that some ids have.

    Args:
        found: ids with a fault, perhaps none, and the fault.
    """
    return tuple(f"{len(ids)} {fault}: {first_few(ids)}" for ids, fault in found if ids)


def check_text(value: object, where: str) -> None:
    """Check that a value is valid text.

    Args:
        value: anything.
        where: JSON pointer of the value, used in the error.

    Raises:
        RequestError: The value is not a string, or holds an unpaired surrogate.
    """
    if not isinstance(value, str):
        raise RequestError(f"an id must be text, got {type(value).__name__}", where=where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError("an id must be valid Unicode", where=where, hint="Send UTF-8") from None
