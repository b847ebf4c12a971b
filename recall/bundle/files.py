"""Files of a bundle: names, checksums, memory, and packing of sparse arrays."""

import os
import re
import resource
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from recall._arrays import Float32, Int32
from recall._file_system import file_sha256
from recall.bundle.manifest import MANIFEST, FileEntry, Manifest
from recall.errors import BundleError

TABLES = "tables.safetensors"
ITEM_VECTORS = "item_vectors.safetensors"
ITEMS = "items.parquet"
ENCODER = "encoder.json"
VOCABULARIES = "vocabularies.parquet"
USERS = "users.sqlite"
INDEX = "index.faiss"
CHECKS = "checks.safetensors"
COUNTS = "counts.safetensors"
DELETIONS = "deleted.parquet"
LOOKUP = "lookup.safetensors"
NAMES = frozenset({TABLES, ITEM_VECTORS, ITEMS, ENCODER, VOCABULARIES, USERS, INDEX, CHECKS, COUNTS})
"""Files of a usual bundle; `expected_names` returns those of a manifest."""
FIELD, ITEM_TABLE = "field:", "items"
"""Names of tables in `LOOKUP`: a prefix before the name of a field, whose vocabulary it has; or the item ids."""
_ALWAYS = NAMES - {INDEX, CHECKS, COUNTS}
_SINCE_3 = frozenset({CHECKS, COUNTS})

_PLAIN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_WITHOUT_USERS = (
    "A service with `--exported-users redis` fetches versions without it: run this where the version was published, or read "
    "users from Redis; else copy the bundle again"
)
DAMAGE_HINT = "Copy the bundle again, or export it again; a published folder is never edited"


def expected_names(manifest: Manifest) -> tuple[frozenset[str], frozenset[str]]:
    """Return the required and the optional names of a bundle's files."""
    required = _ALWAYS if manifest.format_version < 3 else _ALWAYS | _SINCE_3
    if manifest.index.file is not None:
        required |= {manifest.index.file}
    return required, frozenset() if manifest.format_version < 4 else frozenset({DELETIONS, LOOKUP})


def describe(folder: Path, among: Iterable[str] | None = None) -> dict[str, FileEntry]:
    """Return size and SHA-256 of the files of a bundle, without the manifest.

    Args:
        folder: folder of the bundle.
        among: names of files; None for all.
    """
    names = sorted({path.name for path in folder.iterdir()} - {MANIFEST} if among is None else among)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        digests = pool.map(file_sha256, (folder / name for name in names))
        return {
            name: FileEntry(bytes=(folder / name).stat().st_size, sha256=digest)
            for name, digest in zip(names, digests, strict=True)
        }


def check_listed(folder: Path, manifest: Manifest) -> None:
    """Check that a manifest lists the files of its format.

    Args:
        folder: folder of the bundle, for errors.
        manifest: manifest of the bundle.

    Raises:
        BundleError: A name is not a plain file name, is unknown in this format, or is missing.
    """
    names = set(manifest.files)
    for name in sorted(names):
        if not _PLAIN.match(name):
            raise BundleError(f"the manifest lists {name[:80]!r}, which is not a plain file name", where=str(folder / MANIFEST))
    required, optional = expected_names(manifest)
    if not required <= names <= required | optional:
        raise BundleError(
            "the manifest does not list the files of its format",
            where=str(folder / MANIFEST),
            why=f"lists {_shown(names)}; expected {_shown(required)}"
            + (f" and perhaps {_shown(optional)}" if optional else ""),
        )
    if manifest.index.file in _ALWAYS | _SINCE_3 | {DELETIONS, LOOKUP, MANIFEST}:
        raise BundleError(
            f"the manifest names {manifest.index.file!r} as the index, which is another file", where=str(folder / MANIFEST)
        )


def check_names(folder: Path, manifest: Manifest, unchecked: frozenset[str] = frozenset()) -> None:
    """Check that a folder has exactly the files that its manifest lists.

    Args:
        folder: folder of the bundle.
        manifest: its manifest.
        unchecked: names of files that may be missing or of any type.

    Raises:
        BundleError: As `check_listed`, an entry is a link or not a file, or a file is missing or not listed.
    """
    names = set(manifest.files)
    check_listed(folder, manifest)
    found = {entry.name: entry for entry in folder.iterdir() if entry.name not in unchecked}
    for name, entry in sorted(found.items()):
        if entry.is_symlink():
            why = f"it points to {entry.readlink()}"
            raise BundleError("a bundle must not have links", where=str(entry), why=why, hint=DAMAGE_HINT)
        if name not in names | {MANIFEST}:
            raise BundleError("the manifest does not list this file", where=str(entry), hint=DAMAGE_HINT)
        if not entry.is_file():
            raise BundleError("a bundle must have files only", where=str(entry), hint=DAMAGE_HINT)
    for name in sorted(names - found.keys() - unchecked):
        hint = _WITHOUT_USERS if name == USERS else DAMAGE_HINT
        raise BundleError("a file that the manifest lists is missing", where=str(folder / name), hint=hint)


