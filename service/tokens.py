"""Signed tokens that carry their state, so that any worker or replica reads them.

They are signed and not encrypted: the caller can read the content of a token, but cannot change it.
"""

import logging
import secrets
from base64 import b64decode, b64encode
from functools import cached_property
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from recall._file_system import locked_descriptor, replaced_file
from recall.bundle.manifest import MANIFEST
from recall.bundle.versions import KEY_FILE
from service.errors import FaultDocument, Kind, ProblemError, invalid

log = logging.getLogger("service")

SHORTEST_KEY = 16
"""Characters of a key, at least."""
_DIGEST = 4  # bytes of an item: two of a thousand items have the same once in 8,000 lists
MOST_LISTED = 200
"""Items of a list that its recommendation id names."""


class PageToken(NamedTuple):
    """Content of a page token.

    Attributes:
        request: the request whose list it continues, as plain values.
        scenario: its scenario; empty for none.
        bundle: version that answered.
        shown: digests of the items on the pages before.
    """

    request: dict[str, Any]
    scenario: str
    bundle: str
    shown: tuple[bytes, ...]


class ListToken(NamedTuple):
    """Content of a recommendation id; attributes as those of `PageToken`."""

    scenario: str
    bundle: str
    listed: tuple[bytes, ...]


def digest(item_id: str) -> bytes:
    """Return a few bytes that identify an item in a token."""
    return blake2b(item_id.encode(), digest_size=_DIGEST).digest()


_SALTS = {PageToken: "page", ListToken: "list"}
SECONDS: dict[type[PageToken | ListToken], int] = {PageToken: 60 * 60, ListToken: 30 * 24 * 60 * 60}
"""Age at which tokens expire."""
Token = TypeVar("Token", PageToken, ListToken)


class Tokens:
    """Writes and reads the tokens of one root."""

    def __init__(self, bundle: Path, key: str | None) -> None:
        """Read no key yet.

        Args:
            bundle: the root, or a single bundle.
            key: the configured key; None for the root's own.
        """
        self._bundle, self._configured = bundle, key

    def write(self, state: PageToken | ListToken) -> str:
        """Return a signed token with this content."""
        *rest, digests = state
        return str(self._serializer(type(state)).dumps([*rest, b64encode(b"".join(digests)).decode()]))

    def read(self, kind: type[Token], token: str, where: str) -> Token:
        """Read a token.

        Args:
            kind: of the token.
            token: as it was sent.
            where: JSON pointer, used in the problem.

        Raises:
            ProblemError: It was changed, made with another key, or has expired.
        """
        try:
            *rest, joined = self._serializer(kind).loads(token, max_age=SECONDS[kind])
        except SignatureExpired:
            raise stale(where, f"It is older than {SECONDS[kind]} seconds.") from None
        except BadData:
            message = "This token is not from this service, or was changed; send it as it was received"
            raise invalid([FaultDocument(where, message)]) from None
        whole = b64decode(joined)
        return kind._make((*rest, tuple(whole[start : start + _DIGEST] for start in range(0, len(whole), _DIGEST))))

    @cached_property
    def _key(self) -> str:
        return self._configured or own_key(self._bundle)

    def _serializer(self, kind: type[PageToken | ListToken]) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self._key, salt=_SALTS[kind], signer_kwargs={"digest_method": sha256})


def own_key(bundle: Path) -> str:
    """Return the key of a root, made at first use; else one of this process.

    Args:
        bundle: the root, or a single bundle, which no file may be added to.
    """
    path, key = bundle / KEY_FILE, secrets.token_hex(32)
    if (bundle / MANIFEST).exists():
        return key
    try:
        if not path.exists():
            with locked_descriptor(bundle):  # one process makes it
                if not path.exists():
                    with replaced_file(path) as made:
                        made.touch(0o600)
                        made.write_text(key, encoding="ascii")
        kept = path.read_text(encoding="ascii")
        if len(kept) < SHORTEST_KEY:  # an empty one can be guessed
            raise ValueError(f"{KEY_FILE} has {len(kept)} characters, and needs {SHORTEST_KEY}; remove it, and another is made")
        return kept
    except (OSError, ValueError) as error:
        log.warning(
            "tokens are valid until the service ends, as no key can be kept in %s (%s): set RECALL_TOKEN_KEY", bundle, error
        )
        return key


def stale(where: str, why: str) -> ProblemError:
    """Return the problem of a token that was valid once.

    Args:
        where: JSON pointer to the token.
        why: it is not any more, in a sentence.
    """
    return ProblemError(Kind.STALE, "Leave the token out, and start again.", [FaultDocument(where, why)])
