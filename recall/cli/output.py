"""Output of the commands: results on stdout, progress on stderr."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from recall._progress import bar as bar
from recall._progress import note as note
from recall._progress import stage as stage

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show(values: Mapping[str, object]) -> None:
    """Print named results, one a line."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        typer.echo(f"{name:{width}}  {value}")


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


def show_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head; columns of numbers are right-aligned.

    Args:
        head: names of the columns.
        rows: one cell for each column; floats are shown with four decimals.
    """
    texts = [list(head), *([f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    for row in texts:
        cells = (
            cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        typer.echo("  ".join(cells).rstrip())