def check_contents(folder: Path, files: dict[str, FileEntry], *, digests: bool) -> None:
    """Compare every file with the manifest: sizes, then SHA-256.

    Args:
        folder: folder of the bundle.
        files: entries of the manifest, by name.
        digests: also compare SHA-256.

    Raises:
        BundleError: A file differs; the message has the expected and the actual value.
    """
    for name, entry in sorted(files.items()):
        size = (folder / name).stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"the file has {size} bytes, the manifest says {entry.bytes}", where=str(folder / name), hint=DAMAGE_HINT
            )
    if not digests:
        return
    for name, found in describe(folder, files).items():
        if found.sha256 != files[name].sha256:
            raise BundleError(
                "the file was changed after it was written",
                where=str(folder / name),
                why=f"SHA-256 {found.sha256}, the manifest says {files[name].sha256}",
                hint=DAMAGE_HINT,
            )


def link_or_copy(file: Path, to: Path) -> bool:
    """Hard-link an immutable file, else copy it; return whether it is a link.

    Removing one of two links does not affect the other.

    Args:
        file: file of a version.
        to: path of the link or copy, which must not exist.

    Raises:
        OSError: It could be neither linked nor copied.
    """
    try:
        os.link(file, to, follow_symlinks=False)
    except OSError:
        shutil.copyfile(file, to, follow_symlinks=False)
        return False
    return True


def _shown(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


_MEMORY = Path("/proc/meminfo")
_PROCESS = Path("/proc/self/statm")
_CGROUP = Path("/sys/fs/cgroup")  # as a container sees its own control group


def check_memory(folder: Path, manifest: Manifest) -> None:
    """Check that the files of a bundle fit into the available memory.

    Args:
        folder: folder of the bundle.
        manifest: manifest with the sizes of the files.

    Raises:
        BundleError: They do not fit; the message has both sizes.
    """
    needed = sum(entry.bytes for name, entry in manifest.files.items() if name != USERS or (folder / name).exists())
    limit = available()
    if limit is not None and needed > limit:
        raise BundleError(
            f"the bundle needs {needed:,} bytes of memory, and {limit:,} are available",
            where=str(folder),
            hint="Serve it on a machine with more memory, or give the process a higher limit",
        )


def available() -> int | None:
    """Return the bytes that this process may still allocate; None if unknown.

    This is the minimum over the limits of the machine, the control group and the process.
    """
    return min((max(limit, 0) for limit in _limits()), default=None)


def _limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, KeyError):
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            yield int(limit) - int((_CGROUP / "memory.current").read_text(encoding="ascii")) + _page_cache()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError):
        if soft != resource.RLIM_INFINITY:
            yield soft - int(_PROCESS.read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _page_cache() -> int:
    """Return the bytes of the control group's page cache, which can be reclaimed.

    `memory.current` includes them, and they include the files of the served bundle.
    """
    lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    parts = dict(line.split(" ", 1) for line in lines)
    return int(parts["inactive_file"]) + int(parts["active_file"])


# Packing: arrays are stored without their zero rows, of which an L1 penalty makes many.

SUFFIX = ".rows"
"""Suffix of the name of an array with the numbers of the stored rows of a packed array."""
_SIDES = ("user_", "item_")


def kept_rows(arrays: Mapping[str, Float32]) -> dict[str, Int32]:
    """Return the nonzero rows, int32 [m], of each array that packing makes smaller.

    An array with less than half zero rows is stored whole, because it is then mapped from its file and shared by all processes.

    Args:
        arrays: parameters by name; those of features have a row for each feature.
    """
    kept = {}
    for name, array in arrays.items():
        if name.startswith(_SIDES) and array.size:
            rows = np.flatnonzero(array.reshape(len(array), -1).any(axis=1)).astype(np.int32)
            if 2 * len(rows) <= len(array):
                kept[name] = rows
    return kept


def packed(arrays: Mapping[str, Float32]) -> dict[str, Float32 | Int32]:
    """Return arrays as stored: packed ones as nonzero rows and their numbers."""
    kept = kept_rows(arrays)
    stored: dict[str, Float32 | Int32] = {}
    for name, array in arrays.items():
        stored[name] = array[kept[name]] if name in kept else array
        if name in kept:
            stored[name + SUFFIX] = kept[name]
    return stored


def kept_shapes(shapes: Mapping[str, tuple[int, ...]], kept: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the stored shapes of the float arrays.

    Args:
        shapes: shapes of the whole arrays, by name.
        kept: number of stored rows of each packed array.

    Raises:
        BundleError: A packed array is unknown.
    """
    unknown = [name for name in kept if name not in shapes]
    if unknown:
        raise BundleError(f"{unknown[0]!r} was packed and is not an array of this model", where="manifest, model.kept")
    return {name: (kept[name], *shape[1:]) if name in kept else shape for name, shape in shapes.items()}


def unpacked(
    stored: Mapping[str, Float32], rows: Mapping[str, Int32], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32]:
    """Return the whole arrays by name.

    Args:
        stored: the float arrays as stored, by name.
        rows: numbers of the stored rows, by name of the array with `SUFFIX`.
        shapes: shapes of the whole arrays, by name.

    Raises:
        BundleError: Row numbers are out of range or do not increase.
    """
    arrays = dict(stored)
    for key, kept in rows.items():
        name = key.removesuffix(SUFFIX)
        if len(kept) and not (kept[0] >= 0 and kept[-1] < shapes[name][0] and (np.diff(kept) > 0).all()):
            raise BundleError(f"the rows kept of array {name!r} do not rise within 0 and {shapes[name][0] - 1}", where=key)
        arrays[name] = np.zeros(shapes[name], dtype=np.float32)
        arrays[name][kept] = stored[name]
        arrays[name].flags.writeable = False
    return arrays
