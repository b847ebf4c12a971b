"""The `recall` command: registers the subcommands and ends the process.

The modules of the commands import little; each imports its dependencies when it runs, so that `recall --help` is quick.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from recall.cli import output
from recall.cli.bundle import activate, export_bundle, new_key, roll_back, serve, show_bundle, show_versions, verify_bundle
from recall.cli.data import check_data, config_keys, config_schema, generate_data, init, prepare_data, show_config
from recall.cli.demo import demo
from recall.cli.evaluate import compare, evaluate, predict, report
from recall.cli.overview import ABOUT, COMMANDS
from recall.cli.publish import backup, compact, delete_items, import_model, publish_version, rebuild, upsert_items
from recall.cli.query import query, recommend
from recall.cli.train import retrain, train
from recall.cli.tune import tune, tune_index
from recall.cli.users import erase_users, load_users
from recall.errors import TrainingInterruptedError


def run(given: Sequence[str]) -> None:
    """Run the command line with arguments and exit."""
    meant = [argument for argument in given if argument != "--debug"]
    try:
        application()(args=meant, prog_name="recall")
    except Exception as error:
        code = output.show_error(error, trace=len(meant) < len(given))
        if isinstance(error, TrainingInterruptedError):
            _leave(code)
        sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for its threads.

    A signal that arrives between the two steps of `threading.Condition.__enter__` leaves the lock of a future held. Its thread
    never ends then, and a normal exit would wait for it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # the reader of a pipe may be gone
            stream.flush()
    os._exit(code)


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "init": init,
    "train": train,
    "evaluate": evaluate,
    "query": query,
    "serve": serve,
    "tune": tune,
    "tune-index": tune_index,
    "recommend": recommend,
    "predict": predict,
    "report": report,
    "compare": compare,
    "retrain": retrain,
    "rebuild": rebuild,
    "import": import_model,
    "compact": compact,
    "publish": publish_version,
    "backup": backup,
    "versions": show_versions,
    "activate": activate,
    "rollback": roll_back,
}
_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "data": {"check": check_data, "prepare": prepare_data, "generate": generate_data},
    "bundle": {"show": show_bundle, "verify": verify_bundle, "export": export_bundle},
    "items": {"upsert": upsert_items, "delete": delete_items},
    "users": {"load": load_users, "erase": erase_users},
    "key": {"new": new_key},
    "config": {"show": show_config, "schema": config_schema, "keys": config_keys},
}
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of `serve`, whose arguments are those of another command."""


def application() -> typer.Typer:
    """Return the typer application with all commands."""
    app = _group(ABOUT, _COMMANDS)
    app.callback(context_settings={"help_option_names": ["-h", "--help"]})(_options)
    for name, commands in _GROUPS.items():
        app.add_typer(_group(COMMANDS[name], commands), name=name)
    return app


def _group(text: str, commands: Mapping[str, Callable[..., None]]) -> typer.Typer:
    app = typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    for name, command in commands.items():
        whole = " ".join((command.__doc__ or "").partition("\n\n")[0].split())  # which lists of commands would cut
        app.command(name, short_help=whole, context_settings=_PASSED_ON if command is serve else None)(command)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("fm-recall"))
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error; valid anywhere.")] = False,
) -> None:
    """Train factorization machines on interactions, and serve recommendations."""
