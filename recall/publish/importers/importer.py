"""Import a model of another program: from its files to a published bundle."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import JsonValue

from recall._arrays import Float64
from recall.bundle import files
from recall.bundle.manifest import Provenance
from recall.bundle.writer import BundleWriter
from recall.config import ExportConfig, IndexConfig
from recall.config.schema import Side
from recall.data.columns import column_forms
from recall.data.dataset import Dataset
from recall.data.entities import read_entities
from recall.data.tables import Table, read_table
from recall.errors import DataError
from recall.features.canonical import CanonicalTypes, ColumnForms
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.values import to_request_values
from recall.features.vocabulary import UNKNOWN
from recall.publish import golden
from recall.publish.importers.array_formats import read_fm_arrays, read_lightfm
from recall.publish.importers.foreign_model import ForeignModel, Mapped
from recall.publish.importers.mapping import (
    MappedFeatures,
    canonical_mapping,
    encoder_of,
    find_types,
    read_mapping,
    schema_of,
    tables_of,
)
from recall.publish.importers.text_formats import read_libffm, read_libfm, read_xlearn
from recall.publish.index import QUERIES, QuerySample, write_index
from recall.publish.rebuild import Published
from recall.store.items.log_overlap import compare_with_log
from recall.store.users.bundle_users import SqliteUsers, write_user_store

READERS: Mapping[str, Callable[[Path], ForeignModel]] = {
    "libfm": read_libfm,
    "libffm": read_libffm,
    "xlearn": read_xlearn,
    "lightfm": lambda path: read_lightfm(path).model,
    "arrays": read_fm_arrays,
}
"""Reader of each format, by name."""


def read_model(kind: str, path: Path, plain: bool = False) -> ForeignModel:
    """Read a model.

    Args:
        kind: a key of `READERS`.
        path: path of the file.
        plain: the user states that xLearn did not normalise instances, which its file does not record.

    Raises:
        DataError: The file is invalid, or xLearn may have normalised instances.
    """
    if kind == "xlearn" and not plain:
        raise DataError(
            "xLearn divides scores by |x|^2 of each instance by default, and its text does not say whether it did",
            where=str(path),
            why="no inner product of a user's and an item's vector gives such a score",
            hint="Add --no-norm if the model was trained with --no-norm (disableNorm); otherwise train it so",
        )
    return READERS[kind](path)


_PARITY_USERS, _PARITY_ITEMS = 64, 256  # users and items of the parity check, which takes a second or two
_SEED = 0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Users and items of a bundle.

    Attributes:
        items: table of all items; None for the item ids in the mapping.
        users: table of all known users; None for the user ids in the mapping.
        user_id, item_id: names of the id columns.
    """

    items: Table | None
    users: Table | None
    user_id: str = "user_id"
    item_id: str = "item_id"


@dataclass(frozen=True, slots=True)
class ImportReport(Published):
    """Result of an import.

    Attributes:
        unknown: number of items with a value that is not in the mapping, by item field.
    """

    unknown: Mapping[str, int]


def import_model(
    model: ForeignModel, mapped: Mapped, catalogue: Catalogue, root: Path, name: str, source: Mapping[str, JsonValue]
) -> ImportReport:
    """Publish a foreign model as a bundle.

    The scores of random users and items that serving computes are compared with those of the model's definition.

    Args:
        model: the foreign model.
        mapped: mapping of its features, checked against the model.
        catalogue: users and items.
        root: root to publish to.
        name: name of the bundle.
        source: description of the source for the manifest.

    Raises:
        DataError: A table lacks a column or an id, or there are no items.
        ExportError: Serving does not reproduce the model's scores; nothing is published.
        PublishError: Writing failed.
    """
    dataset, mapped = _dataset(mapped, catalogue)
    encoder = encoder_of(mapped, dataset.schema, dataset.context_columns, dataset.types)
    tables = tables_of(model, mapped, encoder)
    rows = encoder.encode_items(dataset.items)
    config = ExportConfig()
    log_overlap = compare_with_log(root, dataset.items[catalogue.item_id].to_list())
    with BundleWriter.open(root) as writer:
        vectors = tables.item_vectors(rows)
        writer.write_contents(encoder, tables, vectors, dataset.items, np.zeros(len(vectors), dtype=np.int32))
        write_user_store(writer.folder / files.USERS, dataset)
        sample = _requests(writer.folder / files.USERS, encoder, mapped, QUERIES)
        users = SparseRows.vstack(encoder.encode_user(values).rows for values in sample)
        drawn = QuerySample(tables.user_vectors(users), "users of the catalogue, in contexts drawn at random", _SEED)
        index = write_index(writer.folder, vectors, drawn, IndexConfig())
        item_rows = np.sort(np.random.default_rng(_SEED).permutation(len(vectors))[:_PARITY_ITEMS])
        compared = users.take(np.arange(min(_PARITY_USERS, len(users))))
        scores = _scores(model, mapped, sample[: len(compared)], to_request_values(dataset.items[item_rows]), dataset.types)
        parity = writer.check_parity("model", compared, item_rows, scores, config.tolerance)
        base = log_overlap.base
        origin = Provenance(
            name=name,
            data_hash=dataset.fingerprint(),
            seed=_SEED,
            config={"import": dict(source)},
            folded=base.compacted_through,
            log=base.log,
        )
        writer.write_manifest(origin, len(dataset.users), parity, index)
        published, manifest = writer.publish(golden.record, keep=config.keep)
    return ImportReport(published, manifest, log_overlap, _count_unknown(encoder, rows))


