"""Mutable catalogue: writes go to the log, then to the snapshot, then return.

Several processes may serve one root. Each reads what the others wrote: it asks the journal, which costs a few
microseconds, whether there is more, at most once in `pause` seconds.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock, Thread

import numpy as np

from recall._ids import check_id, check_text
from recall.bundle.reader import Bundle
from recall.errors import JournalBusyError, JournalDamagedError, JournalError, RequestError, TokenError
from recall.features.novelty import novelties
from recall.index.base import ItemIndex
from recall.index.bitmap import RowBitmap
from recall.store.group_commit import Receipt
from recall.store.items.delta import ItemReader, Values
from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import Base, Change, LogRow, MovedError, Past, Reading, read_token, rows_of
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.items.tiers import Tiers, merge

PAUSE = 0.01
"""Seconds between two polls of the log."""
_TRIES = 5  # of a change whose log is replaced between reading and writing


class Catalog:
    """The catalogue of a bundle and its changes. Safe to share among threads."""

    def __init__(self, bundle: Bundle, index: ItemIndex, journal: ChangeLog | None = None, pause: float | None = PAUSE) -> None:
        """Read what the journal holds beyond the bundle.

        Args:
            bundle: what was published.
            index: over its vectors.
            journal: of the root that the bundle was published to; without one nothing changes.
            pause: `current` polls the log when so many seconds have passed since; None leaves polling to `refresh`.

        Raises:
            JournalError: the journal cannot be read, or no longer holds what came after the bundle.
        """
        self._journal = journal
        self._base = Base(bundle.manifest.log, bundle.manifest.folded)
        self._reader = ItemReader(bundle)
        nothing = RowBitmap.of_rows(np.empty(0, dtype=np.int64), index.size)
        self._empty = self._tiers = Tiers.of(Segment(0, bundle, nothing, index), self._base.compacted_through)
        self._catalogue = CatalogSnapshot(bundle, self._empty.segments, self._base.compacted_through)
        self._index = index
        self._pause = pause
        self._changing = Lock()
        self._merging: Thread | None = None
        self._closed = False
        self._version = (-1, -1)
        self._stamp: tuple[int, int] | None = None
        self._due = 0.0
        self._past = Past()
        if journal is not None:
            self.refresh()
            self._due = time.monotonic() + (pause or 0.0)

    @property
    def refused(self) -> dict[str, str]:
        """Reason why the latest change of an item does not fit this bundle, by id."""
        return dict(self._tiers.delta.refused)

    @property
    def overgrown(self) -> bool:
        """Whether so much has changed that a compaction is due."""
        return self._tiers.overgrown

    @property
    def added(self) -> int:
        """Items that were added or replaced since the bundle."""
        return self._tiers.count

    @property
    def replaced(self) -> int:
        """Items of the bundle that were replaced or deleted since."""
        return self._tiers.published.tombstones.count

    def current(self) -> CatalogSnapshot:
        """Return the snapshot now, or the last one with an error if the log is unreadable."""
        journal = self._journal
        if journal is None or self._pause is None or time.monotonic() < self._due:
            return self._catalogue
        if self._changing.acquire(blocking=False):  # else a different thread looks: no request waits for that
            try:
                self._due = time.monotonic() + self._pause
                self._catch_up(journal)
            except JournalError as error:
                self._catalogue = replace(self._catalogue, error=_unread(error))
            finally:
                self._changing.release()
        return self._catalogue

    @property
    def writable(self) -> bool:
        """Whether there is a journal to write to."""
        return self._journal is not None

    def on_commit(self, callback: Callable[[float], None]) -> None:
        """Register a callback as `ChangeLog.on_commit` does; unused without a log."""
        if self._journal is not None:
            self._journal.on_commit(callback)

    def durability_warning(self) -> str:
        """Return how acknowledged changes may be lost, in a sentence. Raises JournalError."""
        return "" if self._journal is None else self._journal.durability_warning()

    @property
    def unsaved(self) -> int:
        """Acknowledged changes that are served, and that the file has lost."""
        return len(self._past.unsaved)

    @property
    def lacks(self) -> int:
        """Sequence of an earlier log up to which changes are lost; 0 if none are."""
        return self._past.lacks

    @property
    def logs(self) -> bool:
        """Whether there was a log when it was last polled."""
        return self._past.state is not None

    @property
    def logged(self) -> int:
        """Changes in the log when it was last polled: the last one of each item."""
        return 0 if self._past.state is None else self._past.state.number

    @property
    def log_bytes(self) -> int:
        """Size of the log's files."""
        return 0 if self._journal is None else self._journal.size()

    def settle(self) -> None:
        """Checkpoint the log, so that a copy of its file alone is whole.

        Raises:
            JournalError: The log cannot be written.
        """
        if self._journal is not None:
            self._journal.checkpoint()

    @property
    def identity(self) -> str:
        """Identity of the log that is followed; empty before the first change."""
        return "" if self._past.state is None else self._past.state.identity

    def token(self, sequence: int) -> str:
        """Return a token for a change of the log that is followed."""
        return f"{self.identity}.{sequence}" if self.identity else ""

    def has_seen(self, token: str) -> bool:
        """Return whether the catalogue, as it is now, holds the change that a token names.

        Raises:
            TokenError: it names no change of this log, nor of one that this log has taken over.
        """
        identity, sequence = read_token(token)
        if self._past.knows(identity, sequence):
            return self._catalogue.sequence >= sequence
        raise TokenError(
            "the token is of another log of changes",
            where="/token",
            why="the log was replaced after the change was acknowledged, or the token is from another service",
            hint="Look whether the change is served, and make it again if it is not",
        )

    def has_changes(self) -> bool:
        """Return whether `refresh` would find unread changes; takes microseconds."""
        if self._journal is None or self._changing.locked():
            return False
        try:
            moved = self._journal.peek() != self._version or self._journal.mark.stamp() != self._stamp
        except JournalError:
            return True  # `refresh` raises it
        return moved or bool(self._catalogue.error)

    def behind(self) -> bool:
        """Return whether an acknowledged change may be missing; takes microseconds.

        False where the journal cannot be read, or has not changed since it was read: waiting would not help, and the catalogue
        reports the error.
        """
        if self._journal is None:
            return False
        if self._changing.locked():
            return True
        try:
            return self._journal.peek() != self._version
        except JournalError:
            return False

    def refresh(self) -> CatalogSnapshot:
        """Read what any process has written since.

        Raises:
            JournalError: The log cannot be read; later snapshots have the error.
        """
        if self._journal is not None:
            with self._changing:
                try:
                    self._catch_up(self._journal)
                except JournalError as error:
                    self._catalogue = replace(self._catalogue, error=_unread(error))
                    raise
        return self._catalogue

    def repair(self) -> int:
        """Write acknowledged changes back that the log has lost, and give how many.

        A file that is damaged is kept under another name, `journal.sqlite.damaged-...`, and a new one begun.
        Every change that is written does so first. A process that serves for long calls this as well, some seconds after
        `unsaved` has become larger than 0: the file may still be in the course of being replaced.

        Raises:
            JournalError: they cannot be written.
        """
        past = self._past
        if self._journal is None or not past.unsaved or past.lost is None:
            return 0
        self._journal.set_aside_damaged()
        written = self._journal.write_back(list(past.unsaved.values()), past.lost, past.lost_held)
        self.refresh()
        return written

    def upsert(self, items: Values, key: str | None = None) -> Receipt:
        """Add or replace items. Each is given whole: what is left out is missing.

        Args:
            items: values by column, by item id; the columns are those of the bundle's items.
            key: idempotency key of this batch: after a lost answer, the same batch under the same key is not applied
                twice.

        Raises:
            RequestError: a column is not known, a value is not what it holds, or a vector would not be finite; names the item
                and nothing is changed. Or the key belongs to another batch.
            JournalError: the change could not be written, and is not acknowledged; see `ChangeLog.append`.
        """
        read = self._reader.read(items)
        if read:
            self._reader.given(read)
        receipt = self._change([Change(one, values) for one, values in read.items()], key)
        warnings = novelties(self._catalogue.bundle.encoder, "item", read.values())
        return Receipt(*receipt, receipt.token, warnings)

    def delete(self, ids: Iterable[str], key: str | None = None) -> Receipt:
        """Delete items; errors as for `upsert`.

        Args:
            ids: of items, which the catalogue need not hold.
            key: idempotency key of this batch.
        """
        named = list(dict.fromkeys(map(self._reader.columns.id, _checked(ids))))
        return self._change([Change(one, None) for one in named], key)

    def merge(self) -> None:
        """Merge sealed segments until there are few, as a thread does when some are due."""
        try:
            while True:
                with self._changing:
                    run = () if self._closed else self._tiers.due()
                    if not run:
                        self._merging = None
                        return
                merged = merge(run, self._index)
                with self._changing:
                    after = self._tiers.with_merged(run, merged)
                    if after is not None:  # else the log was replaced meanwhile, and all was read again
                        self._show(after, self._catalogue.error)
        except BaseException:
            self._merging = None
            raise

    def close(self) -> None:
        """Close the journal; a merge under way ends by itself, as it reads memory alone."""
        self._closed = True
        if self._journal is not None:
            self._journal.close()

    def _change(self, changes: Sequence[Change], key: str | None) -> Receipt:
        if self._journal is None:
            raise JournalError(
                "this bundle has no journal of live changes",
                where=str(self._catalogue.bundle.folder),
                hint="Load the root of published versions, not the folder of one",
            )
        if key is not None:
            check_text(key, "/key")
        for _ in range(_TRIES):
            self.refresh()
            before = self._catalogue
            known = int((before.rows([change.item_id for change in changes]) >= 0).sum())
            if not changes:
                return Receipt(before.sequence, 0, self.token(before.sequence))
            self.repair()
            try:
                sequence = self._journal.append(changes, key, before.sequence, self._base, self._past.state)
            except MovedError:
                continue
            with suppress(JournalError):  # it is on disk: to say that it failed would be wrong
                self.refresh()
            if sequence > before.sequence and self._past.lost is not None:
                self._keep(changes, sequence)
            return Receipt(sequence, known, self.token(sequence))
        raise JournalBusyError(
            "the journal was replaced again and again",
            where=self._journal.where,
            hint="Try again in a moment",
        )

    def _keep(self, changes: Sequence[Change], sequence: int) -> None:
        """Serve changes that were written, even if the log was replaced since."""
        rows = rows_of(changes, sequence)
        with self._changing:
            missed = self._past.ensure(rows)
            if missed:
                self._show(self._after(self._tiers, missed, max(sequence, self._catalogue.sequence)), self._catalogue.error)

    def _catch_up(self, journal: ChangeLog) -> None:
        """Take in what is new; the caller holds the lock."""
        version, stamp = self._looked_at(journal)
        if version == self._version and stamp == self._stamp and not self._catalogue.error:
            return
        self._version, self._stamp = version, stamp  # also when reading fails: `behind` asks for what no look has seen
        try:
            reading = journal.read(self._past.state, self._base)
        except JournalDamagedError:
            self._past.take(Reading(None, [], 0, False, None))  # none of it is in a file that can be read
            raise
        rows = self._past.take(reading)
        tiers = self._tiers
        if rows is None:
            tiers, rows = self._empty, sorted(self._past.known.values())
        sequence = max(self._catalogue.sequence, 0 if reading.state is None else reading.state.last)
        if rows or sequence > tiers.delta.sequence:
            tiers = self._after(tiers, rows, sequence)
        self._show(tiers, self._past.error(reading.mark, self._base))

    def _looked_at(self, journal: ChangeLog) -> tuple[tuple[int, int], tuple[int, int] | None]:
        try:
            return journal.version(), journal.mark.stamp()
        except JournalDamagedError:  # reading will raise it again
            return (-2, -2), None

    def _show(self, tiers: Tiers, error: str) -> None:
        """Make segments the snapshot; the caller holds the lock."""
        if tiers is self._tiers:
            self._catalogue = replace(self._catalogue, error=error)
            return
        self._tiers = tiers
        self._catalogue = CatalogSnapshot(self._catalogue.bundle, tiers.segments, tiers.delta.sequence, error)
        if self._merging is None and not self._closed and tiers.due():
            self._merging = Thread(target=self.merge, name="merging segments")
            self._merging.start()

    def _after(self, tiers: Tiers, rows: Sequence[LogRow], sequence: int) -> Tiers:
        last = {row.item_id: row for row in rows}
        given, refused = self._reader.fitting(last.values())
        return tiers.changed(sequence, list(last), given, refused)


def _unread(error: JournalError) -> str:
    """Return what is wrong without the path, which answers must not show."""
    why = f"{error.what} ({error.why})" if error.why else error.what
    return f"later changes of items are not known: {why}"


def _checked(ids: Iterable[str]) -> Iterable[str]:
    if isinstance(ids, str):
        raise RequestError("ids is one text", where="/ids", hint="Give a list of ids")
    for position, one in enumerate(ids):
        check_id(one, f"/ids/{position}")
        yield one
