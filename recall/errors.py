"""Every error that this library raises on purpose.

    RecallError
    |-- ConfigError      a configuration file or setting is wrong
    |-- DataError        a table does not match the configuration
    |-- RequestError     a request is invalid
    |   `-- TokenError     a token does not name a change of the log that is served
    |-- TrainingError    training cannot start, or reached a number that is not finite
    |-- TrainingInterruptedError  a signal stopped training; a checkpoint has the last complete sweep, if enabled
    |-- ExportError      the exported vectors do not reproduce the model
    |-- IndexFileError   an index file is unreadable or does not fit its bundle
    |   `-- IndexDownError  the server that holds the index does not answer, or answers without some of the items
    |-- BundleError      a bundle is missing, damaged, or of a newer format
    |-- PublishError     a bundle could not be published
    |   |-- PublishBusyError  another process is publishing to the same folder
    |   `-- VersionMovedError  another version is live than was expected
    |-- JournalError     a live change was not written, or the log cannot be read
    |   |-- JournalBusyError  another process is writing
    |   |-- JournalDamagedError  the file of the log is damaged, or another file
    |   |-- JournalDownError  the server that holds the log does not answer
    |   |-- JournalFullError  the disk is full
    |   `-- JournalReadOnlyError  the log cannot be written
    `-- StoreError       a change of users was not stored, or the store cannot be read
        |-- StoreBusyError  other processes are writing
        |-- StoreFullError  the store is full
        |-- StoreReadOnlyError  the store cannot be written
        `-- StoreDownError  the store does not answer

An error has four parts: what went wrong, where, why, and a hint how to correct it. They are kept apart so that the
command line and the HTTP service can each show them in their own form.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from errno import EACCES, EPERM, EROFS


def pointer(*steps: object) -> str:
    """Return a JSON pointer (RFC 6901) made of keys and positions.

    A key of more than 256 characters is truncated.
    """
    return "".join("/" + str(step)[:256].replace("~", "~0").replace("/", "~1") for step in steps)


class RecallError(Exception):
    """Base of all errors.

    Attributes:
        exit_code: what the command line exits with (sysexits.h where one fits).
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint or mend
        super().__init__(what, where, why, self.hint)

    @property
    def mend(self) -> str:
        """Deprecated name of `hint`."""
        return self.hint

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle without a call of the constructor.

        `Exception` would call it with `args`, but all arguments except the first are keywords.
        """
        return Exception.__new__, (type(self), *self.args), vars(self)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.why:
            text += f" ({self.why})"
        return f"{text}. {self.hint}" if self.hint else text


@contextmanager
def raising(
    kind: type[RecallError],
    what: str,
    *,
    where: str,
    hint: str = "",
    of: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
    """Convert errors of the system or of another library to one of this library.

    Args:
        kind: class of the error that is raised.
        what: the problem.
        where: its location.
        hint: how to correct it.
        of: classes of the errors that are replaced; their text is the reason.
    """
    try:
        yield
    except of as error:
        raise kind(what, where=where, why=str(error), hint=hint) from None


class ConfigError(RecallError):
    """A configuration file or setting is wrong.

    `where` is the file and the key.
    """

    exit_code = 78


class DataError(RecallError):
    """A table does not match the configuration.

    `where` is the file and the column.

    Attributes:
        row: the first row that is wrong, from 1; None where the error does not concern one row.
    """

    exit_code = 65

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", row: int | None = None) -> None:
        self.row = row
        self._problem = what
        super().__init__(what if row is None else f"{what}, first in row {row:,}", where=where, why=why, hint=hint)

    def at(self, where: str, row: int) -> "DataError":
        """Return the same error, located in another file.

        Args:
            where: the file and the column.
            row: row in that file, from 1.
        """
        return DataError(self._problem, where=where, why=self.why, hint=self.hint, row=row)


class RequestError(RecallError):
    """A request is invalid.

    `where` is a JSON pointer into it, such as `/context/hour`.
    """

    exit_code = 65


class TokenError(RequestError):
    """A token does not name a change of the log that is served."""


class TrainingError(RecallError):
    """Training cannot start, or reached a number that is not finite."""


class TrainingInterruptedError(RecallError):
    """A signal stopped training; a checkpoint has the last complete sweep, if enabled."""

    exit_code = 130


class ExportError(RecallError):
    """The exported vectors do not reproduce the model; nothing was published."""


class IndexFileError(RecallError):
    """An index file is unreadable or does not fit the vectors beside it."""

    exit_code = 65


class IndexDownError(IndexFileError):
    """The server of the index does not answer, or lacks items; retry later.

    Attributes:
        repeated: whether no request was sent, because the server did not answer lately; an earlier error has the reason.
    """

    exit_code = 69
    repeated = False


class BundleError(RecallError):
    """A bundle is missing, damaged, or of a newer format.

    `where` is the file.
    """

    exit_code = 65


class PublishError(RecallError):
    """A bundle could not be published; the live version stays live."""

    exit_code = 73


class PublishBusyError(PublishError):
    """Another process is publishing to the same folder; retry later."""

    exit_code = 75


class VersionMovedError(PublishError):
    """Another version is live than the caller expected; nothing was changed."""

    exit_code = 75


class JournalError(RecallError):
    """A live change could not be written, or the log cannot be read.

    Nothing that failed was acknowledged.
    """

    exit_code = 74


class JournalBusyError(JournalError):
    """Another process is writing to the log; retry later."""

    exit_code = 75


class JournalDamagedError(JournalError):
    """The file of the log is damaged, or the path is not a log."""


class JournalDownError(JournalError):
    """The server that holds the log does not answer; retry later."""

    exit_code = 69


class JournalFullError(JournalError):
    """The disk of the log is full."""

    exit_code = 73


class JournalReadOnlyError(JournalError):
    """The log cannot be written, and retrying does not help.

    The file system is read-only, or the process lacks the rights.
    """

    exit_code = 77


class StoreError(RecallError):
    """A change of users could not be stored, or the store cannot be read.

    Nothing that failed was acknowledged.
    """

    exit_code = 74


class StoreBusyError(StoreError):
    """Other processes are writing to the user store; retry later."""

    exit_code = 75


class StoreFullError(StoreError):
    """The user store is full."""

    exit_code = 73


class StoreReadOnlyError(StoreError):
    """Users cannot be changed, and retrying does not help.

    The file system is read-only, or the process lacks the rights.
    """

    exit_code = 77


class StoreDownError(StoreError):
    """The user store does not answer; retry later."""

    exit_code = 69


def forbids_writing(error: BaseException | None) -> bool:
    """Return whether an error means a read-only file system or missing rights."""
    return isinstance(error, OSError) and error.errno in (EROFS, EACCES, EPERM)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name closest to `name`, or a list of known names.

    Args:
        name: the name that was not found.
        known: the valid names; at most ten are listed.
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    return f"Known names: {shown}" if names else "No name is known here"
