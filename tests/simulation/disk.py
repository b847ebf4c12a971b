"""A model of a disk: the possible contents of a file system after a crash, given the preceding system calls.

Everything that was not fsynced may be lost, partly or completely:

- the data of a file, in sectors of 512 bytes, independently, until fsync or fdatasync of the file. A file may
  also have grown without its data: then the new bytes are zeros;
- directory entries (create, link, rename, unlink, mkdir, rmdir), until fsync of the folder. Changes of one folder survive in
  order, those of different folders independently. An fsync of a file does not make its name durable.

These guarantees are weaker than those of ext4, xfs or btrfs and as strong as those of POSIX; SQLite requires no more.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
"""Size of a sector, which is written atomically, in bytes."""


@dataclass(eq=False)
class Inode:
    """A file or folder, independent of its names.

    Attributes:
        number: order of creation.
        folder: whether it is a folder.
        data: content of a file before the first step.
        names: content of a folder before the first step.
    """

    number: int
    folder: bool
    data: bytes = b""
    names: dict[str, "Inode"] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Written:
    """Bytes at an offset of a file."""

    inode: Inode
    offset: int
    data: bytes


@dataclass(frozen=True, eq=False)
class Sized:
    """A file cut or grown to a size."""

    inode: Inode
    size: int


@dataclass(frozen=True, eq=False)
class Named:
    """One atomic change of directory entries: removed and added names.

    Attributes:
        gone: folder and name of each removed entry.
        come: folder, name and inode of each added entry.
    """

    gone: tuple[tuple[Inode, str], ...]
    come: tuple[tuple[Inode, str, Inode], ...]

    @property
    def folders(self) -> set[Inode]:
        """Return the folders whose entries change."""
        return {entry[0] for entry in self.gone} | {entry[0] for entry in self.come}


@dataclass(frozen=True, eq=False)
class Synced:
    """An fsync or fdatasync that returned."""

    inode: Inode


@dataclass(frozen=True)
class Mark:
    """A mark of the program between two system calls."""

    text: str


Step = Written | Sized | Named | Synced | Mark


@dataclass(frozen=True)
class Loss:
    """The probabilities with which unsynced changes survive.

    Attributes:
        names: probability that a change of names survives.
        data: probability that a sector survives.
        sizes: probability that a file has grown although its data were lost.
    """

    names: float
    data: float
    sizes: float


NOTHING = Loss(1.0, 1.0, 1.0)
"""A killed process on a running machine: the kernel keeps everything."""
LOSSES = (
    Loss(0.0, 0.0, 0.0),
    Loss(1.0, 0.0, 0.0),
    Loss(1.0, 0.0, 1.0),
    Loss(0.0, 1.0, 1.0),
    Loss(0.5, 0.5, 0.5),
    Loss(0.9, 0.9, 0.9),
)
"""Power failures: everything is lost; data but not names, with and without the size; names; parts of each."""


def durable(steps: Sequence[Step]) -> set[Step]:
    """Return the steps that are durable because of a later fsync."""
    kept: set[Step] = set()
    synced: set[Inode] = set()
    for step in reversed(steps):
        match step:
            case Synced(inode):
                synced.add(inode)
            case Written(inode) | Sized(inode):
                if inode in synced:
                    kept.add(step)
            case Named():
                if step.folders & synced:  # earlier changes of a folder are durable too, for both folders of a rename
                    kept.add(step)
                    synced |= step.folders
    return kept


def after_crash(root: Inode, steps: Sequence[Step], loss: Loss, draw: random.Random) -> dict[str, bytes | None]:
    """Return the files after a crash.

    Args:
        root: the folder that all steps happen in.
        steps: everything before the crash.
        loss: survival probabilities of unsynced steps.
        draw: random numbers.

    Returns:
        The content of each file by its path below the root, None for a folder; folders come before their contents.
    """
    sure = durable(steps)
    names: dict[Inode, dict[str, Inode]] = {}
    data: dict[Inode, bytearray] = {}
    stopped: set[Inode] = set()

    def entries(folder: Inode) -> dict[str, Inode]:
        return names.setdefault(folder, dict(folder.names))

    def content(inode: Inode) -> bytearray:
        return data.setdefault(inode, bytearray(inode.data))

    for step in steps:
        match step:
            case Named(gone, come):
                if step not in sure and (step.folders & stopped or draw.random() >= loss.names):
                    stopped |= step.folders
                    continue
                for folder, name in gone:
                    entries(folder).pop(name, None)
                for folder, name, inode in come:
                    entries(folder)[name] = inode
            case Sized(inode, size):
                if step in sure or draw.random() < loss.data:
                    held = content(inode)
                    del held[size:]
                    held.extend(bytes(size - len(held)))
            case Written(inode, offset, written):
                _write(content(inode), offset, written, None if step in sure else loss, draw)
    return dict(_walk(root, "", entries, content))


def _write(held: bytearray, offset: int, data: bytes, loss: Loss | None, draw: random.Random) -> None:
    end = offset + len(data)
    if loss is None or draw.random() < loss.sizes:
        held.extend(bytes(max(0, end - len(held))))
    at = offset
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        if loss is None or draw.random() < loss.data:
            held.extend(bytes(max(0, until - len(held))))
            held[at:until] = data[at - offset : until - offset]
        at = until


def _walk(folder: Inode, path: str, entries, content) -> Iterator[tuple[str, bytes | None]]:  # type: ignore[no-untyped-def]
    for name, inode in sorted(entries(folder).items()):
        if inode.folder:
            yield path + name, None
            yield from _walk(inode, f"{path}{name}/", entries, content)
        else:
            yield path + name, bytes(content(inode))


def put(files: dict[str, bytes | None], folder: Path) -> None:
    """Write files from `after_crash` to a new folder."""
    folder.mkdir(parents=True)
    for path, data in files.items():
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)


def read(folder: Path) -> dict[str, bytes | None]:
    """Read the files of a real folder in the form of `after_crash`."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return dict(sorted(found.items()))
