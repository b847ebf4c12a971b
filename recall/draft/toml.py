"""Pieces of TOML."""

import json
import re
from collections.abc import Iterable, Mapping


def text(value: str) -> str:
    """A text with its quotes."""
    return json.dumps(value, ensure_ascii=False)


def key(name: str) -> str:
    """A name as a key, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else text(name)


def array(values: Iterable[str]) -> str:
    """A list of texts."""
    return f"[{', '.join(map(text, values))}]"


def numbers(values: Mapping[str, float]) -> str:
    """An inline table of numbers."""
    return f"{{ {', '.join(f'{key(name)} = {value:g}' for name, value in values.items())} }}"
