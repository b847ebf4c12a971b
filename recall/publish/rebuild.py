"""Publish a model with a new table of items, without training and without torch.

A factorization machine's item vector is a weighted sum of the parameters of its features, so new items get vectors from learned
features. Everything except the items and the index is copied from the source bundle.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import JsonValue

from recall._arrays import Float32, Int32
from recall.bundle.manifest import Manifest
from recall.bundle.reader import ITEM_ID, Bundle, read_deletions, write_deletions
from recall.bundle.versions import CURRENT, resolve
from recall.bundle.writer import BundleWriter
from recall.config import DataConfig, ExportConfig, IndexConfig
from recall.data.columns import cast_to_trained, column_forms
from recall.data.entities import read_entities
from recall.data.tables import open_table
from recall.errors import BundleError, DataError, IndexFileError, did_you_mean
from recall.features.boosts import Boosts, numeric_text_columns
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.novelty import novelties
from recall.features.values import to_request_values
from recall.models.serving.base import Parity
from recall.publish import golden
from recall.publish.index import QUERIES, QuerySample, write_index
from recall.serving.filters.columns import coded_columns
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.log_overlap import THROUGH, LogOverlap, compare_with_log
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.profiles import UserProfiles

SAMPLE = 200
"""Number of stored users whose recommendations before and after are compared."""
TOP = 10
"""Length of these recommendations."""
STORED = "stored users, as they ask without a context"
"""Source of the query vectors with which the index is tuned, as recorded in the manifest."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version that was published.

    Attributes:
        folder: folder of the version.
        manifest: its manifest.
        log_overlap: how the root's live changes apply to it.
    """

    folder: Path
    manifest: Manifest
    log_overlap: LogOverlap


@dataclass(frozen=True, slots=True)
class RebuildReport(Published):
    """A version with new items; its manifest has the source's sequence as `parent`.

    Attributes:
        added: ids of new items, in order of rows.
        removed: ids of items of the source that are not in the table.
        changed: ids of items with a different vector, in order of rows.
        kept: number of items with the same vector.
        users: number of stored users whose recommendations were compared.
        overlap: mean share of a user's recommendations before that are in those after; 1 if no user is stored.
        unopened: why the source's index could not be opened; empty if it could.
        warnings: sentences about values of added and changed items that the model does not know.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: int
    users: int
    overlap: float
    unopened: str = ""
    warnings: tuple[str, ...] = ()


def rebuild(
    source: Path,
    table: Path,
    root: Path,
    ignore: Sequence[str] = (),
    as_of: int = 0,
    *,
    other_data: bool = False,
    activate: bool = True,
) -> RebuildReport:
    """Publish the model of a bundle with the items of a table.

    Args:
        source: a bundle, or a root, for its live version.
        table: `.parquet` or `.csv` file of all items, with the id column, all columns that item fields read, and all attributes
            of the source's configuration.
        root: root to publish to. If it is also the source, its live version must not change meanwhile.
        ignore: columns of the table that no field reads.
        as_of: the table contains all live changes of the root up to this sequence; later ones apply on top of it.
        other_data: publish even if the table has no item of the source.
        activate: make the new version live.

    Raises:
        BundleError: The source is missing or damaged.
        ConfigError: `as_of` is after the last change.
        DataError: The table lacks a column, has one that no field reads, repeats an id, or has no item of the source; nothing
            is published.
        ExportError: The new vectors are not finite or do not reproduce the model's scores; nothing is published.
        PublishError: Writing failed, or another version went live meanwhile; the live version does not change.
    """
    old, unopened = open_ignoring_index(resolve(source))  # without live changes, which apply on top of the new version
    with old:
        items = _read_items(table, old.bundle, ignore)
        live = (source / CURRENT).exists() and source.resolve() == root.resolve()
        ids = items[old.bundle.encoder.schema.item_id].to_list()
        if not other_data and not (old.bundle.item_ids.rows(ids) >= 0).any():
            raise DataError(
                f"none of the {len(old.bundle.item_ids):,} items of {old.bundle.manifest.version} is in the table",
                where=f"{table}, column {old.bundle.encoder.schema.item_id!r}",
                why="it is most likely the table of another catalogue, or its ids are written in another way",
                hint="Give the items of the data that the bundle was trained on; add --other-data if all items are new",
            )
        log_overlap = compare_with_log(root, ids, as_of)
        report = publish_items(old, items, root, old.bundle.manifest.sequence if live else None, log_overlap, activate=activate)
        return replace(report, unopened=unopened)


