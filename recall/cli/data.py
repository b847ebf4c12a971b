"""`recall data` and `recall init`: look at tables, make some up, draft a configuration for them."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output
from recall.cli.errors import require_new
from recall.errors import DataError


def check_data(
    config: Annotated[Path, typer.Argument(help="A TOML file.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the tables; that of the configuration when left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Report all that is odd about the tables of a run. Exit code 65 when it could not be trained."""
    from dataclasses import asdict

    from recall.config import load_config
    from recall.data.checks import check

    loaded = load_config(config)
    with output.stage("check the tables"):
        findings = check(loaded, data if data is not None else config.parent)
    if as_json:
        output.show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.level:8} {finding.place + ': ' if finding.place else ''}{finding.message}")
        if not findings:
            typer.echo("nothing odd was found")
    faults = sum(finding.level == "error" for finding in findings)
    if faults:
        raise DataError(f"{faults} finding{'s' * (faults > 1)} must be mended before training", where=str(config))


def generate_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made when it does not exist.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 2_000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 1_500,
    interactions: Annotated[int, typer.Option(help="Number of interactions.")] = 60_000,
    seed: Annotated[int, typer.Option(help="Another seed, another shop.")] = 0,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV in place of Parquet.")] = False,
) -> None:
    """Write the tables of a made-up shop, and a configuration that fits them."""
    from recall.data.synthetic import SyntheticConfig, generate

    asked = SyntheticConfig(users=users, items=items, interactions=interactions, seed=seed)
    suffix = ".csv" if csv else ".parquet"
    require_new(*(folder / name for name in (f"interactions{suffix}", f"users{suffix}", f"items{suffix}", "recall.toml")))
    folder.mkdir(parents=True, exist_ok=True)
    with output.stage("generate"):
        generate(asked).write(folder, suffix)
    output.note(f"next: recall train {folder / 'recall.toml'}")
    typer.echo(folder)


# `recall init`: a configuration to start from.


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
            hint="Correct the path, or make an empty folder, which gets a small made-up shop",
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
