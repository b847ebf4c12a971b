"""The keys that are known now: some never change while a process runs, and some are in a file that may change at any time.

A file that cannot be read, or holds a line that is wrong, changes nothing: the keys before it hold until it is mended. Nor may
a change leave no key at all, for then nobody would be asked for one; a file that is being written is empty for a moment.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from recall.errors import ConfigError
from service.security.keys import Key, KeyRing, from_environment, from_file

TROUBLE = "the file of keys is not as it should be, and the keys from before it hold; the log says why"

log = logging.getLogger("service")


class _Stamp(NamedTuple):
    """What tells a file from the same one after a change."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, file: Path) -> "_Stamp | None":
        try:
            found = os.stat(file)
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


class KnownKeys:
    """All keys that are known now.

    Attributes:
        ring: the keys.
        fixed: those of them that are in no file.
        listed: those of them that were in the file.
        troubled: whether the file cannot be read any more.
    """

    def __init__(self, file: Path | None, fixed: Iterable[Key], listed: Iterable[Key] = ()) -> None:
        """Know these keys; `look` says whether the file has others."""
        self.file = file
        self.fixed, self.listed = tuple(fixed), tuple(listed)
        self.ring = KeyRing([*self.fixed, *self.listed])
        self.troubled = False
        self._copy: Path | None = None
        self._stamp: _Stamp | None = None
        self._looked = False
        self._reason = ""

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str], copy: Path | None = None) -> "KnownKeys":
        """Read the keys of a file of hashes and of the environment.

        Args:
            file: None for no file.
            environment: variables.
            copy: where workers keep the file as it was last without an error: one that is restarted beside a file with an error
                knows the keys that the others know.

        Raises:
            ConfigError: As `KeyRing.read`.
        """
        stamp = None if file is None else _Stamp.of(file)
        known = cls(file, from_environment(environment))
        known._copy = copy
        if file is not None:
            try:
                known._list(tuple(from_file(file)))
            except ConfigError as error:
                if copy is None or not copy.exists():
                    raise
                known.listed = tuple(from_file(copy))
                known.ring = KeyRing([*known.fixed, *known.listed])
                known._complain(str(error))
        known._stamp, known._looked = stamp, True  # what was written since is read at the first look
        return known

    @property
    def asked_for(self) -> bool:
        """Whether requests need a key, or may need one as soon as the file holds one."""
        return bool(self.ring) or self.file is not None

    def look(self) -> bool:
        """Read the file if it is not the one that was read last; gives whether `ring` is another one now."""
        if self.file is None:
            return False
        stamp = _Stamp.of(self.file)
        if self._looked and stamp == self._stamp:
            return False
        try:
            listed = tuple(from_file(self.file))
            if _Stamp.of(self.file) != stamp:
                return False  # somebody is writing it
            ring = KeyRing([*self.fixed, *listed])
            if self.ring and not ring:
                raise ConfigError("no key would be left, and nobody would be asked for one", where=str(self.file))
        except ConfigError as error:
            self._looked, self._stamp = True, stamp
            self._complain(str(error))
            return False
        self._looked, self._stamp, self._reason, self.troubled = True, stamp, "", False
        changed = set(ring.keys) != set(self.ring.keys)
        self._list(listed)
        if changed:
            log.info("%d keys are known now", len(ring))
        return changed

    def _list(self, listed: tuple[Key, ...]) -> None:
        """Know the keys of the file, which has no error."""
        self.listed, self.ring = listed, KeyRing([*self.fixed, *listed])
        if self._copy is not None and self.file is not None:
            scratch = self._copy.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(self.file.read_bytes())
            scratch.replace(self._copy)

    def _complain(self, reason: str) -> None:
        if not self.troubled or reason != self._reason:
            log.error("the keys from before hold: %s", reason)
        self.troubled, self._reason = True, reason
