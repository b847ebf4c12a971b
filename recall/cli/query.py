"""Ask a bundle without a server: `recall query` and `recall recommend`."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recall.cli import output
from recall.errors import DataError, RequestError, did_you_mean, raising

if TYPE_CHECKING:
    import polars as pl

    from recall.serving.recommender import Recommender
    from recall.serving.request import Absence, Explanation, Recommendations, Request

_SHOWN = 4  # columns of an item that are printed
_WIDTH = 28  # characters of a value that are printed


def query(
    bundle: output.Bundle,
    user: Annotated[str | None, typer.Option(help="Id of a user.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--feature", metavar="COLUMN=VALUE", help="Value of a column of the users table; overrides the stored value."
        ),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option("--context", metavar="COLUMN=VALUE", help="Value of a context column.")
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option("--history", metavar="ITEM", help="Previous item, most recent first; replaces the stored history."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Number of items.")] = 10,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="ITEM", help="Item to exclude.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Include items that the user has seen.")] = False,
    popularity: Annotated[
        float,
        typer.Option(help="Weight of the part of a score that is the same for all users, 0 to 10; 1 ranks as the model does."),
    ] = 1.0,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Filter on item columns, as in a request.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="ITEM", help="Return only these items; repeatable.")
    ] = None,
    boosts: Annotated[
        list[str] | None, typer.Option("--boost", metavar="NAME=WEIGHT", help="Weight of a boost listed in index.boosts.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="File with the request as JSON, instead of the options above; - reads stdin.")
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="ITEM", help="Instead of the list, print the contribution of each field to the score of this item."
        ),
    ] = None,
    why_not: Annotated[
        str | None, typer.Option("--why-not", metavar="ITEM", help="Instead of the list, print why this item is not in it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Print the top items of a request, without a server.

    Example: recall query bundles --user u0042 --context device=phone -n 5
    """
    from recall.serving.recommender import Recommender
    from recall.serving.request import Request

    given = None if request is None else read_request(request)
    with Recommender.load(bundle) as recommender:
        types = recommender.bundle.encoder.types.users
        asked = (
            given
            if given is not None
            else Request(
                user_id=user,
                features=_values(features, "--feature", types),
                context=_values(context, "--context", types),
                history=history,
                n=n,
                exclude_seen=not seen,
                exclude=exclude or (),
                popularity=popularity,
                filter=None if filter_ is None else parsed(filter_.encode(), "--filter"),
                allow=allow,
                boosts=weights(boosts),
            )
        )
        if explain is not None:
            _show_explanation(recommender.explain(asked, explain), as_json)
            return
        if why_not is not None:
            _show_absence(recommender.why_not(asked, why_not), as_json)
            return
        answer = recommender.recommend(asked)
        if as_json:
            output.show_json({**asdict(answer), "items": answer.items})
        else:
            _show(recommender, answer)


