"""A catalogue that changes: each change is in the journal before it is in the catalogue, and in that before it is answered.

Several processes may serve one root. Each reads what the others wrote: it asks the journal, which costs a few
microseconds, whether there is more, at most once in `pause` seconds.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

from recall.bundle.bundle import Bundle
from recall.errors import JournalError, RequestError
from recall.index.contract import ItemIndex
from recall.live.catalogue import Catalogue
from recall.live.items import ItemReader, Values
from recall.live.journal import Change, Entry, Journal
from recall.live.overlay import Overlay
from recall.request import check_id, check_text

PAUSE = 0.01
"""Seconds between two looks at the journal."""
MOST_GIVEN = 20_000
"""Items over a catalogue above which it is due to be published anew, and"""
LARGEST_SHARE = 0.05
"""the share of the catalogue, but"""
LEAST_GIVEN = 1_000
"""no fewer: each search looks at all of them."""


class Receipt(NamedTuple):
    """What became of a batch of changes, which is on disk and in the catalogue.

    Attributes:
        sequence: of its last change; answers of this sequence or a later one have seen it.
        known: how many of its items the catalogue held before.
    """

    sequence: int
    known: int


class LiveCatalogue:
    """The catalogue of a bundle and its changes. Safe to share among threads."""

    def __init__(self, bundle: Bundle, index: ItemIndex, journal: Journal | None = None, pause: float | None = PAUSE) -> None:
        """Read what the journal holds beyond the bundle.

        Args:
            bundle: what was published.
            index: over its vectors.
            journal: of the root that the bundle was published to; without one nothing changes.
            pause: `current` looks at the journal when so many seconds have passed since; None leaves looking to `refresh`.

        Raises:
            JournalError: the journal cannot be read, or no longer holds what came after the bundle.
        """
        self._journal = journal
        self._folded = bundle.manifest.folded
        self._reader = ItemReader(bundle)
        self._catalogue = Catalogue(bundle, index, Overlay.empty(self._folded, index.size, index.dim))
        self._pause = pause
        self._changing = Lock()
        self._version = (-1, -1)
        self._due = 0.0
        if journal is not None:
            self.refresh()
            self._due = time.monotonic() + (pause or 0.0)

    @property
    def refused(self) -> dict[str, str]:
        """Items whose latest change does not fit this bundle, and why; they are in no answer."""
        return dict(self._catalogue.overlay.refused)

    @property
    def overgrown(self) -> bool:
        """Whether so much has changed that the catalogue should be published anew; see `recall.live.compaction`."""
        overlay = self._catalogue.overlay
        most = min(MOST_GIVEN, max(LEAST_GIVEN, int(LARGEST_SHARE * overlay.size)))
        return max(len(overlay.ids), overlay.hidden.count) > most

    def current(self) -> Catalogue:
        """The catalogue now. When the journal cannot be read, the last one that was known, with its `trouble`."""
        journal = self._journal
        if journal is None or self._pause is None or time.monotonic() < self._due:
            return self._catalogue
        if self._changing.acquire(blocking=False):  # else somebody else looks: no request waits for that
            try:
                self._due = time.monotonic() + self._pause
                self._catch_up(journal)
            except JournalError as error:
                self._catalogue = replace(self._catalogue, trouble=_said(error))
            finally:
                self._changing.release()
        return self._catalogue

    @property
    def writable(self) -> bool:
        """Whether there is a journal to write to."""
        return self._journal is not None

    def hear(self, heard: Callable[[float], None]) -> None:
        """As `Journal.hear`; nobody is told anything where there is no journal."""
        if self._journal is not None:
            self._journal.hear(heard)

    def moved(self) -> bool:
        """Whether `refresh` would find something that nobody else is reading, in microseconds. Raises JournalError."""
        if self._journal is None or self._changing.locked():
            return False
        return bool(self._catalogue.trouble) or self._journal.version() != self._version

    def refresh(self) -> Catalogue:
        """Read what was written since, by whatever process. Raises JournalError, and `current` tells of it from then on."""
        if self._journal is not None:
            with self._changing:
                try:
                    self._catch_up(self._journal)
                except JournalError as error:
                    self._catalogue = replace(self._catalogue, trouble=_said(error))
                    raise
        return self._catalogue

    def upsert(self, items: Values, key: str | None = None) -> Receipt:
        """Add items, or replace those whose ids the catalogue holds. Each is given whole: what is left out is missing.

        Args:
            items: values by column, by item id; the columns are those of the bundle's items.
            key: a name for this batch of changes. Whoever got no answer sends the batch again under the same key, and it is
                not taken twice.

        Raises:
            RequestError: a column is not known, a value is not what it holds, or a vector would not be finite; names the item
                and nothing is changed. Or the key belongs to another batch.
            JournalError: the change could not be written, and is not acknowledged; see `Journal.append`.
        """
        read = self._reader.read(items)
        if read:
            self._reader.given(read)
        return self._change([Change(one, values) for one, values in read.items()], key)

    def delete(self, ids: Iterable[str], key: str | None = None) -> Receipt:
        """Delete items; one that the catalogue does not hold stays deleted. `key` and errors as in `upsert`."""
        named = list(dict.fromkeys(map(self._reader.columns.id, _checked(ids))))
        return self._change([Change(one, None) for one in named], key)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _change(self, changes: Sequence[Change], key: str | None) -> Receipt:
        if self._journal is None:
            raise JournalError(
                "this bundle has no journal of live changes",
                where=str(self._catalogue.bundle.folder),
                mend="Load the root of published versions, not the folder of one",
            )
        if key is not None:
            check_text(key, "/key")
        before = self._catalogue
        known = int((before.rows([change.item_id for change in changes]) >= 0).sum())
        if not changes:
            return Receipt(before.sequence, 0)
        sequence = self._journal.append(changes, key, after=max(self._folded, before.sequence))
        with suppress(JournalError):  # it is on disk: to say that it failed would be wrong, and answers tell of the trouble
            self.refresh()
        return Receipt(sequence, known)

    def _catch_up(self, journal: Journal) -> None:
        """Take in what is new; the caller holds the lock."""
        version = journal.version()
        if version == self._version and not self._catalogue.trouble:
            return
        entries = journal.since(self._catalogue.sequence)
        overlay = self._after(entries) if entries else self._catalogue.overlay
        self._catalogue = replace(self._catalogue, overlay=overlay, trouble="")
        self._version = version

    def _after(self, entries: Sequence[Entry]) -> Overlay:
        last = {entry.item_id: entry.features for entry in entries}
        given, refused = self._reader.fitting({one: values for one, values in last.items() if values is not None})
        rows = self._catalogue.bundle.item_ids.rows(list(last))
        return self._catalogue.overlay.changed(entries[-1].sequence, list(last), rows, given, refused)


def _said(error: JournalError) -> str:
    """What is wrong, without the place: answers say it to whoever asks."""
    return f"{error.what} ({error.why})" if error.why else error.what


def _checked(ids: Iterable[str]) -> Iterable[str]:
    if isinstance(ids, str):
        raise RequestError("ids is one text", where="/ids", mend="Give a list of ids")
    for position, one in enumerate(ids):
        check_id(one, f"/ids/{position}")
        yield one
