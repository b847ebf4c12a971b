"""Write and publish a bundle; shared by training, rebuilding and importing."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
from polars.exceptions import PolarsError
from safetensors import SafetensorError

from recall._arrays import Float32, Float64, Int32, Integers
from recall._tensors import servable, write_tensors
from recall._text_table import FEW, TextTable
from recall.bundle import files
from recall.bundle.files import kept_rows, link_or_copy, packed
from recall.bundle.manifest import ColumnTypes, FoldRecord, Manifest, ModelRecord, Provenance, Sizes
from recall.bundle.versions import publish, staging
from recall.errors import ExportError, PublishError, raising
from recall.features.canonical import UNTYPED
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.index.record import IndexRecord
from recall.models.serving.base import Parity, ServingModel, check_parity
from recall.models.serving.layout import Layout

_LIBRARIES = ("fm-recall", "faiss-cpu", "numpy", "polars", "safetensors", "torch")


def check_items(item_vectors: Float32, item_ids: pl.Series) -> None:
    """Check that every item vector is `servable`.

    Args:
        item_vectors: float32 [items, dim].
        item_ids: String [items], used in the error.

    Raises:
        ExportError: A vector is not finite, or too large; names up to five items.
    """
    wrong = np.flatnonzero(~servable(item_vectors))
    if len(wrong):
        raise ExportError(
            f"the vectors of {len(wrong)} of {len(item_vectors)} items hold NaN or an infinity, or are too large to be scored",
            where="items " + ", ".join(repr(item_ids[int(row)]) for row in wrong[:5]),
            hint="Nothing was published. Check the training metrics and these items' features",
        )


def check_tables(tables: ServingModel) -> None:
    """Check that every parameter is finite.

    Raises:
        ExportError: A parameter is not finite; the message names the array and its first such row.
    """
    for name, values in tables.arrays().items():
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if len(wrong):
            raise ExportError(
                f"array {name!r} holds NaN or an infinity in {len(wrong)} of {len(values)} rows",
                where=f"row {wrong[0]}",
                hint="Nothing was published. Check the training metrics: the model diverged",
            )


class BundleWriter:
    """Writer of one bundle in a staging folder.

    The steps are `write_contents`, the users, the deletions, the index, `check_parity`, `write_manifest` and `publish`, in
    this order. Users, deletions and index are written to `folder` by their own modules.

    Attributes:
        root: root of published versions.
        folder: staging folder with the files written so far.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        """Create a writer; use `BundleWriter.open`.

        Args:
            root: root of published versions.
            folder: the staging folder.
        """
        self.root = root
        self.folder = folder

    @classmethod
    @contextmanager
    def open(cls, root: Path) -> Iterator["BundleWriter"]:
        """Open a writer; its folder is removed at the end unless it was published.

        Raises:
            PublishError: The folder cannot be created.
        """
        with staging(root) as folder:
            yield cls(root, folder)

    def write_contents(
        self, encoder: FeatureEncoder, tables: ServingModel, item_vectors: Float32, items: pl.DataFrame, counts: Int32
    ) -> None:
        """Write every file but the users, the deletions, the index and the manifest.

        Args:
            encoder: encoder of the model's features.
            tables: the model's parameters.
            item_vectors: float32 [items, dim].
            items: table [items] with the id column, the columns that item fields read, and the attributes, in the order of the
                vectors.
            counts: int32 [items], numbers of training interactions; 0 if unknown.

        Raises:
            ExportError: A vector or a parameter is not finite.
            PublishError: Writing failed.
        """
        check_items(item_vectors, items[encoder.schema.item_id])
        check_tables(tables)
        self._encoder, self._tables, self._vectors = encoder, tables, item_vectors
        values, vocabularies = encoder.state()
        folder = self.folder
        with raising(
            PublishError, "the bundle could not be written", where=str(folder), of=(OSError, PolarsError, SafetensorError)
        ):
            (folder / files.ENCODER).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
            vocabularies.write_parquet(folder / files.VOCABULARIES)
            items.write_parquet(folder / files.ITEMS)
            write_tensors(folder / files.ITEM_VECTORS, {"item_vectors": item_vectors})
            write_tensors(folder / files.COUNTS, {"counts": counts})
            write_tensors(folder / files.TABLES, packed(tables.arrays()))
            lookup = _lookup(encoder, items[encoder.schema.item_id])
            if lookup:
                write_tensors(folder / files.LOOKUP, lookup)

    def link(self, file: Path) -> None:
        """Add a file of another version by a hard link, or by a copy. Raises PublishError."""
        self._add(file, link_or_copy)

    def copy(self, file: Path) -> None:
        """Add a copy of a file of another bundle. Raises PublishError."""
        self._add(file, shutil.copyfile)

    def _add(self, file: Path, add: Callable[[Path, Path], object]) -> None:
        place = self.folder / file.name
        with raising(PublishError, "a file could not be copied", where=str(place)):
            add(file, place)

    def check_parity(
        self,
        reference: Literal["model", "tables"],
        users: SparseRows,
        items: Integers,
        scores: Float64,
        tolerance: float,
    ) -> Parity:
        """Compare the scores that will be served with those of a reference.

        Args:
            reference: source of the scores: the trained model, or the tables of the source bundle.
            users: u rows in the user feature space, encoded as for requests.
            items: integer [i], rows of items.
            scores: float64 [u, i], scores of the reference.
            tolerance: maximum relative error.

        Raises:
            ExportError: A score is not finite, an error exceeds the tolerance, or rankings differ by more than ties.
        """
        served, offset = self._tables.user_vectors(users), self._tables.user_offset(users)
        return check_parity(served, offset, self._vectors[items], scores, tolerance, reference)

    def write_manifest(
        self, origin: Provenance, users: int, parity: Parity, index: IndexRecord, fold: FoldRecord | None = None
    ) -> None:
        """Write the manifest, after all other files.

        Args:
            origin: provenance of the bundle.
            users: number of stored users.
            parity: result of `check_parity`.
            index: record of the index and its verification.
            fold: error of folding a field-weighted model; None for other models.

        Raises:
            PublishError: Writing failed.
        """
        encoder, tables = self._encoder, self._tables
        Manifest(
            **{**dict(origin), "columns": origin.columns if origin.columns is not None else _columns(encoder)},
            sequence=0,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            schema=encoder.schema,
            schema_fingerprint=encoder.schema.fingerprint(),
            sizes=Sizes(
                users=users,
                items=len(self._vectors),
                n_user_features=encoder.n_user_features,
                n_item_features=encoder.n_item_features,
                k=tables.k,
                dim=tables.dim,
            ),
            model=ModelRecord(
                kind=tables.kind,
                cosine=Layout.of(tables).cosine,
                popularity=Layout.of(tables).popularity,
                user_fields=encoder.user_fields.names,
                item_fields=encoder.item_fields.names,
                kept={name: len(rows) for name, rows in kept_rows(tables.arrays()).items()},
                fold=fold,
            ),
            files=files.describe(self.folder),
            parity=parity,
            index=index,
            libraries=dict(_versions()),
        ).write(self.folder)

    def publish(
        self,
        rehearse: Callable[[Path], object],
        expected: int | None = None,
        keep: int | None = None,
        activate: bool = True,
    ) -> tuple[Path, Manifest]:
        """Publish the bundle as a version of its root.

        Args:
            rehearse: opens the finished folder as a service would, and raises if it must not go live; it may add golden
                requests to the manifest.
            expected: publish only if the version with this sequence is still live.
            keep: number of versions to keep, see `recall.bundle.versions.publish`; None to remove none.
            activate: make the version live.

        Returns:
            The folder of the new version, and its manifest.

        Raises:
            PublishError: Writing failed, another publisher held the lock, or another version went live.
        """
        rehearse(self.folder)
        published = publish(self.folder, self.root, expected, keep=keep, activate=activate)
        return published, Manifest.read(published)


def _lookup(encoder: FeatureEncoder, item_ids: pl.Series) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of all lookup tables that are large enough to be stored."""
    tables = {files.FIELD + name: table for name, table in encoder.tables().items()}
    if len(item_ids) > FEW:
        tables[files.ITEM_TABLE] = TextTable.of(item_ids)
    return {f"{name}.{array}": values for name, table in tables.items() for array, values in table.arrays().items()}


def _columns(encoder: FeatureEncoder) -> ColumnTypes | None:
    """Return the types of the columns for the manifest; None when unknown."""
    types, schema = encoder.types, encoder.schema
    if types == UNTYPED:
        return None
    read = {schema.item_id, *encoder.items.columns}
    return ColumnTypes(
        users={name: one for name, one in types.users.items() if name not in encoder.context_columns},
        contexts={name: one for name, one in types.users.items() if name in encoder.context_columns},
        items={name: one for name, one in types.items.items() if name in read},
        attributes={name: one for name, one in types.items.items() if name not in read},
    )


def _versions() -> Iterator[tuple[str, str]]:
    """Yield name and version of the libraries that are installed."""
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)
