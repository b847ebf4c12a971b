"""From the files of an import to a published bundle."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
from pydantic import JsonValue

from recall._arrays import Float64
from recall.bundle import files
from recall.bundle.manifest import Provenance
from recall.bundle.writer import BundleWriter
from recall.config import ExportConfig, IndexConfig
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
from recall.publish.importers.foreign_model import ForeignModel, Mapped, Side
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

# The forms in which foreign models come, by name.

Format = Literal["libfm", "libffm", "xlearn", "lightfm", "arrays"]
FORMATS: tuple[str, ...] = get_args(Format)

_READERS: Mapping[str, Callable[[Path], ForeignModel]] = {
    "libfm": read_libfm,
    "libffm": read_libffm,
    "xlearn": read_xlearn,
    "lightfm": lambda path: read_lightfm(path).model,
    "arrays": read_fm_arrays,
}


def read_model(kind: str, path: Path, plain: bool = False) -> ForeignModel:
    """Read a model.

    Args:
        kind: one of `FORMATS`.
        path: its file.
        plain: xLearn's instances were not normalised, which its text does not tell.

    Raises:
        DataError: the file is not what it should be, or nothing says that instances were not normalised.
    """
    if kind == "xlearn" and not plain:
        raise DataError(
            "xLearn divides scores by |x|^2 of each instance by default, and its text does not say whether it did",
            where=str(path),
            why="no inner product of a user's and an item's vector gives such a score",
            hint="Add --no-norm if the model was trained with --no-norm (disableNorm); otherwise train it so",
        )
    return _READERS[kind](path)


# A foreign model as a published bundle, proved against its own definition.

_PROVED_USERS, _PROVED_ITEMS = 64, 256  # every pair by itself, feature by feature: a second or two
_SEED = 0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Users and items that a model is served for.

    Attributes:
        items: all items; None when the mapping's item ids are all there are.
        users: all users that are to be known; None when the mapping's user ids are.
        user_id, item_id: the id columns.
    """

    items: Table | None
    users: Table | None
    user_id: str = "user_id"
    item_id: str = "item_id"


@dataclass(frozen=True, slots=True)
class ImportReport(Published):
    """Result of an import.

    Attributes:
        unknown: by item field, how many rows of the catalogue hold a value that the mapping does not name.
    """

    unknown: Mapping[str, int]


def import_model(
    model: ForeignModel, mapped: Mapped, catalogue: Catalogue, root: Path, name: str, source: Mapping[str, JsonValue]
) -> ImportReport:
    """Publish a foreign model as a bundle.

    Random users and items are scored twice: as they are served, and by the model's definition from their plain values.

    Args:
        model: the parameters.
        mapped: what its features are; already checked against the model.
        catalogue: users and items.
        root: where versions are published.
        name: of the bundle.
        source: recorded in the manifest.

    Raises:
        DataError: a table lacks a column or an id, or there are no items.
        ExportError: what would be served is not what the model says; nothing is published.
        PublishError: the file system refused.
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
        picked = np.sort(np.random.default_rng(_SEED).permutation(len(vectors))[:_PROVED_ITEMS])
        proved = users.take(np.arange(min(_PROVED_USERS, len(users))))
        scores = _scores(model, mapped, sample[: len(proved)], to_request_values(dataset.items[picked]), dataset.types)
        parity = writer.check_parity("model", proved, picked, scores, config.tolerance)
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
    return ImportReport(published, manifest, log_overlap, _unknown(encoder, rows))


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
    having = catalogue.users.columns if catalogue.users is not None else []
    own = [name for name in columns if name in having and name != catalogue.user_id]
    context = [name for name in columns if name not in having and name != catalogue.user_id]
    return _listed(mapped, catalogue.users, catalogue.user_id, own, numeric, forms_), own, context


def _listed(
    mapped: Mapped, table: Table | None, id_column: str, columns: Sequence[str], numeric: set[str], forms_: ColumnForms
) -> pl.DataFrame:
    """Return the rows of a table, or else the ids that the mapping names."""
    if table is not None:
        return read_entities(table, id_column, tuple(columns), numeric, forms_)
    if columns:
        raise DataError(f"field {columns[0]!r} needs a table that has it", where="items", hint="Give the items with --items")
    return pl.DataFrame({id_column: pl.Series([one.value for one in mapped.fields.get(id_column, ())], dtype=pl.String)})


def _requests(store: Path, encoder: FeatureEncoder, mapped: Mapped, count: int) -> list[dict[str, object]]:
    """Return users from the store as plain values, each in a random context.

    An anonymous one where none is stored.
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
    """Return a random value of every context field, sometimes none."""
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
    """Return the score of every pair by definition: [users, items]."""
    of_users, of_items = MappedFeatures(mapped, "user", types.users), MappedFeatures(mapped, "item", types.items)
    item_entries = [of_items.entries(values) for values in items.iter_rows(named=True)]
    scores = [[model.score(user, item) for item in item_entries] for user in map(of_users.entries, users)]
    return np.array(scores, dtype=np.float64)


def _unknown(encoder: FeatureEncoder, rows: SparseRows) -> dict[str, int]:
    found = {block.field: int((rows.indices == block.offset + UNKNOWN).sum()) for block in encoder.item_blocks}
    return {name: count for name, count in found.items() if count}


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
        kind: one of `recall.publish.importers.importer.FORMATS`.
        file: the model.
        mapping: the features; optional for a LightFM file only.
        items: table of items; default: the ids that the mapping names.
        users: table of users; default: the ids that the mapping names.
        root: where versions are published.
        name: of the bundle.
        ids: id columns of users and of items.
        plain: see `read_model`.

    Raises:
        DataError: A file is invalid.
        ExportError: Serving does not reproduce the model's scores; nothing is published.
        PublishError: The file system refused.
    """
    user_id, item_id = ids
    source: dict[str, JsonValue] = {"format": kind, "model": file.name}
    if mapping is None and kind == "lightfm":
        if items is not None or users is not None:
            raise DataError(
                "tables of users and items need a mapping",
                where="--mapping",
                hint="Say what each feature is, or leave them out",
            )
        read = read_lightfm(file)
        mapped, user_frame, item_frame = read.described(user_id, item_id)
        catalogue = Catalogue(
            Table(file, item_frame.lazy(), item_frame.schema),
            Table(file, user_frame.lazy(), user_frame.schema),
            user_id,
            item_id,
        )
        return import_model(read.model, mapped, catalogue, root, name, source)
    if mapping is None:
        raise DataError(
            "nothing says what the features are", where="--mapping", hint="Give a table with feature, side, field and value"
        )
    model = read_model(kind, file, plain)
    mapped = read_mapping(mapping, field_aware=model.kind == "ffm")
    mapped.check(model, str(mapping))
    catalogue = Catalogue(
        None if items is None else read_table(items), None if users is None else read_table(users), user_id, item_id
    )
    return import_model(model, mapped, catalogue, root, name, {**source, "mapping": mapping.name})
