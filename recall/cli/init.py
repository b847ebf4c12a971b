"""`recall init`: a configuration to start from."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output
from recall.cli.errors import require_new
from recall.errors import DataError


def init(
    folder: Annotated[Path, typer.Argument(help="Folder that holds interactions.csv or .parquet, and perhaps users, items.")],
    user_id: Annotated[str, typer.Option(help="Column with the user's id.")] = "user_id",
    item_id: Annotated[str, typer.Option(help="Column with the item's id.")] = "item_id",
) -> None:
    """Write a first recall.toml for the tables in a folder, to be read and corrected.

    An empty folder gets a small made-up shop as CSV, as an example of the form.
    """
    from recall.data.scaffold import draft
    from recall.data.synthetic import SyntheticConfig, generate

    config = folder / "recall.toml"
    if not folder.is_dir():
        raise DataError(
            "there is no such folder",
            where=str(folder),
            mend="Correct the path, or make an empty folder, which gets a small made-up shop",
        )
    require_new(config)
    if any(folder.iterdir()):
        config.write_text(draft(folder, user_id, item_id), encoding="utf-8")
        output.note("read it and correct it; then: recall data check " + str(config))
    else:
        with output.stage("write a small shop"):
            generate(SyntheticConfig(users=200, items=150, interactions=4_000)).write(folder, ".csv")
        output.note(f"next: recall train {config}")
    typer.echo(config)
