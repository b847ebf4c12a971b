"""The keys that are known: only their hashes are kept, and only hashes are compared.

Keys come from the environment, as they are:

    RECALL_READ_KEY    RECALL_READ_KEYS     one, and several with commas between them, that may ask
    RECALL_ADMIN_KEY   RECALL_ADMIN_KEYS    the same for what may also change something

or from a file of hashes, a line each, with a name that may be told and requests a second if they are not those of the
service's settings. `recall key new` prints a key and its line.

    read sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae shop-front rate=50
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

from recall.errors import ConfigError, nearest
from service.security.roles import Role

SHORTEST = 16
"""Characters that a key has at least: shorter ones can be found by trying."""
MOST_KEYS = (1 << 15) - 1
"""Keys that there may be."""

_ROLES = {"read": Role.READ, "admin": Role.ADMIN}
_HASH = "sha256:"
_RATE = "rate="
_MAKE = "Make one with: recall key new"


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is known.

    Attributes:
        digest: SHA-256 of the key's bytes.
        role: what it allows.
        name: what it is called in messages; never the key.
        rate: requests a second that it may send; None: as many as the settings say.
    """

    digest: bytes
    role: Role
    name: str = ""
    rate: float | None = None


class KeyRing:
    """All keys that are known; false when there are none, and then nobody is asked for one."""

    def __init__(self, keys: Iterable[Key]) -> None:
        """Of a key that is given twice the higher role counts. Raises ConfigError when there are more than `MOST_KEYS`."""
        known: dict[bytes, Key] = {}
        for key in keys:
            if key.digest not in known or known[key.digest].role < key.role:
                known[key.digest] = key
        if len(known) > MOST_KEYS:
            raise ConfigError(f"there are {len(known)} keys", mend=f"There may be {MOST_KEYS}")
        self.keys = tuple(known.values())
        self._shelves: dict[int, list[Key]] = {}
        for key in self.keys:
            self._shelves.setdefault(key.digest[0], []).append(key)

    @classmethod
    def read(cls, file: Path | None, environment: Mapping[str, str]) -> "KeyRing":
        """The keys of a file of hashes, if there is one, and of the environment.

        Raises:
            ConfigError: the file cannot be read or a line of it is wrong, or a key of the environment is too short. No
                message holds a key.
        """
        return cls([*from_environment(environment), *(from_file(file) if file is not None else ())])

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, secret: bytes) -> Key | None:
        """The key with these bytes, if it is known, in a time that tells nothing of any key.

        Where is looked depends on the hash of what was sent, and whoever sent it could compute that; what is found there is
        compared to the last byte.
        """
        digest = sha256(secret).digest()
        found = None
        for key in self._shelves.get(digest[0], ()):
            if compare_digest(key.digest, digest):
                found = key
        return found


NO_KEYS = KeyRing(())


def from_environment(environment: Mapping[str, str]) -> Iterator[Key]:
    """The keys of the environment. Raises ConfigError when one is too short."""
    for word, role in _ROLES.items():
        for name in (f"RECALL_{word.upper()}_KEY", f"RECALL_{word.upper()}_KEYS"):
            given = environment.get(name, "")
            for secret in given.split(",") if name.endswith("S") else [given]:
                raw = secret.strip().encode(errors="surrogateescape")
                if raw and len(raw) < SHORTEST:
                    raise ConfigError(f"a key has at least {SHORTEST} characters", where=name, mend=_MAKE)
                if raw:
                    yield Key(sha256(raw).digest(), role, name)


def from_file(file: Path) -> Iterator[Key]:
    """The keys of a file of hashes. Raises ConfigError when it cannot be read, or a line is wrong."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError("the file of keys cannot be read", where=str(file), why=why or "") from None
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if words:
            yield _parsed(words, f"{file}:{number}")


def _parsed(words: list[str], where: str) -> Key:
    role = _ROLES.get(words[0])
    if role is None:
        raise ConfigError("a line begins with what the key allows", where=where, mend=nearest(words[0][:10], _ROLES))
    hashed = words[1] if len(words) > 1 else ""
    try:
        digest = bytes.fromhex(hashed.removeprefix(_HASH))
    except ValueError:
        digest = b""
    if not hashed.startswith(_HASH) or len(digest) != sha256().digest_size:
        raise ConfigError("the hash of a key is sha256: and 64 hexadecimal digits", where=where, mend=_MAKE)
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
        raise ConfigError("a rate is a number of requests a second, above 0", where=where, mend="Write it as rate=50")
    return rate
