"""`recall config`: print the settings of a run, the schema, and the reference."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output


def show_config(
    config: Annotated[Path, typer.Argument(help="A TOML file.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.sweeps=4.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of dotted keys.")] = False,
) -> None:
    """Print every setting of a run, defaults included."""
    from recall.config import load_config
    from recall.config.docs import dotted, toml

    loaded = load_config(config, settings or ())
    if as_json:
        output.show_json(loaded.model_dump(mode="json"))
        return
    for key, value in dotted(loaded):
        typer.echo(f"{key} = {toml(value)}")


def config_schema() -> None:
    """Print the JSON Schema of configuration files, for editors."""
    from recall.config import RunConfig

    output.show_json(RunConfig.model_json_schema())


def config_keys() -> None:
    """Print every key with its type, default and meaning, as Markdown."""
    from recall.config.docs import markdown

    typer.echo(markdown(), nl=False)