def _dataset(mapped: Mapped, catalogue: Catalogue) -> tuple[Dataset, Mapped]:
    """Return users and items without interactions, and the canonical mapping."""
    schema = schema_of(mapped, catalogue.user_id, catalogue.item_id)
    raw: dict[Side, pl.DataFrame | None] = {"user": None, "item": None}
    described: dict[Side, tuple[Table | None, str]] = {
        "user": (catalogue.users, catalogue.user_id),
        "item": (catalogue.items, catalogue.item_id),
    }
    for side, (table, key) in described.items():
        fields = [name for name, members in mapped.fields.items() if members[0].side == side]
        if table is not None:
            raw[side] = table.collect([key, *(one for one in fields if one in table.columns)])
    types = find_types(mapped, schema, raw)
    mapped = canonical_mapping(mapped, types)
    user_forms, item_forms = column_forms(schema, types)
    columns: dict[Side, list[str]] = {"user": [], "item": []}
    numeric = {name for name, field in schema.fields.items() if field.reads_numbers}
    for name, members in mapped.fields.items():
        columns[members[0].side] += [name] if members[0].weights is None else [name, members[0].weights]
    users, user_columns, context = _users(mapped, catalogue, columns["user"], numeric, user_forms)
    item_columns = [name for name in columns["item"] if name != catalogue.item_id]
    items = _listed(mapped, catalogue.items, catalogue.item_id, item_columns, numeric, item_forms)
    if items.is_empty():
        raise DataError(
            "there are no items",
            where="items" if catalogue.items is None else str(catalogue.items.path),
            hint=f"Give a table of all items, or map the values of a field {catalogue.item_id!r}",
        )
    dtypes = {"user": pl.Int32(), "item": pl.Int32(), "weight": pl.Float32(), "split": pl.Int8()}
    events = pl.DataFrame(schema={**dtypes, **{one: pl.Float64() if one in numeric else pl.String() for one in context}})
    dataset = Dataset(schema, events, users, items, tuple(context), tuple(user_columns), tuple(item_columns), types=types)
    return dataset, mapped


