"""A new catalogue for a published model: no training, no torch.

A factorization machine's item vector is a weighted sum of rows, so items that training never saw are encoded with what
it learnt, and served beside the others. Everything but the items and the index is carried over from the source bundle.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from recall.data.column_types import as_held, forms
from recall.data.entities import listed
from recall.data.tables import read_items
from recall.errors import BundleError, DataError, IndexFileError, did_you_mean
from recall.features.boosts import Boosts, text_numbers
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.novelty import novelties
from recall.features.values import as_requested
from recall.models.serving.base import Parity
from recall.publish import golden
from recall.publish.index import QUERIES, QuerySample, write_index
from recall.serving.filters.columns import coded_columns
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.binding import THROUGH, LogOverlap, compare_with_log
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.profiles import UserProfiles

SAMPLE = 200
"""Stored users whose lists before and after are compared."""
TOP = 10
"""Length of those lists."""
STORED = "stored users, as they ask without a context"
"""Whose vectors the index is set up and judged with."""


@dataclass(frozen=True, slots=True)
class Published:
    """A version that was published.

    Attributes:
        folder: of the version.
        manifest: with the proofs.
        log_overlap: how the root's live changes apply to it.
    """

    folder: Path
    manifest: Manifest
    log_overlap: LogOverlap


@dataclass(frozen=True, slots=True)
class RebuildReport(Published):
    """Changes of a rebuild; its manifest has the source's sequence as `parent`.

    Attributes:
        added, removed, changed: ids of items that are new, gone, or have another vector than before, in order of rows.
        kept: number of items whose vector is the same as before.
        users: stored users whose lists were compared.
        overlap: mean share of a user's list before that is in the list after; 1 when no user is stored.
        unopened: why the source's index could not be opened; a new one was built from the vectors. Empty when it could.
        warnings: what is new to the model among added and changed items, in sentences.
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
    """Publish a bundle with a model as it is and items as they are now.

    Args:
        source: a bundle, or the root whose live version is taken.
        table: all items, with the id column, every column that an item field reads and every attribute that the source's
            configuration names: `.parquet` or `.csv`.
        root: where the new version is published. When it is also the source, its live version must not change meanwhile.
        ignore: columns of the table that no field reads and that are there on purpose.
        as_of: the table contains all live changes of the root up to this sequence; later ones stay on top of it.
        other_data: publish although no item of the source is in the table.
        activate: make it live.

    Raises:
        BundleError: the source is missing or damaged.
        ConfigError: there is no live change of that sequence.
        DataError: the table lacks a column, has one that no field reads, repeats an id, or holds no item of the source;
            nothing is published.
        ExportError: the new vectors are not finite or do not give the model's scores; nothing is published.
        PublishError: the file system refused, or another version went live meanwhile; what was live stays live.
    """
    old, unopened = open_for_another_index(resolve(source))  # the version alone: live changes stay on top of the new one
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