def open_ignoring_index(path: Path, users: Literal["own"] | None = "own") -> tuple[Recommender, str]:
    """Open a bundle whose index will be rebuilt, even if it is damaged or missing.

    Args:
        path: the folder of a bundle, or a root.
        users: as for `Recommender.load`.

    Returns:
        The recommender, which searches exactly if the index cannot be opened, and why it cannot; empty if it can.

    Raises:
        BundleError: Something else of the bundle is missing or damaged.
    """
    try:
        return Recommender.load(path, users=users), ""
    except (IndexFileError, BundleError) as error:
        return Recommender.load(path, users=users, own_index=False), str(error)


def publish_items(
    old: Recommender,
    items: pl.DataFrame,
    root: Path,
    expected: int | None,
    log_overlap: LogOverlap,
    deletions: pl.DataFrame | None = None,
    *,
    activate: bool = True,
) -> RebuildReport:
    """Publish the model of a bundle with other items.

    Args:
        old: the open bundle, possibly with live changes; its recommendations are compared with those of the new version.
        items: table with the columns of the bundle's items.
        root: root to publish to.
        expected: publish only if the version with this sequence is still live.
        log_overlap: how the root's live changes apply to the items.
        deletions: live deletions that the items reflect; None if the items are an independent table.
        activate: make the new version live.

    Raises:
        ExportError, PublishError: as `rebuild`.
    """
    with BundleWriter.open(root) as writer:
        _assemble(old, items, writer, log_overlap, deletions)
        with Recommender.load(writer.folder) as new:
            compared = _compare_lists(old, new)
        published = writer.publish(golden.record, expected, versions_to_keep(old.bundle.manifest), activate)
    return _report(old, items, new.bundle.item_vectors, published, compared, log_overlap)


def _read_items(path: Path, bundle: Bundle, ignore: Sequence[str]) -> pl.DataFrame:
    encoder, schema, boosts = bundle.encoder, bundle.encoder.schema, bundle.manifest.boosts
    attributes = bundle.manifest.attributes
    table = open_table("items", path, data_config(bundle.manifest))
    wanted = tuple(name for name in dict.fromkeys([*encoder.items.columns, *attributes]) if name != schema.item_id)
    for name in ignore:
        if name not in table.columns:
            raise DataError(f"column {name!r} cannot be ignored", where=str(path), hint=did_you_mean(name, table.columns))
    unread = [name for name in table.columns if name not in {schema.item_id, *wanted, *ignore}]
    if unread:
        raise DataError(
            f"no item field reads column {unread[0]!r}" + (f", nor {len(unread) - 1} others" if len(unread) > 1 else ""),
            where=str(path),
            why="it may be the misspelt name of a column that a field reads",
            hint="Rename it, or ignore what is there on purpose: "
            f"{' '.join(f'--ignore {shlex.quote(name)}' for name in unread)}. "
            + did_you_mean(unread[0], [schema.item_id, *wanted]),
        )
    numeric = schema.number_columns("item")
    numeric |= numeric_text_columns(boosts, [name for name in attributes if name not in encoder.items.columns], table.types)
    items = read_entities(table, schema.item_id, wanted, numeric, column_forms(schema, encoder.types)[1])
    dtypes, types = bundle.item_types(), encoder.types.items
    items = items.with_columns(
        cast_to_trained(items[name], dtypes[name], types[name]) for name in wanted if name in types and name in dtypes
    )
    if items.is_empty():
        raise DataError("the table has no items", where=str(path), hint="Give at least one row")
    Boosts.of(
        boosts, items.columns, items.get_column, len(items), schema, encoder.types.items
    )  # refused now, or by every request
    return items


def _assemble(
    old: Recommender, items: pl.DataFrame, writer: BundleWriter, log_overlap: LogOverlap, deletions: pl.DataFrame | None
) -> None:
    """Write a whole bundle into a staged folder."""
    bundle, before = old.bundle, old.bundle.manifest
    rows = bundle.encoder.encode_items(items)
    vectors = bundle.tables.item_vectors(rows)
    writer.write_contents(bundle.encoder, bundle.tables, vectors, items, carried_counts(bundle, items))
    writer.link(bundle.users_file)
    write_deletions(writer.folder, carried_deletions(bundle, items) if deletions is None else deletions)
    users = encode_stored_users(bundle.encoder, old.users, before.seed)
    index = write_index(
        writer.folder,
        vectors,
        QuerySample(bundle.tables.user_vectors(users), STORED, before.seed),
        IndexConfig.recorded(before.section("index")),
        before.index,
        columns=lambda: coded_columns(items, bundle.encoder),
    )
    base = log_overlap.base
    origin = before.provenance(
        config=before.config if deletions is not None else with_contained_changes(before, base.compacted_through),
        folded=base.compacted_through,
        log=base.log,
    )
    parity = _parity(old.bundle, writer, users, rows)
    writer.write_manifest(origin, before.sizes.users, parity, index, before.model.fold)


