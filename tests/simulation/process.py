"""A simulated server process, reduced to its file operations; several take turns in one real process."""

import gc
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import polars as pl

import recall
from recall.bundle.versions import live_name, number
from recall.errors import RecallError
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.users.sqlite import USERS_LIVE
from tests.simulation import model
from tests.simulation.model import Value

EVERYTHING = Request("u1", n=1000, exclude_seen=False)
_CODE = str(Path(recall.__file__).parent)
_WATCHED = tuple(str(Path(_CODE, part)) for part in ("_file_system", "bundle", "store", "publish"))


_LONGEST_CLOSE = 20.0  # seconds


class _StuckError(Exception):
    """A close that waits for a lock left by a simulated crash."""


def _give_up(_number: int, _frame: object) -> None:
    raise _StuckError


class Died(BaseException):
    """Simulated kill of the process at this line."""


class Process:
    """Serves the live version of a root like the service; it polls for changes on request.

    Attributes:
        name: used in the log of a run.
        recommender: None while the process is not running.
        error: why the live version is not served; empty if it is.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.recommender: Recommender | None = None
        self.error = ""

    @property
    def runs(self) -> bool:
        """Whether the process is running."""
        return self.recommender is not None

    @property
    def loaded(self) -> Recommender:
        """The recommender of the running process."""
        assert self.recommender is not None
        return self.recommender

    @property
    def version(self) -> int:
        """The number of the served version."""
        return self.loaded.bundle.manifest.sequence

    def start(self) -> None:
        """Load the live version. Raises RecallError."""
        self.recommender = Recommender.load(self.root, pause=None)
        self.error = ""

    def stop(self) -> None:
        """Close everything.

        A simulated crash may occur between acquiring a lock and entering the block that releases it. A real process releases
        its locks when it dies, so a close that waits for one is abandoned.
        """
        if self.recommender is not None:
            before = signal.signal(signal.SIGALRM, _give_up)
            signal.setitimer(signal.ITIMER_REAL, _LONGEST_CLOSE)
            try:
                self.recommender.close()
            except _StuckError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
        self.recommender = None

    def look(self) -> None:
        """Swap to the version named by CURRENT; if it is refused, record the error and keep the old one."""
        if number(live_name(self.root)) == self.version:
            self.error = ""
            return
        try:
            other = Recommender.load(self.root, pause=None)
        except RecallError as error:
            self.error = str(error)
            return
        self.loaded.close()
        self.recommender, self.error = other, ""

    def ask(self) -> CatalogSnapshot:
        """Return the catalogue for a request, after the steps that the service does first."""
        items = self.loaded.items
        if items.behind():
            try:
                items.refresh()
            except RecallError:
                return items.current()
        return items.current()

    def catch_up(self) -> CatalogSnapshot:
        """Return the catalogue after polling the log; the catalogue reports an unreadable one."""
        try:
            return self.loaded.items.refresh()
        except RecallError:
            return self.loaded.items.current()

    def repair(self) -> None:
        """Write lost changes back, as the service does in the background."""
        self.loaded.items.repair()

    def scores(self) -> dict[str, float]:
        """Return the score of every item for a user."""
        answer = self.loaded.recommend(EVERYTHING)
        return dict(zip(answer.ids, answer.scores, strict=True))


def values(catalogue: CatalogSnapshot) -> model.Catalogue:
    """Return the values of the items of a catalogue."""
    return items_of(catalogue.items())


def items_of(table: pl.DataFrame) -> model.Catalogue:
    """Return the values of the items of a table."""
    return {item: Value(*value) for item, *value in table.select("item_id", "category", "price").iter_rows()}


def table_of(items: model.Catalogue, template: pl.DataFrame) -> pl.DataFrame:
    """Write an items table for `rebuild`, with the columns of the bundle."""
    rows = [{"item_id": one, "category": value.category, "price": value.price} for one, value in items.items()]
    frame = pl.DataFrame(rows, schema={name: template.schema[name] for name in ("item_id", "category", "price")})
    others = [pl.lit(None, dtype=template.schema[name]).alias(name) for name in template.columns if name not in frame.columns]
    return frame.with_columns(others).select(template.columns)


def die(root: Path, act: Callable[[], Any], line: int) -> bool:
    """Run `_die` for a process that may be killed between opening and closing a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        died = _die(root, act, line)
        gc.collect(0)
    return died


def _die(root: Path, act: Callable[[], Any], line: int) -> bool:
    """Run an action that is killed at its N-th line; return whether it was.

    Cleanup that a killed process would not have done is undone: files are restored to the time of the kill. Those of SQLite
    are kept, because a transaction that was rolled back is equivalent to an unfinished one.
    """
    seen, found = 0, {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen, found
        if not frame.f_code.co_filename.startswith(_WATCHED):
            return None
        if event == "line":
            seen += 1
            if seen == line:
                found = _files(root)
                sys.settrace(None)
                raise Died
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        act()
    except Died:
        sys.settrace(before)
        _put_back(root, found)
        return True
    except BaseException:
        sys.settrace(before)
        if found:  # the kill was wrapped in another error
            _put_back(root, found)
            return True
        raise
    finally:
        sys.settrace(before)
    return False


def _files(root: Path) -> dict[Path, bytes | None]:
    return {path: None if path.is_dir() else path.read_bytes() for path in sorted(root.rglob("*")) if not _of_sqlite(path)}


def _of_sqlite(path: Path) -> bool:
    return ".sqlite" in path.name and (path.name.startswith(("journal", USERS_LIVE)))


def _put_back(root: Path, files: dict[Path, bytes | None]) -> None:
    for path in sorted((one for one in root.rglob("*") if one not in files and not _of_sqlite(one)), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    for path, data in files.items():
        if data is None:
            path.mkdir(exist_ok=True)
        elif not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
