"""Check the tables of a run before training, and report all findings at once."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from recall.config import ColumnSplit, DataConfig, LastSplit, RunConfig
from recall.data.column_names import EVENT, LABEL, NEGATIVE, RATING, outcome_word
from recall.data.columns import column_type, find_columns
from recall.data.dataset import Dataset, dataset_of, open_tables
from recall.data.dependence import Dependence, described_side, encode_distinct, leak_findings
from recall.data.findings import (
    Finding,
    Level,
    Report,
    bag_findings,
    missing_findings,
    normalize_ids,
    rounded_id_findings,
    row_number_findings,
    spelling_findings,
    spread_findings,
    variety_findings,
)
from recall.data.outcomes import Outcomes, weight_findings
from recall.data.parts import part_findings
from recall.data.prepared import PreparedTables
from recall.data.roles import looks_like_outcome
from recall.data.split import TEST, TRAIN, VALID, Parts, column_parts
from recall.data.tables import Tables
from recall.data.time_checks import time_findings
from recall.data.time_columns import follows_calendar
from recall.data.times import Times
from recall.errors import RecallError, did_you_mean
from recall.features.canonical import TEXT, canonical_column, id_type
from recall.features.encoder import FeatureEncoder
from recall.features.values import canonical_series, examples, to_float

_MAX_UNKNOWN = 0.2  # share of unknown users or items above which a finding is a warning. Chosen, not tuned.
_MAX_SHARE = 0.5  # share of the rows with one user above which it is a warning. Chosen, not tuned.
_HEAVY_SHARE, _MAX_TIMES = 0.05, 4  # also a warning: a share above it, with more rows than so many times those of the next user
_MIN_USERS = 20  # users from which on one of them should not have most of the interactions. Chosen, not tuned.
_SAMPLE = 100_000  # rows that are compared; enough for the three standard errors of `recall.data.dependence`


def check(config: RunConfig, root: Path, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Check the tables of a run.

    Args:
        config: names the tables, columns and fields.
        root: folder to which paths are relative.
        say: called with the name of each check.

    Returns:
        Findings, errors first; without an error the run can be trained.
    """
    try:
        tables = open_tables(config.data, root)
    except RecallError as error:
        return [Finding("error", str(error))]
    checks = {"loading and encoding": _check_training(config, tables), **_table_checks(config, tables)}
    return _run_checks(checks, say)


def check_loaded(config: RunConfig, tables: Tables, dataset: Dataset) -> list[Finding]:
    """Check tables that were read and encoded without an error.

    Args:
        config: names the columns and fields.
        tables: the opened tables.
        dataset: the data set that was read from them.

    Returns:
        Findings, errors first.
    """
    return _run_checks({"parts": _check_dataset(config, dataset), **_table_checks(config, tables)})


def _table_checks(config: RunConfig, tables: Tables) -> dict[str, Iterator[Finding]]:
    """Return the lazy checks of the source tables by name."""
    if isinstance(tables, PreparedTables):
        return {}
    return {
        "formats": _check_formats(config.data, tables),
        "rows left out": iter(tables.findings),
        "columns of fields": _check_fields(config, tables),
        "ids": _check_ids(config.data, tables),
        "rows": _check_rows(config.data, tables),
        "contexts": _check_contexts(config, tables),
    }


def _check_formats(data: DataConfig, tables: Tables) -> Iterator[Finding]:
    """Report columns of `data.formats` that the table lacks.

    This is a warning only, because new tables may lack columns that no field reads.
    """
    for name, form in data.formats.items():
        if name not in tables.named:
            continue
        table = tables.named[name]
        known = [
            *(table.original_names.get(column, column) for column in table.columns),
            *data.user_columns,
            *data.item_columns,
        ]
        for column in (*form.numbers, *form.times, *form.booleans, *form.durations, *form.lists):
            if column not in known and column != form.explode:
                message = f"data.formats.{name} names this column, which the table lacks. {did_you_mean(column, known)}"
                yield Finding("warning", message, 1, name, column)


