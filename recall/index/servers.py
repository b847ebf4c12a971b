"""Settings of index servers, and descriptions of the columns in a collection."""

import math
import os
import re
import reprlib
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
"""Version of the codes, to be increased when values get other codes: columns with codes of another version are not used."""
SECONDS, FALLBACK = "RECALL_INDEX_SECONDS", "RECALL_INDEX_FALLBACK"
"""Environment variables: time limit of one search on a server, and "local" for a scan in this process while it is down."""
_MIN_SECONDS = 0.01  # servers count in milliseconds, and 0 would mean no limit


@dataclass(frozen=True, slots=True)
class Server:
    """Settings of one server.

    Attributes:
        url: its address. It may contain a password, so it is never written to a bundle or a message.
        host: host of the address, for messages.
        seconds: time limit of one search.
        local: whether an exact scan in this process answers while the server does not.
    """

    url: str
    host: str
    seconds: float
    local: bool

    @staticmethod
    def read(variable: str, engine: str, host_of: Callable[[str], str]) -> "Server":
        """Read the settings from the environment.

        Args:
            variable: name of the variable with the address.
            engine: name of the engine, for messages.
            host_of: returns the host of an address; raises ValueError if the address is malformed.

        Raises:
            ConfigError: The address is missing or malformed, or another setting is malformed.
        """
        url, seconds, fallback = os.environ.get(variable, ""), os.environ.get(SECONDS, "1"), os.environ.get(FALLBACK, "")
        if not url:
            raise ConfigError(f"engine {engine!r} needs the address of a server", where=variable, hint="Set it to its URL")
        try:
            host = host_of(url)
        except ValueError:  # its text may contain a part of a password
            raise ConfigError("the address of the server is malformed", where=variable, hint=_ADDRESS) from None
        try:
            limit = float(seconds)
        except ValueError:
            limit = math.nan
        if not _MIN_SECONDS <= limit < math.inf:
            what = f"the time limit of a search must be at least {_MIN_SECONDS} seconds, got {seconds!r}"
            raise ConfigError(what, where=SECONDS, hint="Write a number such as 1.5")
        if fallback not in ("", "local"):
            raise ConfigError(f"the fallback must be 'local' or empty, got {fallback!r}", where=FALLBACK)
        return Server(url, host, limit, fallback == "local")

    def reason(self, error: BaseException, *, lost: bool) -> str:
        """Return the reason of a failed call, for a message.

        Args:
            error: of the client library.
            lost: whether the connection failed: the text of the error may then contain parts of the address, and is left out.
        """
        return f"{type(error).__name__}, host {self.host}" if lost else str(error).strip() or type(error).__name__


@cache
def client_package(package: str, place: str, extra: str) -> Any:
    """Import the client package of a server.

    Args:
        package: its name.
        place: name of the server software, for the error.
        extra: extra of this project that installs the package.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError:
        what = f"an index in {place} needs the package {package}"
        raise ConfigError(what, where="index", hint=f"pip install 'fm-recall[{extra}]'") from None


def collection_of(params: Params) -> str:
    """Return the name of the collection of an index.

    Raises:
        IndexFileError: The name is not one of those that are drawn, so that it must not become a part of a statement.
    """
    name = str(params.get("collection"))
    if not re.fullmatch(r"fm_recall_[0-9a-f]{16}", name):
        what = f"the name of the collection must be 'fm_recall_' and 16 hexadecimal digits, got {reprlib.repr(name)}"
        raise IndexFileError(what, where="index", hint="Restore the manifest")
    return name


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """Description of the columns in a collection, recorded in the index's `params`."""

    columns: tuple[tuple[str, str, bool], ...]
    """Name, kind, and whether a row may have several entries (a bag), in the order of the collection."""

    @staticmethod
    def of(columns: Sequence[CodedColumn]) -> "StoredColumns":
        """Return the description of columns."""
        return StoredColumns(tuple((one.name, one.kind, one.rows is not None) for one in columns))

    @staticmethod
    def read(params: Params) -> "StoredColumns":
        """Read the description; without columns if their codes are of another version."""
        found = orjson.loads(str(params["columns"])) if params["codes"] == CODES else ()
        return StoredColumns(tuple((name, kind, bag) for name, kind, bag in found))

    @property
    def params(self) -> dict[str, int | float | str]:
        """The description as parameters of an index."""
        return {"codes": CODES, "columns": orjson.dumps(self.columns).decode()}

    def find(self, condition: CodeRanges) -> tuple[int, bool] | None:
        """Return position and bag of a condition's column; None if it is not stored."""
        for place, (name, kind, bag) in enumerate(self.columns):
            if (name, kind) == (condition.column, condition.kind):
                return place, bag
        return None


_ADDRESS = "Write URL://USER:PASSWORD@HOST:PORT, with each @, / and % of the password encoded: %40, %2F, %25"