def _users(
    mapped: Mapped, catalogue: Catalogue, columns: Sequence[str], numeric: set[str], forms_: ColumnForms
) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Return the users, their columns, and the context columns."""
    stored = catalogue.users.columns if catalogue.users is not None else []
    own = [name for name in columns if name in stored and name != catalogue.user_id]
    context = [name for name in columns if name not in stored and name != catalogue.user_id]
    return _listed(mapped, catalogue.users, catalogue.user_id, own, numeric, forms_), own, context


def _listed(
    mapped: Mapped, table: Table | None, id_column: str, columns: Sequence[str], numeric: set[str], forms_: ColumnForms
) -> pl.DataFrame:
    """Return the rows of a table, or without one the ids in the mapping."""
    if table is not None:
        return read_entities(table, id_column, tuple(columns), numeric, forms_)
    if columns:
        raise DataError(f"field {columns[0]!r} needs a table that has it", where="items", hint="Give the items with --items")
    ids = [feature.value for feature in mapped.fields.get(id_column, ())]
    return pl.DataFrame({id_column: pl.Series(ids, dtype=pl.String)})


def _requests(store: Path, encoder: FeatureEncoder, mapped: Mapped, count: int) -> list[dict[str, object]]:
    """Return the values of random stored users, each in a random context.

    Without stored users, these are anonymous.
    """
    rng = np.random.default_rng(_SEED)
    with closing(SqliteUsers(store)) as users:
        ids: list[str | None] = list(users.sample(count, _SEED)) or [None] * count
        requests = []
        for user_id in ids:
            record = users.get(user_id) if user_id is not None else None
            values: dict[str, object] = dict(record.features) if record is not None else {}
            if user_id is not None and encoder.schema.user_id in mapped.fields:
                values[encoder.schema.user_id] = user_id
            requests.append(values | _context(encoder, mapped, rng))
    return requests


def _context(encoder: FeatureEncoder, mapped: Mapped, rng: np.random.Generator) -> dict[str, object]:
    """Return random values of most context fields."""
    values: dict[str, object] = {}
    for name, members in mapped.fields.items():
        if name not in encoder.context_columns or rng.random() < 0.1:
            continue
        if members[0].kind == "numeric":
            values[name] = float(rng.standard_normal())
            continue
        drawn = [members[place].value for place in rng.choice(len(members), min(len(members), 3), replace=False)]
        values[name] = drawn if members[0].kind == "bag" else drawn[0]
        if members[0].weights is not None:
            values[members[0].weights] = rng.standard_normal(len(drawn)).tolist()
    return values


def _scores(
    model: ForeignModel,
    mapped: Mapped,
    users: Sequence[Mapping[str, object]],
    items: pl.DataFrame,
    types: CanonicalTypes,
) -> Float64:
    """Return the score of each pair by the model's definition: float64 [users, items]."""
    user_features, item_features = MappedFeatures(mapped, "user", types.users), MappedFeatures(mapped, "item", types.items)
    item_rows = [item_features.encode(values) for values in items.iter_rows(named=True)]
    scores = [[model.score(user, item) for item in item_rows] for user in map(user_features.encode, users)]
    return np.array(scores, dtype=np.float64)


def _count_unknown(encoder: FeatureEncoder, rows: SparseRows) -> dict[str, int]:
    counts = {block.field: int((rows.indices == block.offset + UNKNOWN).sum()) for block in encoder.item_blocks}
    return {name: count for name, count in counts.items() if count}


def run_import(
    kind: str,
    file: Path,
    mapping: Path | None,
    items: Path | None,
    users: Path | None,
    root: Path,
    name: str,
    ids: tuple[str, str] = ("user_id", "item_id"),
    plain: bool = False,
) -> ImportReport:
    """Read a foreign model and publish it.

    Args:
        kind: a key of `READERS`.
        file: path of the model.
        mapping: path of the mapping of its features; optional for a LightFM file only.
        items: path of the table of items; by default, items are the ids in the mapping.
        users: path of the table of users; by default, users are the ids in the mapping.
        root: root to publish to.
        name: name of the bundle.
        ids: names of the id columns of users and of items.
        plain: as for `read_model`.

    Raises:
        DataError: A file is invalid.
        ExportError: Serving does not reproduce the model's scores; nothing is published.
        PublishError: Writing failed.
    """
    user_id, item_id = ids
    source: dict[str, JsonValue] = {"format": kind, "model": file.name}
    if mapping is None and kind == "lightfm":
        if items is not None or users is not None:
            raise DataError(
                "tables of users and items need a mapping",
                where="--mapping",
                hint="Give --mapping, or leave the tables out",
            )
        read = read_lightfm(file)
        mapped, user_frame, item_frame = read.describe_features(user_id, item_id)
        catalogue = Catalogue(
            Table(file, item_frame.lazy(), item_frame.schema),
            Table(file, user_frame.lazy(), user_frame.schema),
            user_id,
            item_id,
        )
        return import_model(read.model, mapped, catalogue, root, name, source)
    if mapping is None:
        raise DataError(
            "the meaning of the features is unknown", where="--mapping", hint="Give a table with feature, side, field and value"
        )
    model = read_model(kind, file, plain)
    mapped = read_mapping(mapping, field_aware=model.kind == "ffm")
    mapped.check(model, str(mapping))
    catalogue = Catalogue(
        None if items is None else read_table(items), None if users is None else read_table(users), user_id, item_id
    )
    return import_model(model, mapped, catalogue, root, name, {**source, "mapping": mapping.name})
