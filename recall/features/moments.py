"""Recognize, read and write ISO 8601 dates, times and times of day."""

import datetime
import re
from functools import cache

DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
CLOCK = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
TIME = rf"{DATE}(?:[Tt ]{CLOCK}(?: ?(?:[Zz]|[+-][0-9]{{2}}(?::?[0-9]{{2}})?))?)?"
"""Patterns of a date, a time of day, and a date or time with or without a zone."""

_time = re.compile(rf"({DATE})(?:[Tt ]({CLOCK})(?: ?([Zz]|[+-][0-9]{{2}}(?::?[0-9]{{2}})?))?)?")
_clock = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?")

EPOCH = datetime.date(1970, 1, 1)


def moment(text: str) -> tuple[int, int]:
    """Read an ISO 8601 date or time, in UTC unless it says otherwise.

    Returns:
        Seconds since 1970, and nanoseconds from 0 to 999,999,999 after them.

    Raises:
        ValueError: The text is not a date or time.
    """
    found = _time.fullmatch(text)
    if found is None:
        raise ValueError("not an ISO 8601 date or time")
    day, clock, zone = found.groups()
    seconds = (datetime.date.fromisoformat(day) - EPOCH).days * 86_400
    if clock is None:
        return seconds, 0
    of_day, nanoseconds = time_of_day(clock)
    return seconds + of_day - _offset(zone), nanoseconds


def time_of_day(text: str) -> tuple[int, int]:
    """Read a time of day.

    Returns:
        Seconds since midnight, and nanoseconds from 0 to 999,999,999 after them.

    Raises:
        ValueError: The text is not a time of day.
    """
    found = _clock.fullmatch(text)
    if found is None:
        raise ValueError("not a time of day")
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError("no such time of day")
    return (hours * 60 + minutes) * 60 + seconds, int((found[4] or "").ljust(9, "0"))


@cache
def _offset(zone: str | None) -> int:
    """Return the seconds that a zone is ahead of UTC; ValueError if impossible."""
    if zone is None or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError("no such offset")
    return (hours * 60 + minutes) * 60 * (-1 if zone[0] == "-" else 1)


def clock_text(seconds: int, nanoseconds: int) -> str:
    """Format a time of day, with 6 or 9 decimals where needed.

    Args:
        seconds: since midnight.
        nanoseconds: after them.
    """
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if not nanoseconds:
        return clock
    return f"{clock}.{nanoseconds:09}" if nanoseconds % 1000 else f"{clock}.{nanoseconds // 1000:06}"