def _run_checks(checks: Mapping[str, Iterator[Finding]], say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Return the distinct findings, errors first."""
    distinct: dict[Finding, None] = {}
    for number, (name, findings) in enumerate(checks.items(), 1):
        say(f"{name} ({number} of {len(checks)})")
        try:
            distinct |= dict.fromkeys(findings)
        except RecallError as error:  # one check that fails does not stop the others
            distinct[Finding("error", str(error))] = None
    return sorted(distinct, key=lambda finding: ("error", "warning", "note").index(finding.level))


def _check_training(config: RunConfig, tables: Tables) -> Iterator[Finding]:
    """Load and encode the data set, then check it."""
    dataset = dataset_of(config, tables)
    FeatureEncoder.fit(dataset)
    yield from _check_dataset(config, dataset)


def _check_dataset(config: RunConfig, dataset: Dataset) -> Iterator[Finding]:
    """Report leaking contexts, weights, parts of the split, and unknown ids."""
    yield from leak_findings(dataset, _outcome_columns(config.data))
    yield from dataset.assumptions
    yield from (Finding("note", message, table="interactions") for message in dataset.left_out)
    yield from weight_findings(dataset.weight_range, config.data.weight)
    yield from part_findings(config, dataset)
    for part, name in ((VALID, "validation"), (TEST, "test")):
        for side, column in (("user", config.data.user_id), ("item", config.data.item_id)):
            if dataset.hold_out == f"{side}s":
                continue
            trained, evaluated = (dataset.events[side].gather(dataset.select(number)) for number in (TRAIN, part))
            cold = int((~evaluated.is_in(trained.unique().implode())).sum())
            if cold:
                message = f"{cold:,} of {len(evaluated):,} {name} interactions are with {side}s that never train"
                level = _level(cold, _MAX_UNKNOWN * len(evaluated))
                yield Finding(level, message, cold, "interactions", column)


def _check_fields(config: RunConfig, tables: Tables) -> Iterator[Finding]:
    """Report problems of columns that fields read, and columns that nothing reads."""
    data, schema = config.data, config.schema_
    columns = find_columns(schema, data, tables)
    read = {"interactions": columns.context, "users": columns.users, "items": columns.items}
    for name, field in schema.column_fields.items():
        column = schema.column(name)
        separator = field.separators(name).get(column)
        possible = ("items",) if field.side == "item" else ("interactions", "users")
        for table in (table for table in possible if column in read[table]):  # none for an id, else one
            report = partial(Finding, table=table, column=column)
            values = tables.named[table].column(column)
            if field.reads_numbers:
                values = to_float(values, tables.named[table].where(column))
                yield from spread_findings(values, field, report)
            else:
                values = canonical_column(values, column_type(values, separator, data.text), separator=separator)
            yield from chain(missing_findings(values, report), variety_findings(values, field, report, separator))
            if separator is not None:
                yield from bag_findings(values, separator, report)
            elif not field.reads_numbers:
                yield from spelling_findings(values, report)
            if table == "interactions" and column in _outcome_columns(data):
                yield report("warning", "the field reads what is known only after the interaction", len(values))
    used = {data.user_id, data.item_id, *data.columns_of_rows, *columns.item_attributes, *columns.user_attributes}
    for table, source in tables.named.items():
        for column, dtype in source.types.items():
            if column not in read[table] and column not in used:
                yield _unread_column(table, column, may_be_outcome=not (dtype.is_temporal() or _outcome_columns(data)))


def _check_contexts(config: RunConfig, tables: Tables) -> Iterator[Finding]:
    """Report context columns whose values look like an outcome.

    Columns of fields with `source = "interactions"` are declared as contexts and skipped.
    """
    data, schema = config.data, config.schema_
    context, table = find_columns(schema, data, tables).context, tables.interactions
    declared = {schema.column(name) for name, field in schema.column_fields.items() if field.source == "interactions"}
    names = [name for name in context if name not in {*declared, *_outcome_columns(data)} and not outcome_word(name)]
    for name in names:
        raw = table.collect([name, data.user_id, data.item_id, *([] if data.time is None else [data.time])]).drop_nulls()
        raw = raw.sample(_SAMPLE, seed=0) if len(raw) > _SAMPLE else raw
        form = looks_like_outcome(raw[name])
        if not form or (data.time is not None and follows_calendar(raw[name], raw[data.time])):
            continue
        user, item = (encode_distinct(canonical_series(raw[column])) for column in (data.user_id, data.item_id))
        if described_side(Dependence.of(user, item, raw[name])):
            continue
        holds = "truth values" if form == "switch" else "marks on a scale"
        message = (
            f"this context holds {holds} that do not depend on user, item or time, like an outcome: if it is one, name "
            "it in data.label, data.outcome or data.weight and leave the field out; if a request knows it before an item is "
            'chosen, set source = "interactions" in its field'
        )
        yield Finding("warning", message, len(raw), "interactions", name)


def _level(count: int, limit: float) -> Level:
    return "warning" if count > limit else "note"


def _unread_column(table: str, column: str, *, may_be_outcome: bool) -> Finding:
    word = outcome_word(column, RATING | LABEL | NEGATIVE | EVENT) if table == "interactions" and may_be_outcome else ""
    if not word:
        return Finding("note", "nothing reads this column", 1, table, column)
    message = (
        f"nothing reads this column, although its name {word!r} denotes the outcome of an interaction: every row counts alike "
        "unless data.outcome, data.events, data.label or data.weight names it"
    )
    return Finding("warning", message, 1, table, column)


def _outcome_columns(data: DataConfig) -> set[str]:
    return {name for name in data.columns_of_rows if name != data.time}


def _check_ids(data: DataConfig, tables: Tables) -> Iterator[Finding]:
    """Report spelling of ids, and ids that the users or items table lacks."""
    for name, column in (("users", data.user_id), ("items", data.item_id)):
        raw = {table: tables.named[table].column(column) for table in ("interactions", name) if table in tables.named}
        for table, values in raw.items():
            yield from rounded_id_findings(values, partial(Finding, table=table, column=column))
        report = partial(Finding, table="interactions", column=column)
        type_ = TEXT if column in data.text else id_type(raw.values())
        ids = canonical_column(canonical_series(raw["interactions"]), type_).drop_nulls()
        used = ids.unique()
        if name == "users" and len(used) >= _MIN_USERS:
            (user_id, count), (_, next_count) = ids.value_counts(sort=True).head(2).rows()
            heavy = count > _HEAVY_SHARE * len(ids) and count > _MAX_TIMES * next_count
            if heavy or count > _MAX_SHARE * len(ids):
                message = (
                    f"{count:,} of {len(ids):,} interactions are of one user, {user_id!r}: if it means an unknown user or "
                )
                message += "a test account, leave these rows out; data.nulls may name it if it means nothing else"
                yield report("warning", message, count)
        yield from spelling_findings(used, report)
        if name not in tables.named:
            continue
        listed = canonical_column(canonical_series(raw[name]), type_)
        yield from row_number_findings(listed, partial(Finding, table=name, column=column))
        unknown = used.filter(~used.is_in(listed.implode())).sort()
        if len(unknown):
            message = f"{len(unknown):,} of {len(used):,} ids are not in the {name} table, such as {examples(unknown)}"
            yield report(_level(len(unknown), _MAX_UNKNOWN * len(used)), message, len(unknown))
        similar = normalize_ids(unknown).is_in(normalize_ids(listed.drop_nulls()).implode())
        if similar.any():
            message = f"ids differ from those of the {name} table in leading zeros, blanks or case only: "
            yield report("warning", message + examples(unknown.filter(similar)), int(similar.sum()))


def _check_rows(data: DataConfig, tables: Tables) -> Iterator[Finding]:
    """Report repeated interactions, and those out of order."""
    time_columns = [data.time] if data.time is not None else []
    read = [data.user_id, data.item_id, *time_columns]
    raw = tables.interactions.collect([*read, *data.outcome_columns])
    outcomes = Outcomes.of(raw, data, tables.interactions.where)
    taken = np.ones(len(raw), dtype=np.bool_) if outcomes.taken is None else outcomes.taken
    raw = raw.select(read).filter(taken)
    repeated = _count_repeated(raw)
    if repeated:
        what = "user, item and time" if time_columns else "user and item"
        message = f"{repeated:,} rows repeat the {what} of another; their weights add up"
        yield Finding("warning" if time_columns else "note", message, repeated, "interactions")
    if data.time is None:
        return
    report = partial(Finding, table="interactions", column=data.time)
    times = Times.of(raw[data.time], tables.interactions.where(data.time))
    yield from time_findings(times, raw[data.user_id], data.split, report, datetime.now(UTC))
    tied = _count_repeated(raw.select(data.user_id, data.time))
    if tied:
        message = f"{tied / len(raw):.1%} of the rows share their time with another of the same user; the file orders them"
        yield report("note", message, tied)
    if isinstance(data.split, LastSplit) and data.split.test:
        message = "each user's last interactions test, and others train on later ones: this measures ranking, not forecasting"
        yield report("note", message, len(raw))
    if isinstance(data.split, ColumnSplit):
        table, column = tables.interactions, data.split.column
        parts = column_parts(table.column(column), data.split, table.where(column))[taken]
        yield from _check_future(raw[data.user_id], times.values, parts, report)


def _count_repeated(rows: pl.DataFrame) -> int:
    """Return the number of rows that repeat an earlier one.

    Counted by hashes of 64 bits, which take a tenth of the memory of the rows themselves: of 10 million rows it errs by one
    with a probability of 1 in 300,000.
    """
    return len(rows) - rows.hash_rows().n_unique()


def _check_future(users: pl.Series, times: pl.Series, parts: Parts, report: Report) -> Iterator[Finding]:
    """Report training interactions that are later than tested ones."""
    frame = pl.DataFrame({"user": users, "time": times, "part": parts})
    first_test = pl.col("time").filter(pl.col("part") == TEST).min()
    own, anyone = (
        frame.select(((pl.col("part") == TRAIN) & (pl.col("time") > first)).sum()).item()
        for first in (first_test.over("user"), first_test)
    )
    if own:
        message = f"{own:,} training interactions are later than a test interaction of the same user: the future is trained on"
        yield report("warning", message, own)
    if anyone:
        message = f"{anyone:,} training interactions are later than the first test interaction: "
        yield report("note", message + "this measures ranking, not forecasting", anyone)