def open_for_another_index(path: Path, users: Literal["own"] | None = "own") -> tuple[Recommender, str]:
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
        old: the bundle; its lists, with the live changes that it contains, are compared with those of the new one.
        items: with the columns of the bundle's own.
        root: where the new version is published.
        expected: publish only if this sequence is still the live one.
        log_overlap: how the root's live changes apply to the items.
        deletions: those that have been carried out on the items; None if the items are a table of their own.
        activate: make it live.

    Raises:
        ExportError, PublishError: as `rebuild`.
    """
    with BundleWriter.open(root) as writer:
        _assemble(old, items, writer, log_overlap, deletions)
        with Recommender.load(writer.folder) as new:
            compared = _compare_lists(old, new)
        published = writer.publish(golden.record, expected, kept(old.bundle.manifest), activate)
    return _report(old, items, new.bundle.item_vectors, published, compared, log_overlap)


def _read_items(path: Path, bundle: Bundle, ignore: Sequence[str]) -> pl.DataFrame:
    encoder, schema, boosts = bundle.encoder, bundle.encoder.schema, bundle.manifest.boosts
    attributes = bundle.manifest.attributes
    table = read_items(trained_on(bundle.manifest), path)
    wanted = tuple(name for name in dict.fromkeys([*encoder.items.columns, *attributes]) if name != schema.item_id)
    for name in ignore:
        if name not in table.columns:
            raise DataError(f"column {name!r} cannot be ignored", where=str(path), hint=did_you_mean(name, table.columns))
    strange = [name for name in table.columns if name not in {schema.item_id, *wanted, *ignore}]
    if strange:
        raise DataError(
            f"no item field reads column {strange[0]!r}" + (f", nor {len(strange) - 1} others" if len(strange) > 1 else ""),
            where=str(path),
            why="it may be a misspelt one that a field does read",
            hint="Rename it, or ignore what is there on purpose: "
            f"{' '.join(f'--ignore {shlex.quote(one)}' for one in strange)}. "
            + did_you_mean(strange[0], [schema.item_id, *wanted]),
        )
    numeric = schema.number_columns("item")
    numeric |= text_numbers(boosts, [name for name in attributes if name not in encoder.items.columns], table.types)
    items = listed(table, schema.item_id, wanted, numeric, forms(schema, encoder.types)[1])
    dtypes, types = bundle.item_types(), encoder.types.items
    items = items.with_columns(
        as_held(items[name], dtypes[name], types[name]) for name in wanted if name in types and name in dtypes
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
    users = user_rows(bundle.encoder, old.users, before.seed)
    config = IndexConfig.recorded(before.config.get("index", {}))
    asked = QuerySample(bundle.tables.user_vectors(users), STORED, before.seed)
    columns = partial(coded_columns, items, bundle.encoder)
    index = write_index(writer.folder, vectors, asked, config, before.index, columns=columns)
    base = log_overlap.base
    origin = before.provenance(
        config=before.config if deletions is not None else with_through(before.config, base.compacted_through),
        folded=base.compacted_through,
        log=base.log,
    )
    parity = _parity(old.bundle, writer, users, rows)
    writer.write_manifest(origin, before.sizes.users, parity, index, before.model.fold)


def with_through(config: dict[str, JsonValue], through: int) -> dict[str, JsonValue]:
    """Return a configuration for tables that contain live changes up to a sequence.

    Args:
        config: of the run.
        through: the sequence.
    """
    data = config.get("data")
    return {**config, "data": {**(data if isinstance(data, dict) else {}), THROUGH: through}}


def trained_on(manifest: Manifest) -> DataConfig:
    """Return how the tables of a bundle's run were read, such as names of id columns."""
    return DataConfig.model_validate(manifest.config.get("data", {}))


def kept(manifest: Manifest) -> int:
    """Return the number of versions that the run of a bundle keeps."""
    return ExportConfig.model_validate(manifest.config.get("export", {})).keep


def carried_counts(bundle: Bundle, items: pl.DataFrame) -> Int32:
    """Return the training interactions of items, int32 [items]; 0 if unknown.

    Args:
        bundle: with the counts.
        items: the new catalogue.
    """
    rows = bundle.item_ids.rows(items[bundle.encoder.schema.item_id].to_list())
    before, counts = bundle.counts(), np.zeros(len(items), dtype=np.int32)
    if before is not None:
        counts[rows >= 0] = before[rows[rows >= 0]]
    return counts


def carried_deletions(bundle: Bundle, items: pl.DataFrame) -> pl.DataFrame:
    """Return the deletions of a bundle, without ids that these items contain.

    Args:
        bundle: with the deletions.
        items: the new catalogue.
    """
    return read_deletions(bundle.folder).filter(~pl.col(ITEM_ID).is_in(items[bundle.encoder.schema.item_id].to_list()))


def user_rows(encoder: FeatureEncoder, store: SqliteUsers | UserProfiles, seed: int) -> SparseRows:
    """Encode stored users as requests without context.

    Args:
        encoder: of the model.
        store: of the users; an empty one gives one anonymous user.
        seed: of the draw of at most `QUERIES` users.
    """
    found = ((user_id, store.get(user_id)) for user_id in store.sample(QUERIES, seed))
    rows = [record.encoded(encoder, user_id) for user_id, record in found if record is not None]
    return SparseRows.vstack(rows or [encoder.encode_user({}).rows])


def _parity(bundle: Bundle, writer: BundleWriter, users: SparseRows, items: SparseRows) -> Parity:
    """Compare served scores with those of the tables in float64.

    The tables were verified against the model at export.
    """
    config = ExportConfig.model_validate(bundle.manifest.config.get("export", {}))
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
    gone = np.ones(len(old.bundle.item_ids), dtype=bool)
    gone[before[known]] = False
    fresh = items[np.sort(np.concatenate([np.flatnonzero(before < 0), known[~same]]))]
    warnings = novelties(old.bundle.encoder, "item", as_requested(fresh).iter_rows(named=True), shown=True)
    return RebuildReport(
        *published,
        log_overlap,
        added=tuple(ids.gather(np.flatnonzero(before < 0))),
        removed=tuple(old.bundle.item_ids.values.gather(np.flatnonzero(gone))),
        changed=tuple(ids.gather(known[~same])),
        kept=int(same.sum()),
        users=compared[0],
        overlap=compared[1],
        warnings=warnings,
    )
