"""Incremental training: continue a published model with new data and new values.

The bundle has the model, the catalogue, and of each user the features, the latest items and all items seen. It does not have
the interactions that it was trained on: with them the run learns from old and new together, without them from the new ones
only.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import JsonValue

from recall._arrays import Int64
from recall.bundle import files
from recall.bundle.manifest import Manifest
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import CURRENT
from recall.config import RunConfig
from recall.config.schema import Side
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset, dataset_of
from recall.data.incremental import addition_tables, addition_tables_alone, unknown_items_note
from recall.data.split import REMEMBERED, TRAIN
from recall.data.tables import Table, Tables, read_table
from recall.errors import ConfigError, RecallError
from recall.evaluation.bootstrap import Comparison, compare
from recall.evaluation.data_match import refuse_foreign
from recall.evaluation.exact_topk import rank_metrics
from recall.features.csr import source_rows
from recall.features.encoder import FeatureEncoder
from recall.models.serving.layout import unwrapped
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.record import UserRecord
from recall.training.loop import SweepReport
from recall.training.popularity import PopularityFit
from recall.training.start import WarmStart, shares
from recall.training.train import TrainResult, train
from recall.training.validation import Validation, validation_requests

_SUSPICIOUS = 0.5  # of the new interactions
_ENOUGH = 10  # new interactions; fewer may be repeated by chance


class NothingNewError(RecallError):
    """The bundle was trained on all of the given tables."""


@dataclass(frozen=True, slots=True)
class WarmStartRun:
    """State of a run that continues from a published bundle.

    Attributes:
        source: the bundle's manifest.
        tables: the new tables, combined with the old ones where available.
        dataset: training data, old interactions before new ones.
        encoder: the bundle's, extended by new values.
        start: the bundle's parameters.
        values: number of new values, by field, for the fields that learn values.
        before: metrics of the unchanged bundle on the validation part; empty when nothing is held out.
        expected: the sequence that must still be live when the new bundle is published; None for another root.
        overlap: warning about new interactions that repeat old ones, or whose items are almost all unknown; else empty.
    """

    source: Manifest
    tables: Tables
    dataset: Dataset
    encoder: FeatureEncoder
    start: WarmStart
    values: Mapping[str, int]
    before: Mapping[str, float]
    expected: int | None
    overlap: str = ""

    def require_validation(self) -> None:
        """Raise ConfigError unless some interactions validate, which a comparison needs."""
        if not self.before:
            raise ConfigError(
                "the comparison needs a validation part",
                where="data",
                hint="Set data.split or data.carve so that one is held out",
            )

    def record(self, trained: TrainResult, retrained: "Retrained | None" = None) -> dict[str, JsonValue]:
        """Return the manifest's record of an incremental run.

        Args:
            trained: the result.
            retrained: of a full retrain, where one was made.
        """
        said: dict[str, JsonValue] = {
            "from": self.source.version,
            "learnt from": "old and new interactions" if self.start.shares is None else "new interactions alone",
            "new values": {name: count for name, count in self.values.items() if count},
            "sweeps": trained.sweeps,
            "best_sweep": trained.best_sweep,
            "seconds": round(trained.seconds, 3),
        }
        if self.before:
            said["before"] = dict(self.before)
            said["after"] = {name: trained.metrics[name] for name in self.before}
        if retrained is not None:
            full = retrained.trained
            said["full"] = {**full.metrics, "sweeps": full.sweeps, "seconds": round(full.seconds, 3)}
            said["gap"] = {name: one.difference.model_dump() for name, one in retrained.gap.items()}
        return said


@dataclass(frozen=True, slots=True)
class Retrained:
    """A run from scratch on the data of an incremental one.

    Attributes:
        trained: its result.
        gap: by metric, its validation figures minus those of the incremental run: positive where it is better.
    """

    trained: TrainResult
    gap: Mapping[str, Comparison]


def retrain(config: RunConfig, ground: WarmStartRun, trained: TrainResult, report: Callable[[SweepReport], None]) -> Retrained:
    """Train from scratch on the data of an incremental run, to compare.

    Args:
        config: of both runs.
        ground: where the other began.
        trained: result of the other.
        report: called after every sweep.

    Raises:
        ConfigError: No interaction validates.
        TrainingError: As `train`.
        TrainingInterruptedError: As `train`.
    """
    ground.require_validation()
    dataset = replace(ground.dataset, schema=config.schema_)  # with weights that the other run has kept
    full = train(config, dataset, FeatureEncoder.fit(dataset), report)
    judged = [
        validation.judge(one.model)
        for one in (full, trained)
        if (validation := Validation.of(config, dataset, one.encoder, PopularityFit.of(dataset, one.encoder, config)))
        is not None
    ]
    return Retrained(full, compare(judged[0], judged[1], config.evaluation.intervals, config.seed))


def prepare_warm_start(
    config: RunConfig, source: Path, new: Path, old: Path | None, root: Path, remember: float = 1.0
) -> WarmStartRun:
    """Open a bundle, combine its data with new tables, and extend its encoder.

    Args:
        config: of the same fields and the same model as the bundle's.
        source: the bundle, or the root whose live version is taken.
        new: folder of the new tables: interactions, and the users and items that are new or have changed.
        old: folder of the tables that the bundle was trained on, where available.
        root: where the result is to be published.
        remember: without `old`, the weight of an old observation relative to a new one.

    Raises:
        BundleError: The source is missing or damaged.
        ConfigError: Its fields or its model differ from the configuration.
        DataError: A table does not match the configuration.
    """
    bundle = load_bundle(source)
    _check(config, bundle)
    config = config.model_copy(update={"fields": config.schema_.with_weights_of(bundle.encoder.schema).fields})
    with closing(SqliteUsers(bundle.users_file)) as store:
        if old is None:
            tables, dataset = _remembering(config, new, bundle, store)
            overlap = _remembered_note(dataset) or _unknown_items_note(dataset, bundle)
        else:
            additions = addition_tables(config.data, new, old)
            tables, overlap = additions.tables, additions.note
            dataset = additions.dataset(config, bundle.encoder.types)
        refuse_foreign(dataset, bundle, len(store), store.get, all_new=old is None)
    encoder = bundle.encoder.with_values_of(dataset)
    rows: dict[Side, Int64] = {
        "user": source_rows(bundle.encoder.user_blocks, encoder.user_blocks),
        "item": source_rows(bundle.encoder.item_blocks, encoder.item_blocks),
    }
    learnt = unwrapped(bundle.tables).arrays()
    start = WarmStart.of(learnt, rows, f"{bundle.manifest.checksum} {remember}")
    live = (source / CURRENT).exists() and source.resolve() == root.resolve()
    return WarmStartRun(
        source=bundle.manifest,
        tables=tables,
        dataset=dataset,
        encoder=encoder,
        start=start if old is not None else replace(start, shares=shares(dataset, encoder, remember)),
        values=encoder.count_new_values(bundle.encoder),
        before=_figures(config, dataset, bundle),
        expected=bundle.manifest.sequence if live else None,
        overlap=overlap,
    )


def _check(config: RunConfig, bundle: Bundle) -> None:
    difference = bundle.encoder.schema.difference(config.schema_)
    if difference:
        raise ConfigError(
            f"the fields are not those of the bundle: {difference}",
            where="fields",
            why=f"bundle {bundle.manifest.version} was trained with others",
            hint="Continue with the fields that it has, or train from scratch",
        )
    model = bundle.manifest.model
    if model.kind == "sums":
        raise ConfigError(
            "a model of sums of embeddings can be served, but not trained here",
            where=f"bundle {bundle.manifest.version}",
            hint="Train a model of another kind from scratch",
        )
    learnt = {"kind": model.kind, "k": bundle.manifest.sizes.k, "cosine": model.cosine}
    for key, value in learnt.items():
        given = getattr(config.model, key)
        if given != value:
            raise ConfigError(
                f"the bundle's model has {key} = {value!r}, the configuration {given!r}",
                where=f"model.{key}",
                hint=f"Add --set model.{key}={str(value).lower()}, or train from scratch",
            )


def _remembering(config: RunConfig, new: Path, bundle: Bundle, store: SqliteUsers) -> tuple[Tables, Dataset]:
    """Return new interactions over a bundle's users and items, with remembered ones."""
    tables = addition_tables_alone(config.data, new, _users(bundle, store), read_table(bundle.folder / files.ITEMS))
    # the total number of partners of a user or item is unknown from new interactions alone
    alone = config.model_copy(update={"data": config.data.model_copy(update={"min_user": 1, "min_item": 1})})
    return tables, with_remembered(dataset_of(alone, tables, types=bundle.encoder.types), store.records())


