"""How an error is shown, and what the process ends with."""

import errno
import traceback
from pathlib import Path

import typer

from recall.cli.stopping import TERMINATED
from recall.errors import RecallError

UNAVAILABLE = 69
"""Exit code: something that the command needs is not installed."""
CANNOT_WRITE = 73
"""Exit code: the file system refused."""

_STOPPED = (130, TERMINATED)

_EXTRAS = {"torch": "train", "fastapi": "serve", "uvicorn": "serve", "httptools": "serve", "fastapi_offline": "serve"}
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


class UnavailableError(RecallError):
    """Something that a command needs is not installed."""

    exit_code = UNAVAILABLE


class ExistsError(RecallError):
    """A file is there already, and nothing is written over."""

    exit_code = CANNOT_WRITE


def require_new(*paths: Path) -> None:
    """Raise ExistsError when one of the files is there already."""
    for path in paths:
        if path.exists():
            raise ExistsError("the file is there already", where=str(path), mend="Remove it, or name another folder")


def show(error: Exception, trace: bool = False) -> int:
    """Write an error to stderr as one block; gives the exit code."""
    if trace:
        typer.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    known = _known(error)
    label = typer.style("error", fg="red", bold=True) if known.exit_code not in _STOPPED else typer.style("stopped", bold=True)
    typer.echo(f"{label}: {known.what}", err=True)
    for name, text in (("where", known.where), ("why", known.why), ("mend", known.mend)):
        if text:
            typer.echo(f"{name + ':':6} {text}", err=True)
    return known.exit_code


def _known(error: Exception) -> RecallError:
    if isinstance(error, RecallError):
        return error
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(name, "train,serve")
        return UnavailableError(f"{name} is not installed", mend=f"Install it with: pip install 'fm-recall[{extra}]'")
    if isinstance(error, OSError):
        refused = RecallError(error.strerror or str(error), where=str(error.filename or ""))
        refused.exit_code = CANNOT_WRITE if error.errno in _REFUSALS else 1
        return refused
    return RecallError(
        f"unexpected {type(error).__name__}: {error}", mend="This is a fault of the program; --debug shows where it happened"
    )
