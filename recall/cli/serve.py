"""`recall serve` and `recall key`: start the service, make API keys."""

import os
import re
import secrets
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from recall.cli import output
from recall.cli.output import UnavailableError


def serve(
    context: typer.Context,
    help_: Annotated[bool, typer.Option("--help", help="Show all options and exit.")] = False,
) -> None:
    """Serve recommendations over HTTP; newly published versions are picked up.

    Options are those of `python -m service`, which this command executes; RECALL_... variables set them, too.
    """
    command, environment = _command(["--help"] if help_ else ["--no-wait", *context.args])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def service_command(
    bundle: Path, host: str, port: int, users: str | None = None, options: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Return the command that serves a bundle, and its environment.

    It runs this interpreter with the service of this installation.

    Args:
        bundle: folder of published versions, or one version.
        host: address to listen on.
        port: port to listen on.
        users: address of the user store; default: from the environment.
        options: further options of the service.

    Raises:
        UnavailableError: The dependencies of the service are not installed.
    """
    # in the environment, because the address may contain a password and a command line is visible to all users
    command, environment = _command([str(bundle), "--host", host, "--port", str(port), *options])
    return command, environment if users is None else {**environment, "RECALL_USERS": users}


def _command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UnavailableError("serving needs fastapi and uvicorn", hint="Install them with: pip install 'fm-recall[serve]'")
    home = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    # -P: a folder called `service` in the working directory must not be imported.
    return [sys.executable, "-P", "-m", "service", *arguments], {**os.environ, "PYTHONPATH": path}


_NAME = re.compile(r"[A-Za-z0-9._ -]*")
_BYTES = 32  # 256 bits cannot be guessed


def new_key(
    role: Annotated[Literal["read", "admin"], typer.Option(help="read: queries only; admin: changes as well.")] = "read",
    name: Annotated[str, typer.Option(help="Name of the key in the file of hashes.")] = "",
    as_json: output.Json = False,
) -> None:
    """Generate an API key, and print it with the line of its hash. Nothing is stored.

    The service reads such lines from the file given by `recall serve --keys`, or plain keys from RECALL_READ_KEY and
    RECALL_ADMIN_KEY.
    """
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("a name must consist of letters, digits, spaces and . _ -", param_hint="--name")
    key = f"{role}-{secrets.token_urlsafe(_BYTES)}"
    line = " ".join([role, f"sha256:{sha256(key.encode()).hexdigest()}", *name.split()])
    made = {"key": key, "line": line}
    output.result(as_json, made, made)
