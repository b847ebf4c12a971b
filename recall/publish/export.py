"""Publish a trained model, after verifying that serving reproduces its scores."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue

from recall._arrays import Float64, Int32, Int64
from recall._heap import release_free_memory
from recall.bundle import files
from recall.bundle.manifest import FoldRecord, Provenance
from recall.bundle.writer import BundleWriter, check_tables
from recall.config import FwFMConfig, ModelConfig, RunConfig
from recall.data.contexts import build_contexts, previous_items
from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED, TRAIN
from recall.errors import ExportError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.models.serving.base import Parity, ServingModel, relative_errors
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.layout import unwrapped
from recall.models.serving.popularity import PopularityFactor, PopularityTables
from recall.models.torch.base import Model, SparseBatch, one_torch_thread
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM
from recall.publish import golden
from recall.publish.index import QUERIES, QuerySample, write_index
from recall.publish.rebuild import Published
from recall.serving.filters.columns import coded_columns
from recall.store.items.log_overlap import compare_with_log
from recall.store.users.bundle_users import SqliteUsers, write_user_store

_SOURCE = "an interaction of each of these users, held out of training where enough of them have such a one"
_DEFINED = 32  # items per user whose scores are computed by the definition of a model with fields


@dataclass(frozen=True, slots=True)
class ExportReport(Published):
    """Result of an export.

    Attributes:
        seconds: duration of each stage in seconds, in order.
    """

    seconds: Mapping[str, float]


def export(
    model: Model,
    encoder: FeatureEncoder,
    dataset: Dataset,
    config: RunConfig,
    root: Path,
    metrics: Mapping[str, JsonValue] | None = None,
    parent: int | None = None,
    expected: int | None = None,
    popularity: PopularityFactor | None = None,
    *,
    activate: bool = True,
) -> ExportReport:
    """Write, verify and publish a bundle.

    Item vectors are computed, and an index is built over them. Then random users and items are scored twice: as a request is,
    with the written users, the single-request encoder and float32 vectors; and by the model itself, in float64, from the rows
    of its training. The scores must agree.

    Args:
        model: the trained model, on any device.
        encoder: encoder of its features.
        dataset: items, users and all interactions that serving may use.
        config: the run's configuration, which is recorded in the manifest.
        root: root to publish to.
        metrics: metrics to record in the manifest.
        parent: sequence of the bundle that training continued.
        expected: publish only if the version with this sequence is still live; see `publish`.
        popularity: popularity factor in addition to the model.
        activate: make the new version live.

    Raises:
        ConfigError: `data.contains_changes_through` is after the last live change.
        ExportError: The vectors do not reproduce the model within `config.export.tolerance`; nothing is published.
        PublishError: Writing failed, or another publisher held the lock.
    """
    seconds: dict[str, float] = {}
    release_free_memory()  # of training
    log_overlap = compare_with_log(root, dataset.items[dataset.schema.item_id].to_list(), config.data.contains_changes_through)
    with BundleWriter.open(root) as writer:
        with _timed(seconds, "encode"):
            item_rows = encoder.encode_items(dataset.items)
        with _timed(seconds, "vectors"):
            tables = tables_of(model, encoder, config.model, popularity)
            item_vectors = tables.item_vectors(item_rows)
        with _timed(seconds, "write"):
            writer.write_contents(encoder, tables, item_vectors, dataset.items, _counts(dataset))
            write_user_store(writer.folder / files.USERS, dataset)
        with _timed(seconds, "index"):
            positions = _draw(dataset, QUERIES, config.seed)
            queries = tables.user_vectors(build_contexts(dataset, encoder, positions).features)
            sample = QuerySample(queries, _SOURCE, config.seed)
            index = write_index(
                writer.folder, item_vectors, sample, config.index, columns=lambda: coded_columns(dataset.items, encoder)
            )
        release_free_memory()  # of the candidates for the index
        with _timed(seconds, "proof"):
            parity, fold = _parity(writer, model, tables, encoder, dataset, item_rows, config, popularity)
        with _timed(seconds, "publish"):
            origin = Provenance(
                name=config.name,
                parent=parent,
                data_hash=dataset.fingerprint(),
                seed=config.seed,
                config=config.model_dump(mode="json", by_alias=True),
                metrics=dict(metrics or {}),
                folded=log_overlap.base.compacted_through,
                log=log_overlap.base.log,
            )
            writer.write_manifest(origin, len(dataset.users), parity, index, fold)
            published, manifest = writer.publish(golden.record, expected, config.export.keep, activate)
    return ExportReport(published, manifest, log_overlap, seconds)


def tables_of(
    model: Model, encoder: FeatureEncoder, config: ModelConfig, popularity: PopularityFactor | None = None
) -> ServingModel:
    """Return the parameters of a model for serving.

    Those of a field-weighted model are folded as configured.

    Args:
        model: the trained model.
        encoder: encoder of its features.
        config: configuration with rank and tolerance of the fold.
        popularity: popularity factor in addition to the model.

    Raises:
        ExportError: A parameter of a model that is to be folded is not finite.
    """
    tables = model.tables(encoder.user_fields, encoder.item_fields)
    if isinstance(tables, FwFMTables):
        check_tables(tables)
        chosen = config if isinstance(config, FwFMConfig) else FwFMConfig(kind="fwfm")
        tables = tables.folded(chosen.rank, chosen.tolerance)
    if popularity is None:
        return tables
    return PopularityTables(tables, popularity)


def _counts(dataset: Dataset) -> Int32:
    """Count each item's training and remembered interactions: int32 [items]."""
    counted = np.isin(dataset.events["split"].to_numpy(), (REMEMBERED, TRAIN))
    return np.bincount(dataset.events["item"].to_numpy()[counted], minlength=len(dataset.items)).astype(np.int32)