def with_remembered(dataset: Dataset, users: Iterable[tuple[str, UserRecord]]) -> Dataset:
    """Prepend the interactions that a bundle stores for each user.

    They are not trained or evaluated on, because their time and context are lost. But they are masked, they are part of
    histories, and they are exported with the users.

    Args:
        dataset: data set with all of these users; stored items that left the catalogue are skipped.
        users: id and record of each user.
    """
    schema = dataset.schema
    earlier = pl.DataFrame(
        [(user_id, _oldest_first(record)) for user_id, record in users],
        schema={schema.user_id: pl.String(), schema.item_id: pl.List(pl.String())},
        orient="row",
    ).explode(schema.item_id, empty_as_null=False, keep_nulls=False)
    types = dataset.events.schema
    user_rows, item_rows = (
        frame.select(key).with_row_index(name)
        for frame, key, name in ((dataset.users, schema.user_id, "user"), (dataset.items, schema.item_id, "item"))
    )
    joined = earlier.join(user_rows, on=schema.user_id, maintain_order="left")
    events = joined.join(item_rows, on=schema.item_id, maintain_order="left").select(
        pl.col("user").cast(types["user"]),
        pl.col("item").cast(types["item"]),
        pl.lit(1.0, dtype=types["weight"]).alias("weight"),
        pl.lit(REMEMBERED, dtype=types["split"]).alias("split"),
        *(pl.lit(None, dtype=types[name]).alias(name) for name in dataset.context_columns),
    )
    negatives = dataset.negatives
    if negatives is not None:
        prepended = pl.Series(np.cumsum(np.bincount(events["user"], minlength=len(dataset.users))))  # up to each user
        negatives = negatives.with_columns(before=pl.col("before") + prepended.gather(negatives["user"]))
    all_events = pl.concat([events, dataset.events]).sort("user", maintain_order=True)
    return replace(dataset, events=all_events, negatives=negatives)


