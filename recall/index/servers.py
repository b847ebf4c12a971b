"""Settings of servers that hold indexes, and the columns that a collection has."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from recall.errors import ConfigError
from recall.index.base import Params
from recall.index.query import CodedColumn, CodeRanges

CODES = 1
"""Raise it when a value gets another code than before: an index with other codes is then searched without its columns."""
SECONDS, FALLBACK = "RECALL_INDEX_SECONDS", "RECALL_INDEX_FALLBACK"
"""Environment variables: the budget of one search on a server, and "local" for answers from this process while it is down."""


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of one server.

    Attributes:
        url: its address, which may hold a password, and so is in no file of a bundle and in no message.
        seconds: budget of one search.
        local: whether this process answers, by an exact scan, while the server does not.
    """

    url: str
    seconds: float
    local: bool

    @staticmethod
    def read(variable: str, engine: str) -> "Server":
        """Read the settings from the environment.

        Args:
            variable: with the address.
            engine: for messages.

        Raises:
            ConfigError: the address is missing, or a setting is none.
        """
        url, seconds, fallback = os.environ.get(variable, ""), os.environ.get(SECONDS, "1"), os.environ.get(FALLBACK, "")
        if not url:
            raise ConfigError(
                f"no address of a server for engine {engine!r}", where=variable, hint="Set it to the server's URL"
            )
        try:
            budget = float(seconds)
        except ValueError:
            budget = math.nan
        if not 0 < budget < math.inf:
            raise ConfigError(f"{seconds!r} is not a number of seconds", where=SECONDS, hint="Write it such as 1.5")
        if fallback not in ("", "local"):
            raise ConfigError(f"{fallback!r} cannot be a fallback", where=FALLBACK, hint="Write local, or leave it out")
        return Server(url, budget, fallback == "local")


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """Columns in a collection, by place, as the parameters of its index record them."""

    columns: tuple[tuple[str, str, bool], ...]
    """Name, kind, and whether a row may have several entries."""

    @staticmethod
    def of(columns: Sequence[CodedColumn]) -> "StoredColumns":
        """Return a description of columns that are stored."""
        return StoredColumns(tuple((one.name, one.kind, one.rows is not None) for one in columns))

    @staticmethod
    def read(params: Params) -> "StoredColumns":
        """Return the description in parameters; no columns if they have other codes."""
        found = orjson.loads(str(params["columns"])) if params["codes"] == CODES else ()
        return StoredColumns(tuple((name, kind, bag) for name, kind, bag in found))

    @property
    def params(self) -> dict[str, int | float | str]:
        """The description, as parameters of an index."""
        return {"codes": CODES, "columns": orjson.dumps(self.columns).decode()}

    def find(self, condition: CodeRanges) -> tuple[int, bool] | None:
        """Return place and bag of the column of a condition; None if it is not stored."""
        for place, (name, kind, bag) in enumerate(self.columns):
            if (name, kind) == (condition.column, condition.kind):
                return place, bag
        return None
