"""Checks of external ids, wherever they come from."""

from collections.abc import Sequence

from recall.errors import RequestError


def check_ids(ids: Sequence[str], where: str) -> None:
    """Raise RequestError unless all are ids; `where` is the JSON pointer of the list."""
    try:
        "".join(ids).encode()  # thousands of ids are looked at in one go, and one by one only to name the odd one
        sound = all(map(str.strip, ids))
    except (TypeError, UnicodeEncodeError):
        sound = False
    if not sound:
        for position, one in enumerate(ids):
            check_id(one, f"{where}/{position}")


def check_id(value: object, where: str) -> None:
    """Raise RequestError unless this is an id: text that holds more than white space."""
    check_text(value, where)
    if isinstance(value, str) and not value.strip():
        raise RequestError(
            "the id is empty" if not value else "the id holds white space only",
            where=where,
            hint="Give an id, or leave it out",
        )


def check_text(value: object, where: str) -> None:
    """Raise RequestError unless this is valid text."""
    if not isinstance(value, str):
        raise RequestError(f"an id of type {type(value).__name__}", where=where, hint="Ids are text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError("an id that is no valid Unicode", where=where, hint="Send UTF-8") from None
