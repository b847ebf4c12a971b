"""Headers that keep browsers from doing more with an answer than was meant."""

from base64 import b64encode
from hashlib import sha256

_NEVER_GUESS = (b"x-content-type-options", b"nosniff")
_POLICY = b"content-security-policy"
_PAGES = ("/docs", "/page/")
_NOTHING = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")
_ANSWER = (_NEVER_GUESS, _NOTHING)
_KEEPING = b"cache-control"
_DO_NOT_KEEP = (_KEEPING, b"no-store")

FILES_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy of a page all of whose parts are files of their own, and whose scripts parse no HTML."""


def secure(headers: list[tuple[bytes, bytes]], path: str) -> None:
    """Add to an answer's headers what it lacks.

    Args:
        headers: names in small letters; changed in place.
        path: that was asked for; pages bring a policy of their own.
    """
    if path == "/" or path.startswith(_PAGES):
        headers.append(_NEVER_GUESS)
        if all(name != _POLICY for name, _ in headers):
            headers.append(_NOTHING)
        return
    headers.extend(_ANSWER)
    for name, _ in headers:
        if name == _KEEPING:
            return
    headers.append(_DO_NOT_KEEP)


def page_policy(*scripts: str) -> str:
    """The Content-Security-Policy of a page that loads its own files, and runs these scripts that stand in it."""
    allowed = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'none'; script-src 'self' {allowed}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
