"""The steps that every new bundle goes through, whether a trained model or a new catalogue gave rise to it."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import JsonValue

from recall._arrays import Float32
from recall._tensors import servable
from recall.bundle import files
from recall.bundle.manifest import ColumnTypes, FoldRecord, IndexRecord, Manifest, ModelRecord, Parity, Sizes
from recall.bundle.packing import kept_rows
from recall.errors import ExportError
from recall.features.canonical import UNTYPED
from recall.features.encoder import FeatureEncoder
from recall.models.parity import Proof
from recall.models.serving.base import ServingModel
from recall.models.serving.layout import Layout

_LIBRARIES = ("fm-recall", "faiss-cpu", "numpy", "polars", "safetensors", "torch")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a bundle comes from; the fields are the manifest's."""

    name: str
    parent: int | None
    data_hash: str
    seed: int
    config: dict[str, JsonValue]
    metrics: dict[str, JsonValue]
    folded: int = 0
    log: str | None = None
    columns: ColumnTypes | None = None


def check_items(item_vectors: Float32, item_ids: pl.Series) -> None:
    """Raise ExportError, naming up to five items, unless every item vector is finite and not too large; see `servable`."""
    wrong = np.flatnonzero(~servable(item_vectors))
    if len(wrong):
        raise ExportError(
            f"the vectors of {len(wrong)} of {len(item_vectors)} items hold NaN or an infinity, or are too large to be scored",
            where="items " + ", ".join(repr(item_ids[int(row)]) for row in wrong[:5]),
            hint="Nothing was published. Look at the training metrics and at these items' features",
        )


def check_tables(tables: ServingModel) -> None:
    """Raise ExportError, naming the array and its first wrong row, unless every parameter is finite."""
    for name, values in tables.arrays().items():
        wrong = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        if len(wrong):
            raise ExportError(
                f"array {name!r} holds NaN or an infinity in {len(wrong)} of {len(values)} rows",
                where=f"row {wrong[0]}",
                hint="Nothing was published. Look at the training metrics: the model diverged",
            )


def parity_of(proof: Proof, reference: Literal["model", "tables"]) -> Parity:
    """A proof as the manifest records it."""
    return Parity(reference=reference, **asdict(proof))


def seal(
    folder: Path,
    origin: Provenance,
    encoder: FeatureEncoder,
    tables: ServingModel,
    counts: tuple[int, int],
    proofs: tuple[Parity, IndexRecord],
    fold: FoldRecord | None,
) -> Manifest:
    """Write the manifest of a folder that holds every other file.

    Args:
        folder: the bundle.
        origin: where it comes from.
        encoder: what it encodes with.
        tables: its parameters.
        counts: number of users and of items.
        proofs: what was shown about scores and about the index.
        fold: what was lost where a field-weighted model was folded.
    """
    users, items = counts
    manifest = Manifest(
        name=origin.name,
        sequence=0,
        parent=origin.parent,
        folded=origin.folded,
        log=origin.log,
        columns=origin.columns if origin.columns is not None else _columns(encoder),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        schema=encoder.schema,
        schema_fingerprint=encoder.schema.fingerprint(),
        sizes=Sizes(
            users=users,
            items=items,
            n_user_features=encoder.n_user_features,
            n_item_features=encoder.n_item_features,
            k=tables.k,
            dim=tables.dim,
        ),
        model=ModelRecord(
            kind=tables.kind,
            cosine=Layout.of(tables).cosine,
            user_fields=encoder.user_fields.names,
            item_fields=encoder.item_fields.names,
            kept={name: len(rows) for name, rows in kept_rows(tables.arrays()).items()},
            fold=fold,
        ),
        files=files.describe(folder),
        parity=proofs[0],
        index=proofs[1],
        data_hash=origin.data_hash,
        seed=origin.seed,
        config=origin.config,
        metrics=origin.metrics,
        libraries=dict(_versions()),
    )
    manifest.write(folder)
    return manifest


def _columns(encoder: FeatureEncoder) -> ColumnTypes | None:
    """Types of the columns as the manifest lists them; None when the encoder knows none."""
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