def _oldest_first(record: UserRecord) -> list[str]:
    recent = set(record.history)
    return [*reversed([item for item in record.seen if item not in recent]), *reversed(record.history)]


def are_remembered(dataset: Dataset) -> bool:
    """Return whether all new interactions are the latest that a bundle remembers.

    Then the bundle was trained on them. Fewer than ten interactions may be repeated by chance, and return False.

    Args:
        dataset: new interactions with remembered ones.
    """
    events = dataset.events.with_columns(new=pl.col("split") >= TRAIN)
    new = events.filter("new").group_by("user").agg("item")
    old = events.filter(~pl.col("new")).group_by("user").agg(pl.col("item").alias("old"))
    both = new.join(old, on="user", how="left").with_columns(pl.col("old").list.tail(pl.col("item").list.len()))
    return int(events["new"].sum()) >= _ENOUGH and bool((both["item"] == both["old"]).fill_null(value=False).all())


def _remembered_note(dataset: Dataset) -> str:
    """Warn when most new interactions are of remembered pairs, perhaps the same ones."""
    old = dataset.events[dataset.select(REMEMBERED)].select("user", "item").unique()
    new = dataset.events.filter(dataset.events["split"] >= TRAIN).select("user", "item")
    again = len(new.join(old, on=["user", "item"], how="semi"))
    if again < _SUSPICIOUS * len(new):
        return ""
    return (
        f"{again:,} of {len(new):,} new interactions repeat a user and an item of the bundle: if they were "
        "trained on before, they count twice; give the old tables in --data, and equal interactions are left out"
    )


def _unknown_items_note(dataset: Dataset, bundle: Bundle) -> str:
    """Warn when new interactions are with unknown items, perhaps of other data."""
    items = dataset.events.filter(dataset.events["split"] >= TRAIN)["item"].unique()
    known = int((bundle.item_ids.rows(dataset.items[dataset.schema.item_id].gather(items).to_list()) >= 0).sum())
    return unknown_items_note(known, len(items), "the bundle's catalogue")


def _users(bundle: Bundle, store: SqliteUsers) -> Table:
    """Return all stored users with the columns of fields and attributes."""
    schema, encoder = bundle.encoder.schema, bundle.encoder
    columns = [name for name in encoder.users.columns if name != schema.user_id]
    others = dict.fromkeys((*encoder.contexts.columns, *encoder.types.users))
    columns += [name for name in others if name not in (*columns, *encoder.context_columns, schema.user_id)]
    rows = [(user_id, *(record.features.get(name) for name in columns)) for user_id, record in store.records()]
    frame = pl.DataFrame(rows, schema=[schema.user_id, *columns], orient="row", infer_schema_length=None, strict=False)
    return Table(bundle.users_file, frame.lazy(), frame.schema)


def _figures(config: RunConfig, dataset: Dataset, bundle: Bundle) -> dict[str, float]:
    """Evaluate a bundle on the validation part; items that it lacks count as missed."""
    held = validation_requests(config, dataset)
    if held is None:
        return {}
    contexts = build_contexts(dataset, bundle.encoder, held.event, held.before)
    phi = bundle.tables.user_vectors(contexts.features.take(contexts.context))
    rows = bundle.item_ids.rows(dataset.items[dataset.schema.item_id].to_list())
    placed = held.in_catalogue(rows, len(bundle.item_ids))
    return rank_metrics(phi, np.asarray(bundle.item_vectors), placed.relevant, placed.masked, (config.train.stopping.at,))