def _parity(
    writer: BundleWriter,
    model: Model,
    tables: ServingModel,
    encoder: FeatureEncoder,
    dataset: Dataset,
    item_rows: SparseRows,
    config: RunConfig,
    popularity: PopularityFactor | None,
) -> tuple[Parity, FoldRecord | None]:
    rng = np.random.default_rng(config.seed)
    count = min(config.export.users, len(dataset.events))
    positions = np.sort(rng.choice(len(dataset.events), count, replace=False))
    items = np.sort(rng.choice(len(item_rows), min(config.export.items, len(item_rows)), replace=False))
    contexts = build_contexts(dataset, encoder, positions)
    with closing(SqliteUsers(writer.folder / files.USERS)) as users:
        served = SparseRows.vstack(_requests(encoder, dataset, users, contexts.event))
    user_batch, user_features = SparseBatch.local(contexts.features, torch.float64, encoder.user_fields)
    item_batch, item_features = SparseBatch.local(item_rows.take(items), torch.float64, encoder.item_fields)
    exact = model.restricted(user_features.numpy(), item_features.numpy())  # a table may be huge
    scores, fold = _scores(exact, user_batch, item_batch, config.seed), None
    plain = unwrapped(tables)
    if isinstance(plain, FwFMTables) and isinstance(exact, FieldWeightedFM):
        exact.replace_across(torch.from_numpy(plain.across))
        folded = _scores(exact, user_batch, item_batch, config.seed)
        fold = FoldRecord(rank=plain.rank, lost=plain.lost, score_error=float(relative_errors(folded, scores).max()))
        scores = folded
    if popularity is not None:
        with torch.no_grad():
            offset = exact.user_offset(user_batch).numpy()[:, None]
        scores = offset + popularity.applied(scores - offset, contexts.features, item_rows.take(items))
    return writer.check_parity("model", served, items, scores, config.export.tolerance), fold


def _requests(encoder: FeatureEncoder, dataset: Dataset, users: SqliteUsers, positions: Int64) -> list[SparseRows]:
    """Encode the contexts of interactions as the server encodes requests."""
    events = dataset.events[positions]
    ids = dataset.users[dataset.schema.user_id].gather(events["user"]).to_list()
    field = dataset.schema.history
    before = previous_items(dataset, positions, 0 if field is None else field.longest)
    item_ids = dataset.items[dataset.schema.item_id]
    known = {*encoder.users.columns, *encoder.contexts.columns}
    rows = []
    for at, event in enumerate(events.iter_rows(named=True)):
        record = users.get(ids[at])
        if record is None:
            raise ExportError(f"user {ids[at]!r} was not written", where=files.USERS)
        values = {**record.features, **{column: event[column] for column in dataset.context_columns}}
        if dataset.schema.user_id in known:
            values[dataset.schema.user_id] = ids[at]
        history = item_ids.gather(before.items[before.indptr[at] : before.indptr[at + 1]]).to_list()
        rows.append(encoder.encode_user(values, history).rows)
    return rows


def _scores(model: Model, users: SparseBatch, items: SparseBatch, seed: int) -> Float64:
    """Return the model's score of every pair: float64 [users, items].

    Scores are computed by the model's definition on the features of user and item. For models with fields, where that is slow,
    only some random items per user are; the others are inner products of user and item vectors, in float64, too.
    """
    plain = isinstance(model, FactorizationMachine)
    rng = np.random.default_rng(seed)
    with torch.no_grad(), one_torch_thread():  # the products are small: a second thread would mostly wait for the first
        split = model.user_offset(users)[:, None] + model.user_vectors(users) @ model.item_vectors(items).t()
        scores = split.numpy()
        for row in range(users.n):
            drawn = np.arange(items.n) if plain else rng.choice(items.n, min(_DEFINED, items.n), replace=False)
            some = items if plain else items.take(torch.from_numpy(drawn))
            scores[row, drawn] = model.score(users.take(torch.full((some.n,), row)), some).numpy()
    return scores


def _draw(dataset: Dataset, count: int, seed: int) -> Int64:
    """Draw an interaction of each of `count` users, held-out ones where possible."""
    events, rng = dataset.events["user"].to_numpy(), np.random.default_rng(seed)
    held_out = np.flatnonzero(dataset.events["split"].to_numpy() != TRAIN)
    drawn = [rng.permutation(among) for among in (held_out, np.arange(len(events)))]
    for positions in drawn:
        positions = positions[np.unique(events[positions], return_index=True)[1]]
        if len(positions) >= count:
            break
    return np.sort(rng.permutation(positions)[:count])


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
