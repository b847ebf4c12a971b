"""Mutable catalogue: a write goes to the log, then to the snapshot, then returns.

Several processes may serve one root. Each polls the log for the changes of the others, which takes a few microseconds, at most
once in `pause` seconds.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock, Thread

import numpy as np

from recall._ids import check_ids, check_text
from recall._priority import yield_to_others
from recall.bundle.reader import Bundle
from recall.errors import JournalBusyError, JournalDamagedError, JournalError, TokenError
from recall.features.novelty import novelties
from recall.index.base import ItemIndex
from recall.index.bitmap import RowBitmap
from recall.store.group_commit import Receipt
from recall.store.items.delta import ItemReader, Values
from recall.store.items.log_base import ChangeLog
from recall.store.items.log_position import Base, Change, LogReplacedError, LogRow, Reading, ServedChanges, read_token, to_rows
from recall.store.items.segment import Segment
from recall.store.items.snapshot import CatalogSnapshot
from recall.store.items.tiers import Tiers, merge

PAUSE = 0.01
"""Seconds between two polls of the log."""
_TRIES = 5  # attempts to append to a log that is replaced between reading and writing


class Catalog:
    """Items of a bundle with live changes on top. Safe to share among threads."""

    def __init__(self, bundle: Bundle, index: ItemIndex, journal: ChangeLog | None = None, pause: float | None = PAUSE) -> None:
        """Apply the changes in the log that the bundle lacks.

        Args:
            bundle: the published bundle.
            index: index over the bundle's item vectors.
            journal: change log of the root that the bundle was published to; None for a catalogue that does not change.
            pause: minimum seconds between two polls of the log by `current`; None if only `refresh` polls.

        Raises:
            JournalError: The log cannot be read, or has dropped changes that the bundle lacks.
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
        self._served = ServedChanges()
        self._refused: dict[str, str] = {}
        if journal is not None:
            self.refresh()
            self._due = time.monotonic() + (pause or 0.0)

    @property
    def refused(self) -> dict[str, str]:
        """Reasons why latest changes cannot be encoded with this bundle, by item id."""
        return dict(self._refused)

    @property
    def needs_compaction(self) -> bool:
        """Whether there are enough changes for a compaction."""
        return self._tiers.needs_compaction

    @property
    def overgrown(self) -> bool:
        """Old name of `needs_compaction`, for one minor version."""
        return self.needs_compaction

    @property
    def added(self) -> int:
        """Number of items added or replaced since the bundle."""
        return self._tiers.count

    @property
    def replaced(self) -> int:
        """Number of the bundle's items that were replaced or deleted since."""
        return self._tiers.published.tombstones.count

    def current(self) -> CatalogSnapshot:
        """Return the latest snapshot; its `error` is set if the log is unreadable."""
        journal = self._journal
        if journal is None or self._pause is None or time.monotonic() < self._due:
            return self._catalogue
        if self._changing.acquire(blocking=False):  # else another thread is polling, and no request waits for it
            try:
                self._due = time.monotonic() + self._pause
                self._update(journal)
            except JournalError as error:
                self._catalogue = replace(self._catalogue, error=_describe(error))
            finally:
                self._changing.release()
        return self._catalogue

    @property
    def writable(self) -> bool:
        """Whether there is a log to write to."""
        return self._journal is not None

    def on_commit(self, callback: Callable[[float], None]) -> None:
        """Register a callback invoked with the seconds of each commit to the log."""
        if self._journal is not None:
            self._journal.on_commit(callback)

    def durability_warning(self) -> str:
        """Return a warning if acknowledged changes may be lost. Raises JournalError."""
        return "" if self._journal is None else self._journal.durability_warning()

    @property
    def unsaved(self) -> int:
        """Number of acknowledged, served changes that the log has lost."""
        return len(self._served.unsaved)

    @property
    def missing_through(self) -> int:
        """Last sequence of an earlier log with lost changes; 0 if no changes are lost."""
        return self._served.missing_through

    @property
    def logged(self) -> int:
        """Number of entries in the log at the last poll, one for each changed item."""
        return 0 if self._served.state is None else self._served.state.number

    @property
    def log_bytes(self) -> int:
        """Size of the log in bytes."""
        return 0 if self._journal is None else self._journal.size()

    def checkpoint(self) -> None:
        """Checkpoint the log, so that a copy of its main file is complete.

        Raises:
            JournalError: The log cannot be written.
        """
        if self._journal is not None:
            self._journal.checkpoint()

    @property
    def identity(self) -> str:
        """Identity of the log; empty before the first change."""
        return "" if self._served.state is None else self._served.state.identity

    def token(self, sequence: int) -> str:
        """Return the token of a change in the log."""
        return f"{self.identity}.{sequence}" if self.identity else ""

    def has_seen(self, token: str) -> bool:
        """Return whether the current snapshot reflects the change of a token.

        Raises:
            TokenError: The change belongs neither to this log nor to one that was written back to it.
        """
        identity, sequence = read_token(token)
        if self._served.includes(identity, sequence):
            return self._catalogue.sequence >= sequence
        raise TokenError(
            "the token is of another log of changes",
            where="/token",
            why="the log was replaced after the change was acknowledged, or the token is from another service",
            hint="Check whether the change is served, and send it again if not",
        )

    def has_changes(self) -> bool:
        """Return whether `refresh` would find unread changes; takes microseconds."""
        if self._journal is None or self._changing.locked():
            return False
        try:
            changed = self._journal.peek() != self._version or self._journal.mark.stamp() != self._stamp
        except JournalError:
            return True  # `refresh` raises the error
        return changed or bool(self._catalogue.error)

    def behind(self) -> bool:
        """Return whether the snapshot may lack an acknowledged change; microseconds.

        False if the log cannot be read, or has not changed since it was read: waiting would not help, and the snapshot has the
        error.
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
        """Read the changes that any process wrote since, and return the new snapshot.

        Raises:
            JournalError: The log cannot be read; `error` of later snapshots reports it.
        """
        if self._journal is not None:
            with self._changing:
                try:
                    self._update(self._journal)
                except JournalError as error:
                    self._catalogue = replace(self._catalogue, error=_describe(error))
                    raise
        return self._catalogue

    def repair(self) -> int:
        """Write back acknowledged changes that the log has lost; return their number.

        A damaged file is renamed to `journal.sqlite.damaged-...`, and a new one is created. Every write calls this first. A
        server also calls it some seconds after `unsaved` became positive, as the file may still be in the process of being
        replaced before.

        Raises:
            JournalError: The changes cannot be written.
        """
        served = self._served
        if self._journal is None or not served.unsaved or served.lost_log is None:
            return 0
        self._journal.set_aside_damaged()
        written = self._journal.write_back(list(served.unsaved.values()), served.lost_log, served.lost_contained_through)
        self.refresh()
        return written

    def upsert(self, items: Values, key: str | None = None) -> Receipt:
        """Add or replace items, each as a whole: a column without a value is missing.

        Args:
            items: values by column, by item id; the columns are those of the bundle's items.
            key: idempotency key: a batch that is sent again with its key is applied once.

        Raises:
            RequestError: A column is unknown, a value has the wrong type, or a vector would not be finite; the message names
                the item, and no item is changed. Or the key belongs to a different batch.
            JournalError: The batch could not be written, and is not acknowledged; see `ChangeLog.append`.
        """
        read = self._reader.read(items)
        if read:
            self._reader.encode(read)
        receipt = self._change([Change(one, values) for one, values in read.items()], key)
        warnings = novelties(self._catalogue.bundle.encoder, "item", read.values())
        return Receipt(*receipt, receipt.token, warnings)

    def delete(self, ids: Iterable[str], key: str | None = None) -> Receipt:
        """Delete items; errors as for `upsert`.

        Args:
            ids: ids of items; unknown ones are allowed.
            key: idempotency key of this batch.
        """
        ids = ids if isinstance(ids, str) else tuple(ids)
        check_ids(ids, "/ids")
        canonical_ids = self._catalogue.bundle.encoder.item_ids(ids)
        return self._change([Change(item_id, None) for item_id in dict.fromkeys(canonical_ids)], key)

    def merge(self) -> None:
        """Merge sealed segments until none should be; a background thread runs this."""
        try:
            while True:
                with self._changing:
                    run = () if self._closed else self._tiers.merge_candidates()
                    if not run:
                        self._merging = None
                        return
                merged = merge(run, self._index)
                with self._changing:
                    after = self._tiers.with_merged(run, merged)
                    if after is not None:  # else the log was replaced meanwhile, and the segments were rebuilt
                        self._publish(after, self._catalogue.error)
        except BaseException:
            self._merging = None
            raise

    def close(self) -> None:
        """Close the log; a running merge ends by itself, as it only reads memory."""
        self._closed = True
        if self._journal is not None:
            self._journal.close()

    def _merge_in_background(self) -> None:
        yield_to_others()
        self.merge()

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
                sequence = self._journal.append(changes, key, before.sequence, self._base, self._served.state)
            except LogReplacedError:
                continue
            with suppress(JournalError):  # the batch is durable, so the write has succeeded
                self.refresh()
            if sequence > before.sequence and self._served.lost_log is not None:
                self._serve_acknowledged(changes, sequence)
            return Receipt(sequence, known, self.token(sequence))
        raise JournalBusyError(
            "the journal was replaced again and again",
            where=self._journal.where,
            hint="Try again in a moment",
        )

    def _serve_acknowledged(self, changes: Sequence[Change], sequence: int) -> None:
        """Serve an acknowledged batch even if the log was replaced after the write."""
        rows = to_rows(changes, sequence)
        with self._changing:
            missed = self._served.keep_acknowledged(rows)
            if missed:
                self._publish(
                    self._apply_rows(self._tiers, missed, max(sequence, self._catalogue.sequence)), self._catalogue.error
                )

    def _update(self, journal: ChangeLog) -> None:
        """Apply new changes to the snapshot; the caller holds the lock."""
        version, stamp = self._poll(journal)
        if version == self._version and stamp == self._stamp and not self._catalogue.error:
            return
        self._version, self._stamp = version, stamp  # also if reading fails: `behind` compares with the last poll
        try:
            reading = journal.read(self._served.state, self._base)
        except JournalDamagedError:
            self._served.apply(Reading(None, [], 0, False, None))  # a damaged log is as good as none
            raise
        rows = self._served.apply(reading)
        tiers = self._tiers
        if rows is None:
            tiers, rows, self._refused = self._empty, sorted(self._served.latest.values()), {}
        sequence = max(self._catalogue.sequence, 0 if reading.state is None else reading.state.last)
        if rows or sequence > tiers.delta.sequence:
            tiers = self._apply_rows(tiers, rows, sequence)
        self._publish(tiers, self._served.error(reading.mark, self._base))

    def _poll(self, journal: ChangeLog) -> tuple[tuple[int, int], tuple[int, int] | None]:
        try:
            return journal.version(), journal.mark.stamp()
        except JournalDamagedError:  # `read` raises it again
            return (-2, -2), None

    def _publish(self, tiers: Tiers, error: str) -> None:
        """Replace the snapshot, and start a merge if needed; the caller holds the lock."""
        if tiers is self._tiers:
            self._catalogue = replace(self._catalogue, error=error)
            return
        self._tiers = tiers
        self._catalogue = CatalogSnapshot(self._catalogue.bundle, tiers.segments, tiers.delta.sequence, error)
        if self._merging is None and not self._closed and tiers.merge_candidates():
            self._merging = Thread(target=self._merge_in_background, name="merging segments")
            self._merging.start()

    def _apply_rows(self, tiers: Tiers, rows: Sequence[LogRow], sequence: int) -> Tiers:
        latest = {row.item_id: row for row in rows}
        upserts, refused = self._reader.encode_rows(latest.values())
        self._refused = {item_id: why for item_id, why in self._refused.items() if item_id not in latest} | refused
        return tiers.with_changes(sequence, list(latest), upserts)


def _describe(error: JournalError) -> str:
    """Describe an error without its path, which responses must not reveal."""
    why = f"{error.what} ({error.why})" if error.why else error.what
    return f"later changes of items are not known: {why}"
