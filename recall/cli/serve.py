"""`recall serve`: becomes the service, which this package does not import."""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from recall.cli.failures import UnavailableError


def serve(
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    users: Annotated[
        str | None,
        typer.Option(
            envvar="RECALL_USERS",
            help="Where changes of users are kept: a file beside the bundles unless redis://HOST:PORT/DB is given.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that answer; they share the index.", min=1, max=256)] = 1,
    keys: Annotated[Path | None, typer.Option(help="A file with hashes of keys, as `recall key new` prints them.")] = None,
    insecure: Annotated[bool, typer.Option(help="Listen where others can ask, without any key.")] = False,
    hosts: Annotated[
        str, typer.Option(help="Names, with commas between them, that requests may be sent to besides localhost; * for any.")
    ] = "",
    docs: Annotated[bool, typer.Option(help="Serve /docs and /openapi.json.")] = True,
    page: Annotated[bool, typer.Option(help="Serve the web page at /.")] = True,
    logs: Annotated[Literal["text", "json"], typer.Option(help="How events are logged.")] = "text",
    otel: Annotated[bool, typer.Option(help="Trace requests with OpenTelemetry, as its OTEL_... variables say.")] = False,
) -> None:
    """Serve recommendations over HTTP until it is told to stop; takes each newly published bundle by itself.

    `python -m service --help` names the rest of what can be set.
    """
    from recall.bundle.activation import candidates
    from recall.bundle.publish import resolve
    from recall.errors import BundleError

    try:
        resolve(bundle)  # an error in the path is told here, not by a service that waits for a bundle to come
    except BundleError:
        if not candidates(bundle):  # else the last good version is served, and says so
            raise
    options = ["--workers", str(workers), *(["--keys", str(keys)] if keys else [])]
    options += [*(["--insecure"] if insecure else []), *([] if docs else ["--no-docs"]), *([] if page else ["--no-page"])]
    options += ["--hosts", hosts] if hosts else []
    options += ["--logs", logs, *(["--otel"] if otel else [])]
    command, environment = service_command(bundle, host, port, users, options)
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
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise UnavailableError("serving needs fastapi and uvicorn", mend="Install them with: pip install 'fm-recall[serve]'")
    home = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    # -P: a folder called `service` where the command is given is not the service.
    command = [sys.executable, "-P", "-m", "service", str(bundle), "--host", host, "--port", str(port), *options]
    # not on the command line: the address may hold a password, which every user of the machine would see there
    return command, {**os.environ, "PYTHONPATH": path, **({} if users is None else {"RECALL_USERS": users})}
