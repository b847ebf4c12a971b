"""Output of the commands: results on stdout, progress and errors on stderr."""

import errno
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from recall._progress import TERMINATED
from recall._progress import bar as bar
from recall._progress import note as note
from recall._progress import stage as stage
from recall.errors import DataError, RecallError

Bundle = Annotated[Path, typer.Argument(help="A folder of published bundles (uses the live version), or one bundle.")]
Config = Annotated[Path, typer.Argument(help="Configuration (TOML).")]
Data = Annotated[Path | None, typer.Option(help="Folder of the tables; default: the folder of the configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show(values: Mapping[str, object]) -> None:
    """Print named results, one a line; further lines of a value are indented."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        typer.echo(f"{name:{width}}  " + str(value).replace("\n", "\n" + " " * (width + 2)))


def show_json(value: object) -> None:
    """Print a result as JSON."""
    import orjson

    def plain(one: Any) -> object:
        return one._asdict() if hasattr(one, "_asdict") else str(one)

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY, default=plain).decode())


def result(as_json: bool, plain: object, shown: Mapping[str, object]) -> None:
    """Print a result for other programs, or for people.

    Args:
        as_json: for other programs.
        plain: what becomes JSON; named tuples and dataclasses become objects.
        shown: named results for people, one a line.
    """
    if as_json:
        show_json(plain)
    else:
        show(shown)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")  # which would break or forge lines


def show_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head; columns of numbers are right-aligned.

    Args:
        head: names of the columns.
        rows: one cell for each column; floats are shown with four decimals.
    """
    shown = ([f"{cell:.4f}" if isinstance(cell, float) else _CONTROL.sub(" ", str(cell)) for cell in row] for row in rows)
    texts = [list(head), *shown]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    for row in texts:
        cells = (
            cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        typer.echo("  ".join(cells).rstrip())


UNAVAILABLE = 69
"""Exit code when a dependency is not installed."""
CANNOT_WRITE = 73
"""Exit code when the file system refuses a write."""

_STOPPED = (130, TERMINATED)

EXTRAS = {
    "matplotlib": "report",
    "optuna": "train",
    "tomlkit": "train",
    "torch": "train",
    "zstandard": "train",
    "fastapi": "serve",
    "fastapi_offline": "serve",
    "httptools": "serve",
    "itsdangerous": "serve",
    "limits": "serve",
    "prometheus_client": "serve",
    "pydantic_settings": "serve",
    "threadpoolctl": "serve",
    "uvicorn": "serve",
    "uvloop": "serve",
}
"""Extra that installs each module, for those that commands import."""
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


def require_table_name(path: Path) -> None:
    """Raise DataError unless a file to write has the name of a table."""
    if path.suffix not in (".parquet", ".csv"):
        raise DataError("this is neither .parquet nor .csv", where=str(path), hint="Give the file one of the two endings")


def require_writable(*files: Path | None) -> None:
    """Raise an error where a file could not be written at the end.

    Args:
        files: that a command will write; None for those that were not requested.

    Raises:
        PublishError: A folder cannot be written.
        ExistsError: A folder has that name.
    """
    from recall.bundle import versions

    for file in filter(None, files):
        if file.is_dir():
            raise ExistsError("this is a folder", where=str(file), hint="Name a file")
        versions.require_writable(file.parent)


def show_error(error: Exception, trace: bool = False) -> int:
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
        extra = EXTRAS.get(name, "train,serve")
        return UnavailableError(f"{name} is not installed", hint=f"Install it with: pip install 'fm-recall[{extra}]'")
    if isinstance(error, OSError):
        refused = RecallError(error.strerror or str(error), where=str(error.filename or ""))
        of_rust = re.search(r"\(os error (\d+)\)", str(error))  # polars gives no errno
        number = int(of_rust[1]) if error.errno is None and of_rust else error.errno
        refused.exit_code = CANNOT_WRITE if number in _REFUSALS else 1
        return refused
    return RecallError(f"unexpected {type(error).__name__}: {error}", hint="This is a bug; --debug prints the traceback")
