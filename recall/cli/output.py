"""What a command writes: results to stdout; to stderr what it is doing, with a bar where somebody watches."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer


def note(text: str = "") -> None:
    """A line for whoever watches."""
    typer.echo(text, err=True)


def show(values: Mapping[str, object]) -> None:
    """Named results, one a line."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        typer.echo(f"{name:{width}}  {value}")


def show_json(value: object) -> None:
    """A result for another program."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY, default=str).decode())


def show_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under a head; a column of numbers is aligned to the right."""
    texts = [list(head), *([f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    right = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    for row in texts:
        cells = (
            cell.rjust(width) if numeric else cell.ljust(width) for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        typer.echo("  ".join(cells).rstrip())


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began = time.perf_counter()
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(name):
            yield
    else:
        yield
    note(f"{name:36} {time.perf_counter() - began:6.1f} s")


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """Gives a function of (done, total, line) that writes the line, and moves a bar where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, line: note(line)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, highlight=False), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def move(done: int, total: int, line: str) -> None:
            progress.console.print(line, markup=False, soft_wrap=True)
            progress.update(task, completed=done, total=total)

        yield move
