"""`recall recommend`: lists for all users, or for those of a file."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output
from recall.cli.query import parsed, read_request, read_scenario, weights
from recall.errors import DataError

if TYPE_CHECKING:
    import polars as pl


def recommend(
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    users: Annotated[
        str, typer.Option(help="All known users, or a file with a column of user ids and perhaps context and features.")
    ] = "all",
    n: Annotated[int, typer.Option("-n", help="Number of items of each user.")] = 10,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Filter on item columns, as in a request.")
    ] = None,
    boosts: Annotated[
        list[str] | None, typer.Option("--boost", metavar="NAME=WEIGHT", help="Weight of one of index.boosts.")
    ] = None,
    popularity: Annotated[
        float, typer.Option(help="Weight of the user-independent part of a score, 0 to 10; 1 ranks as the model does.")
    ] = 1.0,
    seen: Annotated[bool, typer.Option("--seen", help="Include items that a user has seen.")] = False,
    request: Annotated[
        Path | None,
        typer.Option(help="JSON file with a request, such as its rules and channels, instead of the options above from -n on."),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="Scenario of the folder's scenarios.toml, instead of a request.")
    ] = None,
    processes: Annotated[int, typer.Option(min=0, help="Processes that share the work; 0 for one on each core.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the lists of an interrupted job.")] = False,
    as_json: output.Json = False,
) -> None:
    """Write the top items of many users to a file.

    An interrupted job continues when the same command is given again.

    Example: recall recommend bundles --users all --out lists.parquet -n 20
    """
    from recall._signals import terminable
    from recall.serving.request import Request
    from recall.serving.shards import Job, JobError

    if out.suffix not in (".parquet", ".csv"):
        raise DataError("this is neither .parquet nor .csv", where=str(out), hint="Give the file one of the two endings")
    if request is not None and scenario is not None:
        raise DataError("a scenario is a request of its own", where="--scenario", hint="Give --request or --scenario")
    template = (
        Request(
            n=n,
            exclude_seen=not seen,
            popularity=popularity,
            filter=None if filter_ is None else parsed(filter_.encode(), "--filter"),
            boosts=weights(boosts),
        )
        if request is None and scenario is None
        else replace(read_request(request) if request is not None else read_scenario(bundle, str(scenario)), user_id=None)
    )
    template = replace(template, explain=False, because=0, fields=())  # the file has the items and their scores
    asked = None if users == "all" else _users(Path(users), bundle)
    job = Job(bundle, asked, template, out, processes or os.cpu_count() or 1)
    with terminable() as stop, output.bar("recommend") as move:
        try:
            written = job.run(move, restart=restart)
        except KeyboardInterrupt:
            hint = "Give the same command again to continue"
            stopped = JobError("interrupted; finished shards are kept", where=str(job.parts), hint=hint)
            stopped.exit_code = 130
            raise stop.coded(stopped) from None
    for message in written.warnings:
        output.note(f"warning: {message}")
    figures = {
        "written": str(out),
        "users": written.users,
        "rows": written.rows,
        "unknown_users": written.strangers,
        "resumed_users": written.resumed,
        "seconds": written.seconds,
        "users_per_second": written.rate,
    }
    shown = {
        "written": out,
        "users": f"{written.users:,}" + (f", {written.resumed:,} of them before" if written.resumed else ""),
        "rows": f"{written.rows:,}",
        **(
            {"unknown": f"{written.strangers:,} users, who get what the model gives to a new user"} if written.strangers else {}
        ),
        "speed": f"{written.rate:,.0f} users a second, {written.seconds:.1f} s",
    }
    output.result(as_json, figures, shown)


def _users(path: Path, bundle: Path) -> "pl.DataFrame":
    """Read the users of a file, with the columns that a request may have."""
    from recall.bundle.reader import load_bundle
    from recall.data.tables import read_table
    from recall.publish.rebuild import trained_on

    manifest = load_bundle(bundle, verify=False, index=False).manifest
    table = read_table(path, trained_on(manifest).nulls)
    key = manifest.schema_.user_id
    if key not in table.columns:
        raise DataError(f"there is no column {key!r}", where=str(path), hint="Name the column of user ids so")
    return table.collect(table.columns)
