"""API keys, stored and compared as hashes.

Keys come from the environment, in the clear:

    RECALL_READ_KEY    RECALL_READ_KEYS     one, or several separated by commas, for queries
    RECALL_ADMIN_KEY   RECALL_ADMIN_KEYS    the same for changes as well

or from a file of hashes, one a line, with an optional name and an optional rate in requests a second. `recall key new` prints
a key and its line. The file may change while the service runs. A file that cannot be read, or has an invalid line, changes
nothing: the previous keys stay valid. A change may not remove the last key, because then no key would be required.

    read sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae shop-front rate=50
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from pathlib import Path

from recall._file_system import replaced_file
from recall.errors import ConfigError, did_you_mean
from recall.serving.request import Degraded

SHORTEST = 16
"""Fewest characters of a key: shorter ones can be guessed."""


class Role(IntEnum):
    """Rights of a key; a higher role includes the lower ones."""

    READ = 1
    ADMIN = 2


_ROLES = {"read": Role.READ, "admin": Role.ADMIN}
_HASH = "sha256:"
_RATE = "rate="
_MAKE = "Make one with: recall key new"
_DEGRADED = "the file of keys cannot be read, and the previous keys stay valid; the log says why"

log = logging.getLogger("service")


@dataclass(frozen=True, slots=True)
class Key:
    """A known key.

    Attributes:
        digest: SHA-256 of the key's bytes.
        role: what it allows.
        name: for messages; never the key itself.
        rate: requests a second that it may send; None for the rate of the settings.
    """

    digest: bytes
    role: Role
    name: str = ""
    rate: float | None = None


class KeyRing:
    """All known keys; false if there is none, and then no key is required.

    Attributes:
        keys: the keys.
        file: the file of hashes; None for none.
        error: why the file cannot be read any more; empty when it can.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Create a key ring; of a repeated key the higher role counts."""
        self.file: Path | None = None
        self.error = ""
        self._fixed = tuple(keys)
        self._copy: Path | None = None
        self._stamp: tuple[int, ...] | None = ()  # of no file, not even of a missing one
        self._set(())

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str], copy: Path | None = None) -> "KeyRing":
        """Return the keys of a file of hashes and of the environment.

        Args:
            file: of hashes, if any.
            environment: variables.
            copy: where workers keep the last valid content of the file, for a worker that is restarted while the file has an
                error.

        Raises:
            ConfigError: The file cannot be read or a line of it is wrong, or a key of the environment is too short. No
                message contains a key.
        """
        ring = cls(from_environment(environment))
        if file is None:
            return ring
        ring.file, ring._copy = file, copy
        source = copy if copy is not None and copy.exists() else file
        ring._set(parse_keys(_read(source), source))
        ring.reload()
        return ring

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def asked_for(self) -> bool:
        """Whether requests need a key, or will as soon as the file holds one."""
        return bool(self.keys) or self.file is not None

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """Degradation that answers report while the file cannot be read."""
        return (Degraded("keys", _DEGRADED),) if self.error else ()

    def find(self, secret: bytes) -> Key | None:
        """Return the key with these bytes, if it is known.

        It is looked up by its hash, which the sender knows: timing reveals nothing about other keys.
        """
        return self._known.get(sha256(secret).digest())

    def reload(self) -> bool:
        """Read the file if it has changed; return whether the keys have.

        A file that is invalid, or would leave no key, changes nothing.
        """
        stamp = None if self.file is None else _stamp(self.file)
        if self.file is None or stamp == self._stamp:
            return False
        before = self.keys
        try:
            text = _read(self.file)
            listed = tuple(parse_keys(text, self.file))
            if _stamp(self.file) != stamp:
                return False  # it is being written
            if before and not (listed or self._fixed):
                raise ConfigError("no key would be left, and then none would be required", where=str(self.file))
        except ConfigError as error:
            self._stamp = stamp
            if str(error) != self.error:
                log.error("the previous keys stay valid: %s", error)
            self.error = str(error)
            return False
        self._stamp, self.error = stamp, ""
        self._set(listed)
        self._save_copy(text)
        if set(self.keys) == set(before):
            return False
        log.info("%d keys are known now", len(self))
        return True

    def _set(self, listed: Iterable[Key]) -> None:
        """Replace the keys of the file; of a repeated key the higher role counts."""
        by_role = sorted((*self._fixed, *listed), key=lambda key: key.role)
        self._known = {key.digest: key for key in by_role}
        self.keys = tuple(self._known.values())

    def _save_copy(self, text: str) -> None:
        """Keep the text that the keys were read from; the file may have changed since."""
        if self._copy is None:
            return
        try:
            with replaced_file(self._copy) as staged:
                staged.write_text(text, encoding="utf-8")
        except OSError as error:  # the keys are in use all the same
            log.warning("a restarted worker may know older keys, as %s cannot be written: %s", self._copy, error)


def from_environment(environment: Mapping[str, str]) -> Iterator[Key]:
    """Yield the keys of the environment.

    Raises:
        ConfigError: One is too short.
    """
    for word, role in _ROLES.items():
        for name in (f"RECALL_{word.upper()}_KEY", f"RECALL_{word.upper()}_KEYS"):
            given = environment.get(name, "")
            for secret in given.split(",") if name.endswith("S") else [given]:
                raw = secret.strip().encode(errors="surrogateescape")
                if raw and len(raw) < SHORTEST:
                    raise ConfigError(f"a key has at least {SHORTEST} characters", where=name, hint=_MAKE)
                if raw:
                    yield Key(sha256(raw).digest(), role, name)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError("the file of keys cannot be read", where=str(file), why=why or "") from None


def parse_keys(text: str, file: Path) -> Iterator[Key]:
    """Yield the keys of the text of a file of hashes.

    Args:
        text: lines of the file.
        file: named in errors.

    Raises:
        ConfigError: A line is invalid.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if words:
            yield _parsed(words, f"{file}:{number}")


def _parsed(words: list[str], where: str) -> Key:
    role = _ROLES.get(words[0])
    if role is None:
        raise ConfigError("a line begins with the role of the key", where=where, hint=did_you_mean(words[0][:10], _ROLES))
    hashed = words[1] if len(words) > 1 else ""
    try:
        digest = bytes.fromhex(hashed.removeprefix(_HASH))
    except ValueError:
        digest = b""
    if not hashed.startswith(_HASH) or len(digest) != sha256().digest_size:
        raise ConfigError("the hash of a key is sha256: and 64 hexadecimal digits", where=where, hint=_MAKE)
    rate, names = None, []
    for word in words[2:]:
        if word.startswith(_RATE):
            rate = _rate(word.removeprefix(_RATE), where)
        else:
            names.append(word)
    return Key(digest, role, " ".join(names) or where, rate)


def _rate(text: str, where: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise ConfigError("a rate is a number of requests a second, above 0", where=where, hint="Write it as rate=50")
    return rate


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Return file metadata that changes with the content; None without a file."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
