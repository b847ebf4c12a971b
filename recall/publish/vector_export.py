"""Export vectors of items and users, and their ids, to files for other systems.

The vectors are the served ones: for a root, those of the live version with live changes; for the folder of a version,
those of the version alone. The score of an item for a user is the inner product of their vectors.

    parquet   items.parquet: the id column, and `vector` as a list of float32; users.parquet alike
    npy       item_vectors.npy, float32 [items, dim], and item_ids.json, a list of text; user_vectors.npy, user_ids.json
    faiss     items.faiss, an IndexFlatIP, and item_ids.json; users as with npy, because they are the queries

`export.json` records their source.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import polars as pl
from polars.exceptions import PolarsError

from recall._arrays import Float32
from recall._file_system import new_folder
from recall.bundle.manifest import MANIFEST
from recall.bundle.versions import CURRENT, VERSIONS
from recall.errors import ConfigError, PublishError, did_you_mean, raising
from recall.index.flat import write_flat
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.snapshot import CatalogSnapshot

FORMATS = ("parquet", "npy", "faiss")
ABOUT = "export.json"
"""Name of the file that describes the others."""
_ROWS = 1 << 16  # item vectors copied at a time
_USERS = 4096  # users encoded at a time


class VectorExport(NamedTuple):
    """Description of exported files.

    Attributes:
        folder: folder of the files.
        version: name of the bundle's version.
        sequence: sequence of the last live change that they contain.
        items: number of item vectors.
        users: number of user vectors; None if they were not exported.
        dim: dimension of the vectors.
        files: names of the files.
    """

    folder: Path
    version: str
    sequence: int
    items: int
    users: int | None
    dim: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Side:
    """Vectors of all items or users, in batches, and their ids in the same order."""

    name: str
    column: str
    ids: Sequence[str]
    parts: Callable[[], Iterator[Float32]]


def export_vectors(bundle: Path, out: Path, format_: str, *, users: bool = False) -> VectorExport:
    """Write the vectors of a bundle to a new folder, which appears when complete.

    Args:
        bundle: a bundle, or a root, for its live version with live changes.
        out: path of the new folder.
        format_: one of `FORMATS`.
        users: also write the vector of each known user, as in a request with the user's id only.

    Raises:
        BundleError, IndexFileError, JournalError: The bundle or its live changes cannot be read.
        ConfigError: The format is unknown.
        PublishError: `out` exists or is inside a bundle, or writing failed.
        StoreError: Live changes of users cannot be read.
    """
    if format_ not in FORMATS:
        raise ConfigError(
            f"the format must be one of {', '.join(FORMATS)}, got {format_!r}",
            where="format",
            hint=did_you_mean(format_, FORMATS),
        )
    _check_out(out)
    with Recommender.load(bundle) as recommender:
        catalogue, manifest = recommender.items.current(), recommender.bundle.manifest
        sides = [_items(recommender, catalogue), *([_users(recommender)] if users else [])]
        item_count, user_count, dim = len(sides[0].ids), len(sides[1].ids) if users else None, manifest.sizes.dim
        failure = raising(PublishError, "the vectors could not be written", where=str(out), of=(OSError, PolarsError))
        with failure, new_folder(out) as staged:
            names = [name for side in sides for name in _write_side(staged, format_, side, dim)]
            about = {
                "bundle": manifest.version,
                "sequence": catalogue.sequence,
                "model": manifest.model.kind,
                "dim": dim,
                "items": item_count,
                "users": user_count,
                "format": format_,
                "files": sorted(names),
            }
            (staged / ABOUT).write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2))
    return VectorExport(out, manifest.version, catalogue.sequence, item_count, user_count, dim, (*names, ABOUT))


def _check_out(out: Path) -> None:
    """Reject a folder that exists, or that would change a published bundle."""
    if out.exists() or out.is_symlink():
        raise PublishError("the folder exists already", where=str(out), hint="Remove it, or name a new one with --out")
    for above in out.resolve().parents:
        of_root = above.name == VERSIONS and (above.parent / CURRENT).exists()
        if of_root or (above / MANIFEST).exists():
            raise PublishError(
                "the folder is within a bundle, which must not change",
                where=str(out),
                why=f"{above} holds {'the versions of a root' if of_root else MANIFEST}",
                hint="Name a folder outside of it with --out",
            )


def _items(recommender: Recommender, catalogue: CatalogSnapshot) -> _Side:
    rows = np.flatnonzero(catalogue.mask(np.empty(0, dtype=np.int64)))

    def parts() -> Iterator[Float32]:
        for first in range(0, len(rows), _ROWS):
            yield catalogue.vectors(rows[first : first + _ROWS])

    return _Side("item", recommender.bundle.encoder.schema.item_id, catalogue.ids(rows), parts)


def _users(recommender: Recommender) -> _Side:
    ids: list[str] = []
    while page := recommender.users.ids(ids[-1] if ids else None, _USERS):
        ids += page

    def parts() -> Iterator[Float32]:
        for first in range(0, len(ids), _USERS):
            yield recommender.user_vectors([Request(user_id) for user_id in ids[first : first + _USERS]])

    return _Side("user", recommender.bundle.encoder.schema.user_id, ids, parts)


def _write_side(folder: Path, format_: str, side: _Side, dim: int) -> list[str]:
    if format_ == "parquet":
        name = f"{side.name}s.parquet"
        whole = np.concatenate([np.empty((0, dim), dtype=np.float32), *side.parts()])
        vectors = pl.Series("vector", whole, dtype=pl.Array(pl.Float32, dim)).cast(pl.List(pl.Float32))
        column = side.column if side.column != "vector" else f"{side.name}_id"
        pl.DataFrame([pl.Series(column, side.ids, dtype=pl.String), vectors]).write_parquet(folder / name)
        return [name]
    ids = f"{side.name}_ids.json"
    (folder / ids).write_bytes(orjson.dumps(list(side.ids)))
    if format_ == "faiss" and side.name == "item":
        write_flat(folder / "items.faiss", side.parts(), dim)
        return ["items.faiss", ids]
    name = f"{side.name}_vectors.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(side.ids), dim)}
    with (folder / name).open("wb") as file:  # in parts: not all of the vectors need to be in memory
        np.lib.format.write_array_header_1_0(file, header)
        for part in side.parts():
            file.write(np.ascontiguousarray(part, dtype="<f4").tobytes())
    return [name, ids]
