"""`python -m service BUNDLE`: the service without the rest of the command line."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from recall.errors import RecallError
from service.settings import Settings


def main(
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    users: Annotated[
        str,
        typer.Option(
            envvar="RECALL_USERS",
            show_default=False,
            help="Where changes of users are kept: 'sqlite' (the default) or redis://HOST:PORT/DB.",
        ),
    ] = "sqlite",
    users_seconds: Annotated[float, typer.Option(help="Seconds that a request waits for Redis at most.")] = 0.02,
    poll: Annotated[float, typer.Option(help="Seconds between two looks for a newer bundle.")] = 1.0,
    write_back: Annotated[
        float, typer.Option(help="Seconds after which changes that a lost log lacks are written back.")
    ] = 5.0,
    max_body: Annotated[int, typer.Option(help="Largest request body in bytes.")] = 1 << 20,
    patience: Annotated[int, typer.Option(help="Seconds that a client may take to send its headers, or its body.")] = 10,
    drain: Annotated[float, typer.Option(help="Seconds between SIGTERM and the end of listening.")] = 1.0,
    docs: Annotated[bool, typer.Option(help="Serve /docs and /openapi.json.")] = True,
    page: Annotated[bool, typer.Option(help="Serve the web page at /.")] = True,
    keys: Annotated[Path | None, typer.Option(help="A file with hashes of keys, as `recall key new` prints them.")] = None,
    insecure: Annotated[bool, typer.Option(help="Listen where others can ask, without any key.")] = False,
    hosts: Annotated[str, typer.Option(help="Names, with commas between them, that requests may be sent to; * for any.")] = "",
    rate: Annotated[float | None, typer.Option(help="Requests a second of each key.")] = None,
    waiting: Annotated[int, typer.Option(help="Requests that may wait for a search for a moment.")] = 128,
    standing: Annotated[int, typer.Option(help="Requests that may wait when many have waited for a tenth of a second.")] = 32,
    age: Annotated[float, typer.Option(help="Seconds that a request waits for a search at most.")] = 0.5,
    workers: Annotated[int, typer.Option(help="Processes that answer.")] = 1,
    silence: Annotated[float, typer.Option(help="Seconds that a worker may do nothing before it is started anew.")] = 15.0,
    logs: Annotated[Literal["text", "json"], typer.Option(help="How events are logged.")] = "text",
    access: Annotated[float, typer.Option(help="Share of the requests that are logged.")] = 0.0,
    otel: Annotated[bool, typer.Option(help="Trace requests with OpenTelemetry, as its OTEL_... variables say.")] = False,
    shadow: Annotated[float, typer.Option(help="Share of requests answered once more, exactly, to measure recall.")] = 0.001,
    connections: Annotated[int, typer.Option(help="Connections that one process holds open.")] = 4096,
) -> None:
    """Serve recommendations over HTTP."""
    settings = Settings(
        bundle=bundle,
        host=host,
        port=port,
        poll=poll,
        write_back=write_back,
        max_body=max_body,
        patience=patience,
        drain=drain,
        docs=docs,
        page=page,
        keys=keys,
        insecure=insecure,
        hosts=tuple(name for name in hosts.split(",") if name.strip()),
        rate=rate,
        waiting=waiting,
        standing=standing,
        age=age,
        workers=workers,
        silence=silence,
        connections=connections,
        shadow=shadow,
        otel=otel,
        logs=logs,
        access=access,
        users=users,
        users_seconds=users_seconds,
    )
    try:
        if settings.workers > 1:
            from service.workers import supervise

            supervise(settings)  # without what only serving needs
        else:
            from service.app import serve

            serve(settings)
    except RecallError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from None


if __name__ == "__main__":
    typer.run(main)
