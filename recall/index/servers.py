"""Settings of servers that hold indexes, and the columns that a collection has."""

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import orjson

from recall.errors import ConfigError, IndexFileError
from recall.index.base import Params
from recall.index.query import CodedColumn, CodeRanges

CODES = 1
"""Raise it when a value gets another code than before: an index with other codes is then searched without its columns."""
SECONDS, FALLBACK = "RECALL_INDEX_SECONDS", "RECALL_INDEX_FALLBACK"
"""Environment variables: the budget of one search on a server, and "local" for answers from this process while it is down."""
_LEAST = 0.01  # seconds of that budget: servers count in milliseconds, and 0 would be no limit


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of one server.

    Attributes:
        url: its address, which may hold a password, and so is in no file of a bundle and in no message.
        host: of the address, for messages.
        seconds: budget of one search.
        local: whether this process answers, by an exact scan, while the server does not.
    """

    url: str
    host: str
    seconds: float
    local: bool

    @staticmethod
    def read(variable: str, engine: str, host_of: Callable[[str], str]) -> "Server":
        """Read the settings from the environment.

        Args:
            variable: with the address.
            engine: for messages.
            host_of: returns the host of an address, and raises ValueError if it is none.

        Raises:
            ConfigError: the address is missing or wrong, or a setting is none.
        """
        url, seconds, fallback = os.environ.get(variable, ""), os.environ.get(SECONDS, "1"), os.environ.get(FALLBACK, "")
        if not url:
            raise ConfigError(
                f"no address of a server for engine {engine!r}", where=variable, hint="Set it to the server's URL"
            )
        try:
            host = host_of(url)
        except ValueError:  # whose text may hold a part of a password
            raise ConfigError("this is not the address of a server", where=variable, hint=_ADDRESS) from None
        try:
            budget = float(seconds)
        except ValueError:
            budget = math.nan
        if not _LEAST <= budget < math.inf:
            hint = f"Write seconds such as 1.5, at least {_LEAST}"
            raise ConfigError(f"{seconds!r} is not a number of seconds for a search", where=SECONDS, hint=hint)
        if fallback not in ("", "local"):
            raise ConfigError(f"{fallback!r} cannot be a fallback", where=FALLBACK, hint="Write local, or leave it out")
        return Server(url, host, budget, fallback == "local")

    def reason(self, error: BaseException, *, lost: bool) -> str:
        """Say why a call failed.

        Args:
            error: of the client's library.
            lost: whether it is of the connection; its text may then hold parts of the address, and is left out.
        """
        return f"{type(error).__name__}, host {self.host}" if lost else str(error).strip() or type(error).__name__


@cache
def client_package(package: str, place: str, extra: str) -> Any:
    """Return the package of a server's client.

    Args:
        package: its name.
        place: what holds the index, for the error.
        extra: of this project that installs it.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError:
        what = f"an index in {place} needs the package {package}"
        raise ConfigError(what, where="index", hint=f"pip install 'fm-recall[{extra}]'") from None


def collection_of(params: Params) -> str:
    """Return the name of a collection, as they are drawn.

    Raises:
        IndexFileError: It is another name, and must not become a part of a statement.
    """
    name = str(params.get("collection"))
    if not re.fullmatch(r"fm_recall_[0-9a-f]{16}", name):
        raise IndexFileError(
            f"{name!r} is not the name of a collection of an index", where="index", hint="Restore the manifest"
        )
    return name


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


_ADDRESS = "Write URL://USER:PASSWORD@HOST:PORT, with each @, / and % of the password encoded: %40, %2F, %25"
