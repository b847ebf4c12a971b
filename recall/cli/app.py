"""`recall`: its commands, and how the process ends.

A command's module is light; what does the work is imported when the command runs, so that `recall --help` is quick.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import typer

from recall.cli import errors
from recall.cli.bundle import export_bundle, show_bundle, verify_bundle
from recall.cli.config import config_keys, config_schema, show_config
from recall.cli.data import check_data, generate_data, init
from recall.cli.demo import demo
from recall.cli.evaluate import evaluate
from recall.cli.importing import import_model
from recall.cli.items import compact, delete_items, upsert_items
from recall.cli.predict import predict
from recall.cli.query import query
from recall.cli.rebuild import rebuild
from recall.cli.serve import new_key, serve
from recall.cli.train import train
from recall.cli.tune import tune, tune_index
from recall.cli.versions import activate, backup, publish_version, roll_back, show_versions

_ABOUT = "Recommendations by factorization machine: from tables to an answer over HTTP."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process.

    Args:
        arguments: without the program's name; those of the process when None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    meant = [argument for argument in given if argument != "--debug"]
    try:
        application()(args=meant, prog_name="recall")
    except Exception as error:
        sys.exit(errors.show(error, trace=len(meant) < len(given)))


def application() -> typer.Typer:
    """All commands."""
    app = _group(_ABOUT, {"demo": demo, "init": init, "train": train, "evaluate": evaluate, "query": query})
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("serve", context_settings=passing_on)(serve)
    app.command("tune")(tune)
    app.command("tune-index")(tune_index)
    app.command("predict")(predict)
    app.command("rebuild")(rebuild)
    app.command("import")(import_model)
    app.command("compact")(compact)
    app.command("publish")(publish_version)
    app.command("backup")(backup)
    app.command("versions")(show_versions)
    app.command("activate")(activate)
    app.command("rollback")(roll_back)
    app.callback()(_options)
    for name, text, commands in _groups():
        app.add_typer(_group(text, commands), name=name)
    return app


def _groups() -> Iterator[tuple[str, str, Mapping[str, Callable[..., None]]]]:
    yield "data", "Look at tables, or make some up.", {"check": check_data, "generate": generate_data}
    shown: dict[str, Callable[..., None]] = {"show": show_bundle, "verify": verify_bundle, "export": export_bundle}
    yield "bundle", "Look at what was published, or write its vectors for other systems.", shown
    yield "items", "Change the catalogue while it is served.", {"upsert": upsert_items, "delete": delete_items}
    yield "key", "Keys that open a service.", {"new": new_key}
    yield "config", "What a configuration says.", {"show": show_config, "schema": config_schema, "keys": config_keys}


def _group(text: str, commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    app = typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    for name, command in commands.items():
        app.command(name)(command)
    return app


def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error; may stand anywhere.")] = False,  # noqa: ARG001 - read by main
) -> None:
    """Recommendations by factorization machine: from tables to an answer over HTTP."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("fm-recall"))
        raise typer.Exit
