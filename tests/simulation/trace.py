"""System calls of a program, recorded by strace and converted to steps of the disk model."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.disk import Inode, Mark, Named, Sized, Step, Synced, Written

_CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,ftruncate,truncate,fallocate,"
    "copy_file_range,sendfile,fsync,fdatasync,sync,syncfs,msync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,"
    "symlink,symlinkat,mkdir,mkdirat,rmdir,chdir"
)
_LINE = re.compile(r"^(?P<pid>\d+) +(?P<rest>.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|0x[0-9a-f]+|\?)")
_UNFINISHED = " <unfinished ...>"
_ARGUMENT = re.compile(r'"(?:\\x[0-9a-f]{2})*"(?:\.\.\.)?|\[[^\]]*\]|\{[^}]*\}|[^,\s][^,]*')
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
MARKS = "marks"
"""File for the marks of a traced program, next to the watched folder."""


class TraceError(Exception):
    """A system call whose effect on the disk is not modelled."""


def can_trace() -> bool:
    """Whether strace is installed and permitted."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


def traced(arguments: Sequence[str], folder: Path, root: Inode) -> list[Step]:
    """Run a Python program and return its steps below a folder after its first mark.

    Args:
        arguments: arguments of the interpreter.
        folder: the folder that is watched; `folder.parent / MARKS` is where the program writes its marks.
        root: the folder's content before.
    """
    lines = folder.parent / "trace"
    environment = {**os.environ, "PYTHONHASHSEED": "0"}  # deterministic iteration over sets
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-xx", "-s", str(1 << 24), "-e", f"trace={_CALLS}", "-o"]
    program = subprocess.run(
        [*command, str(lines), sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if program.returncode:
        raise RuntimeError(f"the traced program failed:\n{program.stdout}{program.stderr}")
    with lines.open(encoding="ascii") as file:
        steps = Replay(folder, root).steps(file)
    lines.unlink()
    return steps


@dataclass
class _Open:
    """An open file description: inode, position, and append mode."""

    inode: Inode | None
    mark: bool = False
    position: int = 0
    append: bool = False


@dataclass
class Replay:
    """Tracks the descriptors and names of one process with shared threads."""

    folder: Path
    root: Inode
    _open: dict[int, _Open] = field(default_factory=dict)
    _names: dict[Inode, dict[str, Inode]] = field(default_factory=dict)
    _data: dict[Inode, bytearray] = field(default_factory=dict)
    _count: int = 0

    def steps(self, lines: Iterable[str]) -> list[Step]:
        """Return all steps below the folder in order; a mark must precede them."""
        steps: list[Step] = []
        for name, arguments, result in _calls(lines):
            if result < 0:
                continue
            steps += self._step(name, arguments, result)
        first = next(at for at, step in enumerate(steps) if isinstance(step, Mark))
        if first:
            raise TraceError("files were changed before the first mark")
        return steps

    def _step(self, name: str, arguments: list[str], result: int) -> Iterator[Step]:
        match name:
            case "open" | "openat" | "creat":
                yield from self._opened(name, arguments, result)
            case "close":
                self._open.pop(int(arguments[0]), None)
            case "dup" | "dup2" | "dup3":
                self._copied(int(arguments[0]), result)
            case "fcntl":
                if arguments[1].startswith("F_DUPFD"):
                    self._copied(int(arguments[0]), result)
            case "lseek":
                if (held := self._open.get(int(arguments[0]))) is not None:
                    held.position = result
            case "write" | "pwrite64":
                yield from self._wrote(name, arguments, result)
            case "sendfile" | "copy_file_range":
                yield from self._moved(name, arguments, result)
            case "ftruncate":
                if (held := self._open.get(int(arguments[0]))) is not None and held.inode is not None:
                    yield self._sized(held.inode, int(arguments[1]))
            case "fsync" | "fdatasync":
                held = self._open.get(int(arguments[0]))
                if held is not None and held.inode is not None:
                    yield Synced(held.inode)
            case "rename" | "renameat" | "renameat2" | "link" | "linkat":
                yield from self._renamed(name, arguments)
            case "unlink" | "unlinkat" | "rmdir":
                if (place := self._place(*_where(name, arguments, name.endswith("at")))) is not None:
                    self._entries(place[0]).pop(place[1])
                    yield Named((place,), ())
            case "mkdir" | "mkdirat":
                if (place := self._place(*_where(name, arguments, name.endswith("at")))) is not None:
                    yield self._made(place, folder=True)
            case "chdir":
                raise TraceError("the working directory was changed")
            case _:
                yield from self._unknown(name, arguments)

    def _opened(self, name: str, arguments: list[str], descriptor: int) -> Iterator[Step]:
        base, path = _where(name, arguments, name == "openat")
        flags = arguments[2 if name == "openat" else 1]
        if base is None and Path(path) == self.folder.parent / MARKS:
            self._open[descriptor] = _Open(None, mark=True)
            return
        place = self._place(base, path)
        if place is None:
            self._open[descriptor] = _Open(self.root if self._is_root(base, path) else None)
            return
        inode = self._entries(place[0]).get(place[1])
        if inode is None:
            step = self._made(place, folder=False)
            yield step
            inode = step.come[0][2]
        elif "O_TRUNC" in flags and self._content(inode):
            yield self._sized(inode, 0)
        self._open[descriptor] = _Open(inode, append="O_APPEND" in flags)

    def _wrote(self, name: str, arguments: list[str], count: int) -> Iterator[Step]:
        held = self._open.get(int(arguments[0]))
        if held is None or (held.inode is None and not held.mark):
            return
        data = _bytes(arguments[1])[:count]
        if held.mark:
            yield Mark(data.decode().strip())
            return
        assert held.inode is not None
        if name == "pwrite64":
            yield self._write(held.inode, int(arguments[3]), data)
        else:
            yield from self._appended(held, data)

    def _moved(self, name: str, arguments: list[str], count: int) -> Iterator[Step]:
        to, source = (0, 1) if name == "sendfile" else (2, 0)
        into, held = self._open.get(int(arguments[to])), self._open.get(int(arguments[source]))
        if into is None or into.inode is None or not count:
            return
        if held is None or held.inode is None or name != "sendfile":
            raise TraceError(f"{name} from a file that is not watched, or of a kind that is not modelled")
        given = arguments[2] != "NULL"  # an explicit offset is written "[0] => [300]"
        start = int(arguments[2].strip("[]")) if given else held.position
        if not given:
            held.position += count
        yield from self._appended(into, bytes(self._content(held.inode)[start : start + count]))

    def _appended(self, held: _Open, data: bytes) -> Iterator[Step]:
        assert held.inode is not None
        if held.append:
            held.position = len(self._content(held.inode))
        yield self._write(held.inode, held.position, data)
        held.position += len(data)

    def _renamed(self, name: str, arguments: list[str]) -> Iterator[Step]:
        at = name not in {"rename", "link"}
        old = self._place(*_where(name, arguments, at))
        new = self._place(*_where(name, arguments[2 if at else 1 :], at))
        if old is None and new is None:
            return
        if old is None or new is None or (name == "renameat2" and arguments[4] not in {"0", "RENAME_NOREPLACE"}):
            raise TraceError(f"{name} across the border of the watched folder, or of a kind that is not modelled")
        inode = self._entries(old[0])[old[1]]
        gone = () if name.startswith("link") else (old,)
        for folder, entry in gone:
            self._entries(folder).pop(entry)
        self._entries(new[0])[new[1]] = inode
        yield Named(gone, ((*new, inode),))

    def _unknown(self, name: str, arguments: list[str]) -> Iterator[Step]:
        """Check that unmodelled calls do not change anything below the folder."""
        held = self._open.get(int(arguments[0])) if arguments and arguments[0].isdigit() else None
        if name in {"truncate", "symlink", "symlinkat", "sync", "syncfs", "msync"} or (
            held is not None and held.inode is not None
        ):
            raise TraceError(f"the system call {name} is not modelled")
        yield from ()

    def _made(self, place: tuple[Inode, str], *, folder: bool) -> Named:
        self._count += 1
        inode = Inode(self._count, folder)
        self._entries(place[0])[place[1]] = inode
        return Named((), ((*place, inode),))

    def _write(self, inode: Inode, offset: int, data: bytes) -> Written:
        held = self._content(inode)
        held.extend(bytes(max(0, offset + len(data) - len(held))))
        held[offset : offset + len(data)] = data
        return Written(inode, offset, data)

    def _sized(self, inode: Inode, size: int) -> Sized:
        held = self._content(inode)
        del held[size:]
        held.extend(bytes(size - len(held)))
        return Sized(inode, size)

    def _copied(self, old: int, new: int) -> None:
        if old in self._open:
            self._open[new] = self._open[old]
        else:
            self._open.pop(new, None)

    def _content(self, inode: Inode) -> bytearray:
        return self._data.setdefault(inode, bytearray(inode.data))

    def _entries(self, folder: Inode) -> dict[str, Inode]:
        return self._names.setdefault(folder, dict(folder.names))

    def _is_root(self, base: int | None, path: str) -> bool:
        return (base is None or path.startswith("/")) and Path(os.path.normpath(path)) == self.folder

    def _place(self, base: int | None, path: str) -> tuple[Inode, str] | None:
        """Resolve a path to folder and name; None outside the watched folder and for the folder itself."""
        if path.startswith("/") or base is None:
            full = Path(os.path.normpath(path))
            if self.folder not in full.parents:
                return None
            at, parts = self.root, full.relative_to(self.folder).parts
        else:
            held = self._open.get(base)
            if held is None or held.inode is None or not held.inode.folder:
                return None
            at, parts = held.inode, tuple(part for part in Path(path).parts if part != ".")
            if not parts:
                raise TraceError(f"the path {path!r} is not modelled")
        for part in parts[:-1]:
            at = self._entries(at)[part]
        return at, parts[-1]


def folder_of(files: dict[str, bytes | None]) -> Inode:
    """Create a folder with durable files in the form of `disk.read`."""
    root, count = Inode(0, True), 0
    for path, data in files.items():
        count -= 1
        *parents, name = path.split("/")
        at = root
        for parent in parents:
            at = at.names[parent]
        at.names[name] = Inode(count, data is None, data or b"")
    return root


def _calls(lines: Iterable[str]) -> Iterator[tuple[str, list[str], int]]:
    """Parse name, arguments and result of each call, in order of completion."""
    begun: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line.rstrip("\n"))
        if found is None:
            continue
        pid, rest = found["pid"], found["rest"]
        if rest.endswith(_UNFINISHED):
            begun[pid] = rest[: -len(_UNFINISHED)]
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            rest = begun.pop(pid) + resumed["rest"]
        call = _CALL.match(rest)
        if call is not None and call["result"] != "?":
            arguments = [one.strip() for one in _ARGUMENT.findall(call["args"])]
            yield call["name"], arguments, int(call["result"], 0)


def _where(name: str, arguments: list[str], at: bool) -> tuple[int | None, str]:
    """Return the directory descriptor of a path, None for the working directory, and the path."""
    if not at:
        return None, os.fsdecode(_bytes(arguments[0]))
    base = None if arguments[0] == "AT_FDCWD" else int(arguments[0])
    return base, os.fsdecode(_bytes(arguments[1]))


def _bytes(argument: str) -> bytes:
    found = _TEXT.fullmatch(argument)
    if found is None or found[2]:
        raise TraceError(f"a text of the trace cannot be read: {argument[:60]}")
    return bytes.fromhex(found[1].replace("\\x", ""))
