"""`recall key`: keys that open a service."""

import re
import secrets
from enum import StrEnum
from hashlib import sha256
from typing import Annotated

import typer

from recall.cli import output

_NAME = re.compile(r"[A-Za-z0-9._ -]*")
_BYTES = 32  # more than anybody can try


class Role(StrEnum):
    """What a key allows."""

    READ = "read"
    ADMIN = "admin"


def new_key(
    role: Annotated[Role, typer.Option(help="read: may ask; admin: may change something too.")] = Role.READ,
    name: Annotated[str, typer.Option(help="What the key is called in the file of hashes.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make up a key, and print it with the line by which a service knows it. Nothing is kept.

    The service reads such lines from the file that `recall serve --keys` names, or keys themselves from RECALL_READ_KEY and
    RECALL_ADMIN_KEY.
    """
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("a name is made of letters, digits, spaces and . _ -", param_hint="--name")
    key = f"{role}-{secrets.token_urlsafe(_BYTES)}"
    line = " ".join([role, f"sha256:{sha256(key.encode()).hexdigest()}", *name.split()])
    if as_json:
        output.show_json({"key": key, "line": line})
    else:
        output.show({"key": key, "line": line})
