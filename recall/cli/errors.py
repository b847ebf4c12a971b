"""Print errors and choose exit codes."""

import errno
import re
import traceback
from pathlib import Path

import typer

from recall._signals import TERMINATED
from recall.errors import RecallError

UNAVAILABLE = 69
"""Exit code when a dependency is not installed."""
CANNOT_WRITE = 73
"""Exit code when the file system refuses a write."""

_STOPPED = (130, TERMINATED)

_EXTRAS = {
    "matplotlib": "report",
    "torch": "train",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "fastapi_offline": "serve",
}
_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
)


class UnavailableError(RecallError):
    """A dependency of a command is not installed, or a service did not start."""

    exit_code = UNAVAILABLE


class ExistsError(RecallError):
    """A file exists already and is not overwritten."""

    exit_code = CANNOT_WRITE


def require_new(*paths: Path) -> None:
    """Raise ExistsError when one of the files exists."""
    for path in paths:
        if path.exists():
            raise ExistsError("the file exists already", where=str(path), hint="Remove it, or name another folder")


def show(error: Exception, trace: bool = False) -> int:
    """Write an error to stderr and return its exit code.

    Args:
        error: any exception; those that are not a RecallError count as bugs.
        trace: also print the traceback.
    """
    if trace:
        typer.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    known = _known(error)
    label = typer.style("error", fg="red", bold=True) if known.exit_code not in _STOPPED else typer.style("stopped", bold=True)
    typer.echo(f"{label}: {known.what}", err=True)
    for name, text in (("where", known.where), ("why", known.why), ("hint", known.hint)):
        if text:
            typer.echo(f"{name + ':':6} {text}", err=True)
    return known.exit_code


def _known(error: Exception) -> RecallError:
    if isinstance(error, RecallError):
        return error
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(name, "train,serve")
        return UnavailableError(f"{name} is not installed", hint=f"Install it with: pip install 'fm-recall[{extra}]'")
    if isinstance(error, OSError):
        refused = RecallError(error.strerror or str(error), where=str(error.filename or ""))
        of_rust = re.search(r"\(os error (\d+)\)", str(error))  # polars gives no errno
        number = int(of_rust[1]) if error.errno is None and of_rust else error.errno
        refused.exit_code = CANNOT_WRITE if number in _REFUSALS else 1
        return refused
    return RecallError(f"unexpected {type(error).__name__}: {error}", hint="This is a bug; --debug prints the traceback")
