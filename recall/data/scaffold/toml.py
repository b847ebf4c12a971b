"""Pieces of TOML."""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import chain, count


def text(value: str) -> str:
    """A text with its quotes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def key(name: str) -> str:
    """A name as a key, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def clean(line: str) -> str:
    """A line without characters that TOML allows in no comment, such as a line break in the name of a column."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", line)


class Keys:
    """Keys of one table, each given out once."""

    def __init__(self, *used: str) -> None:
        self._used = set(used)

    def take(self, *wanted: str) -> str:
        """The first of the wanted names that is free, or the last of them with a number."""
        numbered = (f"{wanted[-1]}_{number}" for number in count(2))
        name = next(one for one in chain(wanted, numbered) if one and one not in self._used)
        self._used.add(name)
        return name


def array(values: Iterable[str]) -> str:
    """A list of texts."""
    return f"[{', '.join(map(text, values))}]"


def numbers(values: Mapping[str, float]) -> str:
    """An inline table of numbers."""
    return f"{{ {', '.join(f'{key(name)} = {value:g}' for name, value in values.items())} }}"
