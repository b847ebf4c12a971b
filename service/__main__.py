"""`python -m service BUNDLE`: the command line of the service and `recall serve`."""

import errno
import logging.config
import os
import resource
import socket
import ssl
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError

from recall.bundle.activation import candidates
from recall.bundle.versions import resolve
from recall.errors import BundleError, ConfigError, RecallError
from service.config import Settings
from service.logs import logging_of
from service.tokens import own_key

_USAGE = 2
_UNAVAILABLE = 69  # as other exit codes, from sysexits.h
_APPLICATION = "service.app:create_app"
_POLLS = 16
"""Connections accepted in one iteration of the event loop, which accepts one from each listening socket: when many clients
connect while searches run, the last would otherwise wait for as many iterations before its request is read."""


class AddressError(RecallError):
    """The address cannot be listened on."""

    exit_code = _UNAVAILABLE


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        arguments: of the command line; None for those of this process.
    """
    try:
        serve(Settings(_cli_parse_args=sys.argv[1:] if arguments is None else arguments))  # type: ignore[call-arg]
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            name = "".join(map(str, one["loc"][:1])).replace("_", "-")
            print(f"--{name}: {one['msg']}. `--help` lists the options.", file=sys.stderr)  # noqa: T201
        sys.exit(_USAGE)
    except RecallError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def serve(settings: Settings) -> None:
    """Run the server.

    Raises:
        AddressError: Another process listens there, or this machine does not have the address.
        BundleError: As `service.app.create_app`; or there is no bundle yet, with `wait` off.
        ConfigError: As `service.app.create_app`; or the certificate cannot be used.
    """
    _require_free(settings)
    _require_certificate(settings)
    from service.app import prepare  # importing it takes a second

    prepare(settings)
    if not settings.wait:
        try:
            resolve(settings.bundle)
        except BundleError:
            if not candidates(settings.bundle):  # otherwise the last good version is served
                raise
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # otherwise the limit is not raised
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.config.dictConfig(logging_of(settings.logs))
    with ExitStack() as stack:
        os.environ.update(settings.environment())  # from which each worker makes its settings
        if settings.workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="recall-workers-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            os.environ["RECALL_TOKEN_KEY"] = settings.token_key or own_key(settings.bundle)
        options: dict[str, Any] = {
            "factory": True,
            "host": settings.host,
            "port": settings.port,
            "uds": settings.uds,
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
            "workers": settings.workers,
            "lifespan": "on",
            "ws": "none",
            "log_config": logging_of(settings.logs),
            "access_log": False,  # costs a tenth of an answer; --access logs a sample
            "proxy_headers": False,  # nothing depends on the client's address, and parsing them costs as much as admission
            "server_header": False,
            "limit_concurrency": settings.connections,
            "timeout_keep_alive": settings.patience,
            "timeout_graceful_shutdown": settings.grace,
            "timeout_worker_healthcheck": int(settings.silence),
        }
        if settings.workers > 1:
            uvicorn.run(_APPLICATION, **options)
            return
        config = uvicorn.Config(_APPLICATION, **options)
        listener = config.bind_socket()
        listener.set_inheritable(False)  # a compaction that outlives the service must not keep its port
        with suppress(KeyboardInterrupt):  # the server raises the signal again once it has shut down
            uvicorn.Server(config).run([listener, *(listener.dup() for _ in range(_POLLS - 1))])


def _require_free(settings: Settings) -> None:
    """Raise AddressError before anything is loaded, where the server could not listen."""
    if settings.uds is not None:
        _require_free_socket(Path(settings.uds))
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            place, hint = f"{settings.host}:{settings.port}", "Choose another port with --port, or 0 for any"
            raise AddressError("cannot listen", where=place, why=error.strerror or str(error), hint=hint) from error


def _require_free_socket(path: Path) -> None:
    """Remove the socket of an ended service; raise AddressError for other paths.

    Binding fails where a file exists, and a server leaves its socket behind, killed or not.
    """
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            answer = probe.connect_ex(str(path))
            if answer == 0 or not (path.is_socket() or answer == errno.ENOENT):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE) if answer == 0 else "it is not a socket")
            if answer == errno.ECONNREFUSED:  # no process listens on it any more
                path.unlink()
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        why, hint = error.strerror or str(error), "Choose another path with --uds"
        raise AddressError("cannot listen", where=str(path), why=why, hint=hint) from error


def _require_certificate(settings: Settings) -> None:
    """Raise ConfigError where the certificate or its key cannot be used."""
    certificate, key = settings.ssl_certfile, settings.ssl_keyfile
    if certificate is None and key is None:
        return
    try:
        if certificate is None:
            raise OSError("a key needs --ssl-certfile")
        # without a password, OpenSSL would ask for that of an encrypted key on the terminal
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        options = (("--ssl-certfile", certificate), ("--ssl-keyfile", key))
        where = " ".join(f"{option} {path}" for option, path in options if path is not None)
        hint = "Give a certificate and its key as PEM files, without a password"
        why = error.strerror or str(error)
        raise ConfigError("HTTPS cannot be served", where=where, why=why, hint=hint) from error


if __name__ == "__main__":
    main()
