"""`recall evaluate` and `recall predict`: a bundle on the rows of tables."""

import os
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recall.cli import output
from recall.errors import BundleError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from recall.config import RunConfig
    from recall.data.dataset import Dataset
    from recall.data.tables import Table
    from recall.evaluation.evaluate import EvaluationReport
    from recall.serving.recommender import Recommender
    from recall.serving.request import Prediction


def evaluate(
    config: Annotated[Path, typer.Argument(help="Configuration (TOML) of the data, split and evaluation.")],
    bundle: output.Bundle,
    data: output.Data = None,
    part: Annotated[Literal["valid", "test"], typer.Option(help="The held-out part to evaluate on.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Also write the report to this file as JSON.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as evaluation.mask=none.")
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also evaluate the model without each of its fields.")] = False,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="BUNDLE", help="Another bundle to compare with, on the same requests.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Also store the report in the root, for the web page and recall report.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write charts to this HTML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Evaluate a published bundle on held-out interactions, compared with popularity.

    A difference is reported as better or worse, and a field as helpful or harmful, only if its interval excludes 0.

    Example: recall evaluate shop/recall.toml shop/bundles
    """
    from recall.evaluation.evaluate import evaluate as evaluate_bundle
    from recall.evaluation.report import keep_evaluation, require_published

    if report is not None:
        import_module("matplotlib")  # reported before the evaluation, which may take long
    output.require_writable(out, report)
    with _held_out(config, [bundle, *(against or ())], data, part, settings or ()) as (opened, dataset, run, split):
        recommender, *others = opened
        if keep:
            require_published(recommender.bundle.folder)
        with output.stage("evaluate"):
            evaluated = evaluate_bundle(recommender, dataset, run, split, ablated=ablate, against=others)
        if report is not None:
            _write_page(report, [(recommender, evaluated)])
        if keep:
            keep_evaluation(recommender.bundle.folder, evaluated)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(evaluated.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if as_json:
        output.show_json(evaluated.model_dump())
    else:
        _show(evaluated)


def report(
    bundle: output.Bundle,
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluation of this bundle, written by recall evaluate --out; default: the one stored by --keep, if any.",
        ),
    ] = None,
) -> None:
    """Write charts of a bundle to an HTML file.

    The charts show learning curves, contributions of fields, strength of field pairs, a map of the items, the index, and
    latency; with an evaluation also quality, cold start, the popularity weight and calibration. Needs no network.

    Example: recall report shop/bundles --out report.html
    """
    from recall.evaluation.report import kept_evaluation, read_evaluation
    from recall.serving.recommender import Recommender

    import_module("matplotlib")
    output.require_writable(out)
    with Recommender.load(bundle, users=None) as recommender:
        opened = recommender.bundle
        evaluated = (
            kept_evaluation(opened.folder) if evaluation is None else read_evaluation(evaluation, opened.manifest.version)
        )
        _write_page(out, [(recommender, evaluated)])
    output.show({"written": out})


def compare(
    config: Annotated[Path, typer.Argument(help="Configuration (TOML) of the data, split and evaluation.")],
    bundle: output.Bundle,
    other: Annotated[Path, typer.Argument(help="The bundle to compare with: a folder of published bundles, or one bundle.")],
    data: output.Data = None,
    part: Annotated[Literal["valid", "test"], typer.Option(help="The held-out part to evaluate on.")] = "test",
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("comparison.html"),
    as_json: output.Json = False,
) -> None:
    """Compare two bundles on the same requests, and write charts of both to HTML.

    A difference is called better or worse only where its 95 % interval excludes 0.

    Example: recall compare shop/recall.toml shop/bundles/versions/000002-1f0c9a2e shop/bundles
    """
    from recall.evaluation.evaluate import evaluate as evaluate_bundle

    import_module("matplotlib")  # reported before the evaluation, which may take long
    output.require_writable(out)
    with _held_out(config, [bundle, other], data, part) as (opened, dataset, run, split):
        one, two = opened
        with output.stage("evaluate both"):
            first = evaluate_bundle(one, dataset, run, split, against=(two,))
            second = evaluate_bundle(two, dataset, run, split)
        _write_page(out, [(one, first), (two, second)])
    differences = first.rivals[0].comparison
    if as_json:
        output.show_json({"written": out, "comparison": {name: each.model_dump() for name, each in differences.items()}})
    else:
        _show(first)
        output.show({"written": out})


@contextmanager
def _held_out(
    config: Path, bundles: "Sequence[Path]", data: Path | None, part: str, settings: "Sequence[str]" = ()
) -> "Iterator[tuple[list[Recommender], Dataset, RunConfig, int]]":
    """Open bundles and the tables whose held-out part they are evaluated on.

    Raises:
        DataError: A bundle was trained on that part.
    """
    from recall.config import load_config
    from recall.data.dataset import load_dataset
    from recall.data.split import TEST, VALID
    from recall.evaluation.data_match import refuse_trained_on
    from recall.serving.recommender import Recommender

    loaded, folder, split = load_config(config, settings), data or config.parent, TEST if part == "test" else VALID
    with ExitStack() as opened:
        threads = os.cpu_count() or 1
        recommenders = [opened.enter_context(Recommender.load(one, threads=threads, users=None)) for one in bundles]
        types = recommenders[0].bundle.encoder.types
        with output.stage("load the tables"):
            dataset = load_dataset(loaded, folder, types)
        for one in recommenders:
            refuse_trained_on(
                dataset, loaded, split, one.bundle, one.users.get, lambda changed: load_dataset(changed, folder, types)
            )
        yield recommenders, dataset, loaded, split


def _write_page(path: Path, bundles: "Sequence[tuple[Recommender, EvaluationReport | None]]") -> None:
    from recall.evaluation.html.sections import render
    from recall.evaluation.html.subject import Subject

    with output.stage("draw the report"):
        subjects = [Subject.of(recommender, evaluation) for recommender, evaluation in bundles]
        first = bundles[0][1]
        differences = first.rivals[0].comparison if len(bundles) > 1 and first is not None else {}
        page = render(subjects, differences)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _show(report: "EvaluationReport") -> None:
    from rich.console import Console

    from recall.evaluation.report import render

    console = Console()
    # in a pipe or file, as wide as the table needs
    (console if console.is_terminal else Console(width=120)).print(render(report))


_AT_ONCE = 10_000  # pairs in one batch. Chosen, not tuned.


def predict(
    bundle: output.Bundle,
    pairs: Annotated[
        Path,
        typer.Option(
            help="Table with one row for each pair of user and item, with optional features and context: .parquet or .csv."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output file with the same rows and their predictions: .parquet or .csv.")],
    scores: Annotated[bool, typer.Option("--scores", help="Write only scores; works with models of any objective.")] = False,
) -> None:
    """Predict the probability that each user takes each item, with a log-loss model.

    Values in columns of user fields override the stored features of the user; histories are always the stored ones. Other
    columns are copied to the output. A pair without a user id (an empty cell) is scored as anonymous.

    Example: recall predict bundles --pairs candidates.csv --out ranked.csv
    """
    import polars as pl

    from recall.data.tables import read_table
    from recall.publish.rebuild import data_config
    from recall.serving.recommender import Recommender

    output.require_writable(out)
    with Recommender.load(bundle) as recommender:
        objective = recommender.bundle.manifest.objective
        if objective != "logistic" and not scores:
            raise BundleError(
                "the scores of this model are not probabilities",
                where=str(recommender.bundle.folder),
                why=f"it was trained with objective {objective!r}" if objective else "it was not trained by log loss",
                hint='Train with train.objective = "logistic", or ask for --scores',
            )
        nulls = data_config(recommender.bundle.manifest).nulls
        table = read_table(pairs, nulls)
        rows = table.collect(table.columns)
        _check_columns(table, rows, recommender)
        _check_out(out, rows)
        _check_users(table, pairs, recommender.bundle.encoder.schema.user_id, nulls)
        asked = _asked(table, rows, recommender)
        anonymous = asked[recommender.bundle.encoder.schema.user_id].null_count()
        with output.stage(f"predict {len(rows):,} pairs"):
            pieces = (asked[first : first + _AT_ONCE] for first in range(0, len(asked), _AT_ONCE))
            predicted = [one for piece in pieces for one in _predict(recommender, piece)]
        unknown = _unknown(recommender, asked)
    columns = [pl.Series("score", [one.score for one in predicted], dtype=pl.Float64)]
    if not scores:
        columns.append(pl.Series("probability", [one.probability for one in predicted], dtype=pl.Float64))
    written = (
        read_table(pairs).collect(table.columns) if nulls else rows
    )  # columns that pass through keep their nulls as written
    _write(written.with_columns(columns), out)
    said = {"anonymous": f"{anonymous:,} pairs without a user" if anonymous else "", "unknown": unknown}
    output.show({"written": out, "pairs": f"{len(rows):,}", **{name: text for name, text in said.items() if text}})


def _check_columns(table: "Table", rows: "pl.DataFrame", recommender: "Recommender") -> None:
    encoder = recommender.bundle.encoder
    ids = (encoder.schema.user_id, encoder.schema.item_id)
    for name in ids:
        if name not in rows.columns:
            raise DataError(
                f"there is no column {name!r}", where=str(table.path), hint="Name the user and the item of each pair"
            )
    for name in ("score", "probability"):
        if name in rows.columns:
            raise DataError(f"there is a column {name!r} already", where=str(table.path), hint="Rename it")
    read = {*ids, *encoder.users.columns, *encoder.contexts.columns}
    strange = [name for name in rows.columns if name not in read]
    if strange:
        output.note(f"note: no field reads {', '.join(map(repr, strange))}")


def _check_users(table: "Table", pairs: Path, user_id: str, nulls: "Sequence[str]") -> None:
    """Raise DataError where a user id is blank: white space, or empty text in quotes."""
    import polars as pl

    from recall.data.entities import refuse_missing_ids
    from recall.features.values import canonical_series

    frame = table.frame
    if pairs.suffix == ".csv":  # an empty cell is missing, empty text in quotes is not
        frame = pl.scan_csv(pairs, infer_schema=False, null_values=list(nulls))
    ids = canonical_series(frame.select(pl.col(user_id)).collect().to_series())
    refuse_missing_ids(
        ids.fill_null("missing"), table.where(user_id), "Fill the ids in, or leave the cells of anonymous users empty"
    )


def _asked(table: "Table", rows: "pl.DataFrame", recommender: "Recommender") -> "pl.DataFrame":
    """Return ids as text, and the columns of user fields in the types of requests."""
    import polars as pl

    from recall.data.columns import column_forms
    from recall.data.entities import read_ids
    from recall.features.values import canonical_series, to_float, to_request_values

    encoder = recommender.bundle.encoder
    schema = encoder.schema
    numeric = schema.number_columns("user")
    read = dict.fromkeys(name for name in (*encoder.users.columns, *encoder.contexts.columns) if name in rows.columns)
    read.pop(schema.user_id, None)
    users, items = column_forms(schema, encoder.types)
    given = [
        to_float(rows[name], table.where(name)) if name in numeric else users.canonical(rows[name], table.where(name))
        for name in read
    ]
    user_ids = users.canonical(canonical_series(rows[schema.user_id]), table.where(schema.user_id))
    item_ids = read_ids(rows[schema.item_id], table.where(schema.item_id), items)
    return to_request_values(pl.DataFrame([user_ids, item_ids, *given]))


def _unknown(recommender: "Recommender", asked: "pl.DataFrame") -> str:
    """Describe how many values of each column the model does not know."""
    from recall.features.vocabulary import UNKNOWN

    encoder, counts = recommender.bundle.encoder, {}
    for name, field in encoder.columns.items():
        column = field.column
        if encoder.schema.fields[name].side != "user" or column not in asked.columns or field.vocabulary is None:
            continue
        rows = field.encode(asked)
        unknown = int((rows.indices == UNKNOWN).sum())
        if unknown:
            counts[column] = f"{unknown:,} of {len(asked) - asked[column].null_count():,} values of {column!r}"
    return ", ".join(counts.values())


def _predict(recommender: "Recommender", asked: "pl.DataFrame") -> "list[Prediction]":
    """Return one prediction for each row; equal rows share one request."""
    from recall.features.values import Distinct
    from recall.serving.batch import requests_of
    from recall.serving.request import Request

    item_id = recommender.bundle.encoder.schema.item_id
    users = asked.drop(item_id)
    distinct = Distinct.of(users)
    requests = requests_of(recommender, users[distinct.first], Request(exclude_seen=False))
    return recommender.predict([(requests[code], item) for code, item in zip(distinct.codes, asked[item_id], strict=True)])


def _check_out(out: Path, rows: "pl.DataFrame") -> None:
    import polars as pl

    output.require_table_name(out)
    if out.suffix == ".csv" and any(isinstance(dtype, pl.List) for dtype in rows.dtypes):
        raise DataError("a CSV file holds no lists", where=str(out), hint="Write .parquet")


def _write(rows: "pl.DataFrame", out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    (rows.write_parquet if out.suffix == ".parquet" else rows.write_csv)(out)
