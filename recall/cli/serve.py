"""`recall serve` and `recall key`."""

import os
import re
import secrets
import sys
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output
from recall.cli.errors import UnavailableError


def serve(
    context: typer.Context,
    help_: Annotated[bool, typer.Option("--help", help="Show all options and exit.")] = False,
) -> None:
    """Serve recommendations over HTTP until it is told to stop; takes each newly published bundle by itself.

    All options are those of `python -m service`, which this becomes; RECALL_... variables set them, too.
    """
    command, environment = _command(["--help"] if help_ else ["--no-wait", *context.args])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def service_command(
    bundle: Path, host: str, port: int, users: str | None = None, options: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """The command that serves a bundle, and its environment: the same interpreter, and the service of this installation.

    Raises:
        UnavailableError: what serving needs is not installed.
    """
    # not on the command line: the address may hold a password, which every user of the machine would see there
    command, environment = _command([str(bundle), "--host", host, "--port", str(port), *options])
    return command, environment if users is None else {**environment, "RECALL_USERS": users}


def _command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UnavailableError("serving needs fastapi and uvicorn", hint="Install them with: pip install 'fm-recall[serve]'")
    home = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    # -P: a folder called `service` where the command is given is not the service.
    return [sys.executable, "-P", "-m", "service", *arguments], {**os.environ, "PYTHONPATH": path}


# `recall key`: keys that open a service.

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