def _values(settings: Sequence[str] | None, option: str, types: Mapping[str, str]) -> dict[str, object]:
    """Return values by column; a value is parsed as TOML, or else taken as text.

    In a column of text only quotes and brackets have a meaning: 1e5 or 1_000 is the text as written.
    """
    values: dict[str, object] = {}
    for setting in settings or ():
        column, equals, text = setting.partition("=")
        if not equals:
            raise RequestError(f"{setting!r} gives no value", where=option, hint=f"Write it as {option} column=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
            plain = types.get(column, "").removeprefix("list of ") == "text"
            values[column] = text if plain and not isinstance(value, str | list | dict) else value
        except tomllib.TOMLDecodeError:
            values[column] = text
    return values


def weights(settings: Sequence[str] | None) -> dict[str, float]:
    """Return weights by name; a name may contain an equals sign.

    Raises:
        RequestError: A setting has no weight.
    """
    found = {}
    for setting in settings or ():
        name, _, weight = setting.rpartition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            raise RequestError(f"{setting!r} gives no weight", where="--boost", hint="Write it as --boost name=0.5") from None
    return found


def read_request(path: Path) -> "Request":
    """Read a request from a JSON file; - reads stdin.

    Raises:
        RequestError: It is not JSON, or no request.
    """
    import sys

    return _request(parsed(sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes(), str(path)))


def read_scenario(root: Path, name: str) -> "Request":
    """Read the request of a scenario.

    Args:
        root: the folder of published bundles.
        name: of the scenario.

    Raises:
        DataError: There is no such scenario, or the file is not TOML.
        RequestError: It is not a request.
    """
    from recall.bundle.versions import SCENARIOS

    path = root / SCENARIOS
    with raising(DataError, "the scenarios cannot be read", where=str(path), of=(OSError, ValueError)):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    if name not in tables:
        raise DataError(f"there is no scenario {name!r}", where=str(path), hint=did_you_mean(name, tables))
    return _request({key: value for key, value in tables[name].items() if key != "description"})


def _request(values: dict[str, Any]) -> "Request":
    from recall.serving.request import Request

    known = [field.name for field in fields(Request)]
    for name in values:
        if name not in known:
            raise RequestError("no part of a request", where=f"/{name}", hint=did_you_mean(name, known))
    kinds = {"features": dict, "context": dict, "filter": dict, "history": list, "allow": list, "exclude": list}
    kinds |= {"rules": list, "channels": dict, "boosts": dict, "fields": list}
    for name, kind in kinds.items():
        absent = values.get(name) is None and name in ("filter", "history", "allow", "channels")
        if name in values and not absent and not isinstance(values[name], kind):
            raise RequestError(f"{name} must be a {kind.__name__}, got {type(values[name]).__name__}", where=f"/{name}")
    return Request(**values)


def parsed(raw: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        raw: JSON.
        where: names the source in errors.

    Raises:
        RequestError: It is not a JSON object.
    """
    import orjson

    with raising(RequestError, "this is not JSON", where=where, of=orjson.JSONDecodeError):
        values = orjson.loads(raw)
    if not isinstance(values, dict):
        raise RequestError("the request must be a JSON object", where=where)
    return values


def _show(recommender: "Recommender", answer: "Recommendations") -> None:
    from recall.serving.batch import title_column

    catalogue, key = recommender.items.current(), recommender.bundle.manifest.schema_.item_id
    found = catalogue.table(catalogue.rows(answer.ids))
    title = title_column(found, key)
    columns = sorted((name for name in found.columns if name != key), key=lambda name: name != title)[:_SHOWN]
    values = found.select(columns).rows() if columns else [()] * len(found)
    output.show_table(
        ["rank", "item", "score", *columns],
        [
            [rank, item.item_id, item.score, *map(_cell, cells)]
            for rank, (item, cells) in enumerate(zip(answer.items, values, strict=True), start=1)
        ],
    )
    search = "exact search" if answer.exact else "approximate search"
    output.note(f"{answer.user} user, {search}, bundle {answer.bundle}")
    if answer.unknown:
        output.note(f"columns with values that were not seen in training: {', '.join(answer.unknown)}")
    output.note(*(f"degraded, {one.part}: {one.reason}" for one in answer.degraded))
    output.note(*(f"note: {warning}" for warning in answer.warnings))


def _show_explanation(explanation: "Explanation", as_json: bool) -> None:
    if as_json:
        output.show_json(explanation)
        return
    rows = [[one.user_field or "", " x ".join(one.item_fields), one.value] for one in explanation.contributions]
    output.show_table(["user field", "item field", "contribution"], [*rows, ["", "score", explanation.score]])
    output.note(
        f"item {explanation.item_id}, bundle {explanation.bundle}; those without a user field are the same for all users"
    )


def _show_absence(absence: "Absence", as_json: bool) -> None:
    if as_json:
        output.show_json(absence)
        return
    output.show_table(["reason", "location", "explanation"], [list(one) for one in absence.reasons])
    place = "is not listed" if absence.listed is None else f"is listed at position {absence.listed}"
    output.note(f"item {absence.item_id} {place}: rank {absence.rank} of {absence.eligible}, score {absence.score:.4f}")
    if absence.last is not None and absence.missing is not None and absence.missing > 0:
        output.note(f"its score is {absence.missing:.4f} below that of {absence.last.item_id}, the last listed item")


def _cell(value: object) -> str:
    text = "" if value is None else "|".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."


def recommend(
    bundle: output.Bundle,
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    users: Annotated[
        str,
        typer.Option(
            help="'all' for all known users, or a file with a column of user ids and optional columns of context and features."
        ),
    ] = "all",
    n: Annotated[int, typer.Option("-n", help="Number of items of each user.")] = 10,
    seen: Annotated[bool, typer.Option("--seen", help="Include items that a user has seen.")] = False,
    popularity: Annotated[
        float,
        typer.Option(help="Weight of the part of a score that is the same for all users, 0 to 10; 1 ranks as the model does."),
    ] = 1.0,
    filter_: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Filter on item columns, as in a request.")
    ] = None,
    boosts: Annotated[
        list[str] | None, typer.Option("--boost", metavar="NAME=WEIGHT", help="Weight of a boost listed in index.boosts.")
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(help="JSON file with a request, such as rules and channels; replaces the options from -n to --boost."),
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use the request of this scenario in scenarios.toml.")
    ] = None,
    processes: Annotated[int, typer.Option(min=0, help="Number of processes; 0 for one on each core.")] = 0,
    restart: Annotated[bool, typer.Option("--restart", help="Discard the lists of an interrupted job.")] = False,
    as_json: output.Json = False,
) -> None:
    """Write the top items of many users to a file.

    After an interruption, the same command continues the job.

    Example: recall recommend bundles --users all --out lists.parquet -n 20
    """
    from recall._progress import terminable
    from recall.serving.request import Request
    from recall.serving.shards import Job, JobError

    output.require_table_name(out)
    if request is not None and scenario is not None:
        raise DataError("a scenario is a complete request", where="--scenario", hint="Give --request or --scenario")
    output.require_writable(out)
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
    output.note(*(f"warning: {message}" for message in written.warnings))
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
        **({"unknown": f"{written.strangers:,} users, who are answered as new users"} if written.strangers else {}),
        "speed": f"{written.rate:,.0f} users a second, {written.seconds:.1f} s",
    }
    output.result(as_json, figures, shown)


def _users(path: Path, bundle: Path) -> "pl.DataFrame":
    """Read the users of a file, with the columns that a request may have."""
    from recall.bundle.reader import load_bundle
    from recall.data.tables import read_table
    from recall.publish.rebuild import data_config

    manifest = load_bundle(bundle, verify=False, index=False).manifest
    table = read_table(path, data_config(manifest).nulls)
    key = manifest.schema_.user_id
    if key not in table.columns:
        raise DataError(f"there is no column {key!r}", where=str(path), hint="Name the column of user ids so")
    return table.collect(table.columns)
