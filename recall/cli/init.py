"""`recall init`: a configuration to start from."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import screen
from recall.cli.failures import require_new


def init(
    folder: Annotated[Path, typer.Argument(help="Folder that holds interactions.csv or .parquet, and perhaps users, items.")],
    user_id: Annotated[str, typer.Option(help="Column with the user's id.")] = "user_id",
    item_id: Annotated[str, typer.Option(help="Column with the item's id.")] = "item_id",
) -> None:
    """Write a first recall.toml for the tables in a folder, to be read and corrected.

    A folder without tables gets a small made-up shop as CSV, as an example of the form.
    """
    from recall.data.synthetic import SyntheticConfig, generate
    from recall.draft import draft

    config = folder / "recall.toml"
    require_new(config)
    if folder.is_dir() and any(folder.iterdir()):
        config.write_text(draft(folder, user_id, item_id), encoding="utf-8")
        screen.note("read it and correct it; then: recall data check " + str(config))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with screen.stage("write a small shop"):
            generate(SyntheticConfig(users=200, items=150, interactions=4_000)).write(folder, ".csv")
        screen.note(f"next: recall train {config}")
    typer.echo(config)
