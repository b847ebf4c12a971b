"""Open a bundle: arrays are mapped from their files, the rest is read into memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from polars.datatypes import DataType
from polars.exceptions import PolarsError

from recall._arrays import Float32, Int32, Int64
from recall._tensors import check_finite, check_vectors, map_any, map_tensors
from recall._text_table import ARRAYS, TextTable
from recall.bundle import files
from recall.bundle.files import SUFFIX, kept_shapes, unpacked
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.versions import VERSION, resolve
from recall.errors import BundleError, DataError, PublishError, raising
from recall.features.encoder import FeatureEncoder
from recall.models.serving.base import ServingModel
from recall.models.serving.layout import Layout

MAX_CACHED = 128 << 20
"""Size in bytes up to which a table stays in memory after its first use; larger ones are read each time."""
_MAX_GAP = 1 << 16
"""Row gap above which two slices are read separately. Chosen, not tuned."""


class ItemTable:
    """Rows of a Parquet table; a small table is cached at the first read. Thread-safe."""

    def __init__(self, path: Path, max_cached: int = MAX_CACHED) -> None:
        """Read nothing yet.

        Args:
            path: a Parquet file, which never changes.
            max_cached: size in bytes up to which the whole table is cached.
        """
        self._path = path
        self._max_cached = max_cached

    def rows(self, rows: Int64) -> pl.DataFrame:
        """Return some rows, int64 [m], in that order.

        Raises:
            BundleError: The file cannot be read.
        """
        with _reading(self._path):
            return self._cached[rows] if self._cached is not None else self._read_slices(rows)

    @cached_property
    def _cached(self) -> pl.DataFrame | None:
        """The whole table; None if it is too large."""
        if self._path.stat().st_size > self._max_cached:  # in memory it is at least as large
            return None
        table = pl.read_parquet(self._path)
        return table if table.estimated_size() <= self._max_cached else None

    def _read_slices(self, rows: Int64) -> pl.DataFrame:
        """Read the slices of the file that have the rows."""
        distinct = np.unique(rows)
        table = pl.scan_parquet(self._path)
        slices = [
            table.slice(int(near[0]), int(near[-1] - near[0]) + 1).collect()[near - near[0]]
            for near in np.split(distinct, np.flatnonzero(np.diff(distinct) > _MAX_GAP) + 1)
            if len(near)
        ]
        return (pl.concat(slices) if slices else table.head(0).collect())[np.searchsorted(distinct, rows)]


_INVALID_STATE = (ValueError, LookupError, TypeError, AttributeError, PolarsError, DataError)
"""Errors of reading an encoder's state that is not valid."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A published model with its items.

    Attributes:
        folder: path of the folder.
        manifest: contents and provenance.
        encoder: encodes requests and items as feature rows.
        tables: the model's parameters.
        item_vectors: float32 [items, dim], mapped from the file.
        item_ids: ids of the rows of `item_vectors`.
        item_table: reads single rows of `items`.
    """

    folder: Path
    manifest: Manifest
    encoder: FeatureEncoder
    tables: ServingModel
    item_vectors: Float32
    item_ids: TextTable
    item_table: ItemTable

    def items(self) -> pl.DataFrame:
        """Return the table of items [items]: id, columns of item fields, attributes.

        Raises:
            BundleError: The file cannot be read.
        """
        return _read_parquet(self.folder / files.ITEMS)

    def item_column(self, name: str) -> pl.Series:
        """Return one column of `items`, without reading others. Raises BundleError."""
        return _read_parquet(self.folder / files.ITEMS, [name])[name]

    def counts(self) -> Int32 | None:
        """Return the training interactions of each item, int32 [items], mapped.

        They are 0 in an imported bundle, and None for a bundle of format 1 or 2.

        Raises:
            BundleError: The file cannot be read.
        """
        if self.manifest.format_version < 3:
            return None
        return map_tensors(self.folder / files.COUNTS, {}, {"counts": (self.manifest.sizes.items,)})["counts"]

    def checks(self) -> tuple[Float32, Int32] | None:
        """Return the queries of the index check, and their answers.

        Returns:
            User vectors float32 [c, dim] and the best rows for each, int32 [c, n]; None for a bundle of format 1 or 2.

        Raises:
            BundleError: The file cannot be read.
        """
        record = self.manifest.index.checks
        if record is None:
            return None
        queries, rows = {"queries": (record.queries, self.tables.dim)}, {"rows": (record.queries, record.n)}
        found = map_tensors(self.folder / files.CHECKS, queries, rows)
        return found["queries"], found["rows"]

    def item_types(self) -> Mapping[str, DataType]:
        """Return the types of the columns of `items`, without reading rows.

        Raises:
            BundleError: The file cannot be read.
        """
        path = self.folder / files.ITEMS
        with _reading(path):
            return pl.read_parquet_schema(path)

    @property
    def users_file(self) -> Path:
        """Path of the SQLite file of the users."""
        return self.folder / files.USERS

    @property
    def index_file(self) -> Path | None:
        """The file of the index; None if its engine keeps no local file."""
        name = self.manifest.index.file
        return self.folder / name if name is not None else None

    def some_items(self, rows: Int64) -> pl.DataFrame:
        """Return some rows of `items`, int64 [m], in that order.

        Raises:
            BundleError: The file cannot be read.
        """
        return self.item_table.rows(rows)


def load_bundle(path: Path, *, verify: bool = True, index: bool = True, users: bool = True) -> Bundle:
    """Open a bundle.

    Args:
        path: the folder of a bundle, or a root of published versions.
        verify: compare SHA-256 of every file, and check that numbers are finite and not too large. If False, only names, sizes
            and shapes are checked, which is enough for a folder that another process of this machine has just verified.
        index: also check the index file. If False, the bundle can be opened although that file is damaged or missing.
        users: also check the file of users.

    Raises:
        BundleError: It is missing, damaged, of a newer format, or its parts do not fit together.
    """
    folder = resolve(path)
    manifest = Manifest.read(folder)
    if VERSION.fullmatch(folder.name) and folder.name != manifest.version:
        raise BundleError(
            f"the folder is called {folder.name}, its manifest says {manifest.version}",
            where=str(folder / MANIFEST),
            hint="The manifest belongs to another bundle; publish again",
        )
    unchecked = frozenset() if index or manifest.index.file is None else frozenset({manifest.index.file})
    unchecked |= frozenset() if users else {files.USERS}
    files.check_names(folder, manifest, unchecked)
    checked = {name: entry for name, entry in manifest.files.items() if name not in unchecked}
    files.check_contents(folder, checked, digests=verify)
    lookup = _map_lookup(folder, manifest)
    encoder = _read_encoder(folder, lookup, verify=verify)
    _check_encoder(folder, encoder, manifest)
    tables = _map_tables(folder, encoder, manifest)
    vectors = map_tensors(folder / files.ITEM_VECTORS, {"item_vectors": (manifest.sizes.items, tables.dim)})
    if verify:
        check_finite(folder / files.TABLES, tables.arrays())
        check_vectors(folder / files.ITEM_VECTORS, vectors["item_vectors"])
    ids, table = _read_ids(folder, manifest, lookup, verify=verify), ItemTable(folder / files.ITEMS)
    bundle = Bundle(folder, manifest, encoder, tables, vectors["item_vectors"], ids, table)
    bundle.counts()  # an unreadable file is an error now, not when a request needs it
    return bundle


def _map_tables(folder: Path, encoder: FeatureEncoder, manifest: Manifest) -> ServingModel:
    model, sizes = manifest.model, manifest.sizes
    users, items = encoder.user_fields, encoder.item_fields
    layout = Layout(model.kind, sizes.k, model.fold.rank if model.fold is not None else None, model.cosine, model.popularity)
    shapes = layout.shapes(users, items)
    stored, rows = kept_shapes(shapes, model.kept), {name + SUFFIX: (count,) for name, count in model.kept.items()}
    found = map_tensors(folder / files.TABLES, stored, rows)
    arrays = unpacked({name: found[name] for name in stored}, {name: found[name] for name in rows}, shapes)
    tables = layout.tables(arrays, users, items)
    if tables.dim != sizes.dim:
        raise BundleError(
            f"the manifest has vectors of {sizes.dim} numbers, the model's have {tables.dim}",
            where=str(folder / MANIFEST),
        )
    return tables


def _map_lookup(folder: Path, manifest: Manifest) -> dict[str, TextTable]:
    """Map the tables of large vocabularies and of item ids."""
    path = folder / files.LOOKUP
    if files.LOOKUP not in manifest.files:
        return {}
    with raising(BundleError, "the table of ids cannot be read", where=str(path), of=(ValueError, LookupError, TypeError)):
        arrays = map_any(path)
        names = {name.rpartition(".")[0] for name in arrays}
        return {name: TextTable.mapped({part: arrays[f"{name}.{part}"] for part in ARRAYS}) for name in names}


def _check_lookup(folder: Path, table: TextTable, values: pl.Series, what: str) -> None:
    if not table.holds(values):
        raise BundleError(f"the table of ids does not hold {what}", where=str(folder / files.LOOKUP), hint=files.DAMAGE_HINT)


def _read_encoder(folder: Path, lookup: Mapping[str, TextTable], *, verify: bool) -> FeatureEncoder:
    path = folder / files.ENCODER
    tables = {name.removeprefix(files.FIELD): table for name, table in lookup.items() if name.startswith(files.FIELD)}
    vocabularies = _read_parquet(folder / files.VOCABULARIES)
    try:
        if tables:
            field, mapped = pl.col("field"), list(tables)
            for name in mapped if verify else ():
                values = vocabularies.filter(field == name)["value"]
                _check_lookup(folder, tables[name], values, f"the values of field {name!r}")
            others = vocabularies.filter(~field.is_in(mapped)).to_dict(as_series=False)  # a copy, which frees all other texts
            vocabularies = pl.DataFrame(others, schema=vocabularies.schema)
        return FeatureEncoder.from_state(orjson.loads(path.read_bytes()), vocabularies, tables)
    except _INVALID_STATE as error:
        raise BundleError("the encoder cannot be read", where=str(path), why=f"{type(error).__name__}: {error}") from None


def _check_encoder(folder: Path, encoder: FeatureEncoder, manifest: Manifest) -> None:
    fingerprints = {encoder.schema.fingerprint(), manifest.schema_.fingerprint(), manifest.schema_fingerprint}
    if len(fingerprints) > 1:
        raise BundleError(
            "the encoder was fitted for another schema than the manifest's",
            where=str(folder / files.ENCODER),
            why=f"fingerprint {encoder.schema.fingerprint()}, expected {manifest.schema_fingerprint}",
        )
    found = (encoder.n_user_features, encoder.n_item_features)
    expected = (manifest.sizes.n_user_features, manifest.sizes.n_item_features)
    if found != expected:
        raise BundleError(
            f"the encoder has {found[0]} user and {found[1]} item features, the manifest says {expected[0]} and {expected[1]}",
            where=str(folder / files.ENCODER),
        )
    names = (encoder.user_fields.names, encoder.item_fields.names)
    if manifest.format_version > 1 and names != (manifest.model.user_fields, manifest.model.item_fields):
        raise BundleError(
            "the encoder's fields are not those that the manifest names",
            where=str(folder / files.ENCODER),
            why=f"found {names}, expected {(manifest.model.user_fields, manifest.model.item_fields)}",
        )


def _read_ids(folder: Path, manifest: Manifest, lookup: Mapping[str, TextTable], *, verify: bool) -> TextTable:
    path, column, table = folder / files.ITEMS, manifest.schema_.item_id, lookup.get(files.ITEM_TABLE)
    if table is not None and not verify:
        return table
    values = _read_parquet(path, [column])[column]
    if len(values) != manifest.sizes.items or values.dtype != pl.String:
        raise BundleError(
            f"column {column!r} holds {len(values)} ids of type {values.dtype}, expected {manifest.sizes.items} texts",
            where=str(path),
        )
    if table is not None:
        _check_lookup(folder, table, values, "the ids of the items")
        return table
    try:
        return TextTable.of(values)
    except DataError as error:
        raise BundleError(error.what, where=str(path)) from None


def _read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    with _reading(path):
        return pl.read_parquet(path, columns=columns)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with raising(BundleError, "the table cannot be read", where=str(path), of=(PolarsError, OSError)):
        yield


ITEM_ID, SEQUENCE = "item_id", "sequence"
SCHEMA = {ITEM_ID: pl.String(), SEQUENCE: pl.Int64()}
"""Schema of a table with one row for each deleted item: its id, and the sequence of the deletion in the manifest's log."""


def no_deletions() -> pl.DataFrame:
    """Return an empty table of deletions."""
    return pl.DataFrame(schema=SCHEMA)


def write_deletions(folder: Path, deletions: pl.DataFrame) -> None:
    """Write the deletions of a new bundle; without deletions, no file is written.

    Args:
        folder: folder of the bundle.
        deletions: table with the columns of `SCHEMA` and distinct ids.

    Raises:
        PublishError: Writing failed.
    """
    if deletions.is_empty():
        return
    path = folder / files.DELETIONS
    with raising(PublishError, "the deletions could not be written", where=str(path), of=(OSError, PolarsError)):
        deletions.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).write_parquet(path)


def read_deletions(folder: Path) -> pl.DataFrame:
    """Return the deletions of a bundle, possibly none, with the columns of `SCHEMA`.

    Raises:
        BundleError: The file cannot be read or has other columns.
    """
    path = folder / files.DELETIONS
    if not path.exists():
        return no_deletions()
    found = _read_parquet(path)
    if dict(found.schema) != SCHEMA or found.null_count().sum_horizontal().item() or not found[ITEM_ID].is_unique().all():
        raise BundleError("the table is not one of deletions", where=str(path), why=f"its columns are {dict(found.schema)}")
    return found