def with_contained_changes(manifest: Manifest, through: int) -> dict[str, JsonValue]:
    """Return the configuration of a bundle whose tables contain live changes.

    Args:
        manifest: manifest of the bundle.
        through: sequence of the last change that they contain.
    """
    return {**manifest.config, "data": {**manifest.section("data"), THROUGH: through}}


def data_config(manifest: Manifest) -> DataConfig:
    """Return the `[data]` section with which a bundle's tables were read."""
    return DataConfig.model_validate(manifest.section("data"))


def versions_to_keep(manifest: Manifest) -> int:
    """Return `export.keep` of a bundle's run: the number of versions to keep."""
    return ExportConfig.model_validate(manifest.section("export")).keep


def carried_counts(bundle: Bundle, items: pl.DataFrame) -> Int32:
    """Return training interactions of new items: int32 [items], 0 if unknown.

    Args:
        bundle: bundle with the numbers for its own items.
        items: table of the new items.
    """
    rows = bundle.item_ids.rows(items[bundle.encoder.schema.item_id].to_list())
    before, counts = bundle.counts(), np.zeros(len(items), dtype=np.int32)
    if before is not None:
        counts[rows >= 0] = before[rows[rows >= 0]]
    return counts


def carried_deletions(bundle: Bundle, items: pl.DataFrame) -> pl.DataFrame:
    """Return the deletions of a bundle, except of ids that are in a table.

    Args:
        bundle: bundle with the deletions.
        items: table of the new items.
    """
    return read_deletions(bundle.folder).filter(~pl.col(ITEM_ID).is_in(items[bundle.encoder.schema.item_id].to_list()))


def encode_stored_users(encoder: FeatureEncoder, store: SqliteUsers | UserProfiles, seed: int) -> SparseRows:
    """Encode at most `QUERIES` random users without context features.

    Args:
        encoder: the model's encoder.
        store: store of users; if it is empty, the result is one anonymous user.
        seed: seed of the random generator.
    """
    found = ((user_id, store.get(user_id)) for user_id in store.sample(QUERIES, seed))
    rows = [record.encoded(encoder, user_id) for user_id, record in found if record is not None]
    return SparseRows.vstack(rows or [encoder.encode_user({}).rows])


def _parity(bundle: Bundle, writer: BundleWriter, users: SparseRows, items: SparseRows) -> Parity:
    """Compare served scores with those of the tables in float64.

    The tables were verified against the model at export.
    """
    config = ExportConfig.model_validate(bundle.manifest.section("export"))
    users = users.take(np.arange(min(config.users, len(users))))
    rng = np.random.default_rng(bundle.manifest.seed)
    picked = np.sort(rng.choice(len(items), min(config.items, len(items)), replace=False))
    scores = bundle.tables.scores(users, items.take(picked))
    return writer.check_parity("tables", users, picked, scores, config.tolerance)


def _compare_lists(old: Recommender, new: Recommender) -> tuple[int, float]:
    requests = [Request(user_id, n=TOP) for user_id in old.users.sample(SAMPLE, old.bundle.manifest.seed)]
    shares = []
    for before, after in zip(old.recommend_batch(requests), new.recommend_batch(requests), strict=True):
        ids = {item.item_id for item in before.items}
        if ids:
            shares.append(len(ids & {item.item_id for item in after.items}) / len(ids))
    return len(requests), float(np.mean(shares)) if shares else 1.0


def _report(
    old: Recommender,
    items: pl.DataFrame,
    vectors: Float32,
    published: tuple[Path, Manifest],
    compared: tuple[int, float],
    log_overlap: LogOverlap,
) -> RebuildReport:
    ids = items[old.bundle.encoder.schema.item_id]
    before = old.bundle.item_ids.rows(ids.to_list())
    known = np.flatnonzero(before >= 0)
    same = (old.bundle.item_vectors[before[known]] == vectors[known]).all(axis=1)
    removed = np.ones(len(old.bundle.item_ids), dtype=bool)
    removed[before[known]] = False
    modified = items[np.sort(np.concatenate([np.flatnonzero(before < 0), known[~same]]))]
    warnings = novelties(old.bundle.encoder, "item", to_request_values(modified).iter_rows(named=True), shown=True)
    return RebuildReport(
        *published,
        log_overlap,
        added=tuple(ids.gather(np.flatnonzero(before < 0))),
        removed=tuple(old.bundle.item_ids.values.gather(np.flatnonzero(removed))),
        changed=tuple(ids.gather(known[~same])),
        kept=int(same.sum()),
        users=compared[0],
        overlap=compared[1],
        warnings=warnings,
    )
