"""Every error that this library raises on purpose.

    RecallError
    |-- ConfigError      a configuration file or setting is wrong
    |-- DataError        a table does not hold what the configuration says
    |-- RequestError     one request cannot be answered as it was asked
    |   `-- TokenError     a token names no change of the log that is served
    |-- TrainingError    training met a number that is not finite, or cannot start
    |-- ExportError      the exported vectors do not reproduce the model
    |-- IndexFileError   an index file is unreadable or does not fit its bundle
    |-- BundleError      a bundle is missing, damaged, or of a newer format
    |-- PublishError     a bundle could not be put in place
    |   |-- PublishBusyError  another process is publishing to the same place
    |   `-- VersionMovedError  another version is live than was expected
    |-- JournalError     a live change was not written, or those that were cannot be read
    |   |-- JournalBusyError  another process is writing
    |   |-- JournalFullError  the disk is full
    |   `-- JournalReadOnlyError  nothing can be written there
    `-- StoreError       what changed of users was not stored, or cannot be read
        |-- StoreBusyError  others are writing
        |-- StoreFullError  there is no room
        |-- StoreReadOnlyError  nothing can be written there
        `-- StoreDownError  the store does not answer

An error says what went wrong, where, why, and how to correct it; the parts are kept apart so that the command line
and the HTTP service can each show them in their own form.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from errno import EACCES, EPERM, EROFS


def pointer(*steps: object) -> str:
    """Return a JSON pointer (RFC 6901) of keys and positions; a key of more than 256 characters is cut short."""
    return "".join("/" + str(step)[:256].replace("~", "~0").replace("/", "~1") for step in steps)


class RecallError(Exception):
    """Base of all errors; `exit_code` is what the command line ends with (sysexits.h where one fits)."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint or mend
        super().__init__(what, where, why, self.hint)

    @property
    def mend(self) -> str:
        """The old name of `hint`."""
        return self.hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.why:
            text += f" ({self.why})"
        return f"{text}. {self.hint}" if self.hint else text


class ConfigError(RecallError):
    """A configuration file or setting is wrong; `where` is the file and the key."""

    exit_code = 78


class DataError(RecallError):
    """A table does not hold what the configuration says; `where` is the file and the column.

    Attributes:
        row: the first row that is wrong, from 1; None where the error is of no single row.
    """

    exit_code = 65

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", row: int | None = None) -> None:
        self.row = row
        self._problem = what
        super().__init__(what if row is None else f"{what}, first in row {row:,}", where=where, why=why, hint=hint)

    def at(self, where: str, row: int) -> "DataError":
        """The same error, of a row of another file."""
        return DataError(self._problem, where=where, why=self.why, hint=self.hint, row=row)


class RequestError(RecallError):
    """One request cannot be answered as it was asked; `where` is a JSON pointer into the request, such as `/context/hour`."""

    exit_code = 65


class TokenError(RequestError):
    """A token names no change of the log that is served."""


class TrainingError(RecallError):
    """Training met a number that is not finite, or cannot start from what it was given."""


class ExportError(RecallError):
    """The exported vectors do not reproduce the model's scores, so nothing was published."""


class IndexFileError(RecallError):
    """An index file is unreadable or does not fit the vectors beside it."""

    exit_code = 65


class BundleError(RecallError):
    """A bundle is missing, damaged, or of a newer format; `where` is the file."""

    exit_code = 65


class PublishError(RecallError):
    """A bundle could not be put in place; what was live stays live."""

    exit_code = 73


class PublishBusyError(PublishError):
    """Another process is publishing to the same place; trying again later is right."""

    exit_code = 75


class VersionMovedError(PublishError):
    """Another version is live than the caller expected; nothing was changed."""

    exit_code = 75


class JournalError(RecallError):
    """A live change could not be written, or those that were cannot be read; nothing that failed was acknowledged."""

    exit_code = 74


class JournalBusyError(JournalError):
    """Another process is writing to the journal; trying again later is right."""

    exit_code = 75


class JournalFullError(JournalError):
    """There is no room on the disk for the journal."""

    exit_code = 73


class JournalReadOnlyError(JournalError):
    """The file system, or the rights of this process, let nobody write the journal; trying again does not help."""

    exit_code = 77


class StoreError(RecallError):
    """A change of users could not be stored, or those that were cannot be read; nothing that failed was acknowledged."""

    exit_code = 74


class StoreBusyError(StoreError):
    """Others are writing to the store of users; trying again later is right."""

    exit_code = 75


class StoreFullError(StoreError):
    """There is no room for changes of users."""

    exit_code = 73


class StoreReadOnlyError(StoreError):
    """The file system, or the rights of this process, let nobody change users; trying again does not help."""

    exit_code = 77


class StoreDownError(StoreError):
    """The store of users does not answer; trying again later is right."""

    exit_code = 69


def forbids_writing(error: BaseException | None) -> bool:
    """Whether an error says that nothing can be written there, by this process or by any."""
    return isinstance(error, OSError) and error.errno in (EROFS, EACCES, EPERM)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the known name closest to `name`, or lists at most ten known names when none is close."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"Known names: {shown}" if names else "No name is known here"
