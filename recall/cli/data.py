"""`recall data`, `init` and `config`: tables, and the configuration for them."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output
from recall.cli.output import require_new
from recall.errors import DataError

if TYPE_CHECKING:
    from recall.config import RunConfig
    from recall.data.findings import Finding

_CHOSEN_AMONG_ALL = 2_000  # items; more would take time and memory with their number
_CONSIDERED = 16  # makes a million choices a second on two cores


def check_data(
    config: output.Config,
    data: output.Data = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as data.min_user=5.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a profile of the tables to one HTML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the tables of a run and report every finding.

    The profile shows counts, the distribution of popularity, interactions over time, missing and distinct values, and the
    findings. The exit code is 65 if a finding prevents training.

    Example: recall data check shop/recall.toml --report profile.html
    """
    from recall.config import load_config
    from recall.data.checks import check

    if report is not None:
        import_module("matplotlib")  # reported before the check, which may take long
    output.require_writable(report)
    loaded, folder = load_config(config, settings or ()), data if data is not None else config.parent
    with output.stage("check the tables") as say:
        findings = check(loaded, folder, say)
    if as_json:
        output.show_json(findings)
    else:
        for finding in findings:
            typer.echo(f"{finding.level:8} {finding.place + ': ' if finding.place else ''}{finding.message}")
        if not findings:
            typer.echo("no findings")
    if report is not None:  # after the findings, since tables with errors may have no profile
        _write_profile(report, loaded, folder, findings)
    faults = sum(finding.level == "error" for finding in findings)
    if faults:
        raise DataError(f"{faults} finding{'s' * (faults > 1)} must be fixed before training", where=str(config))


def _write_profile(path: Path, config: "RunConfig", folder: Path, findings: "Sequence[Finding]") -> None:
    from recall.data.dataset import open_tables
    from recall.data.profile import profile
    from recall.evaluation.html.profile import render

    with output.stage("profile the tables") as say:
        page = render(config.name, profile(config, open_tables(config.data, folder), say), findings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    output.note(f"written: {path}")


def prepare_data(
    config: output.Config,
    data: output.Data = None,
    *,
    out: Annotated[
        Path, typer.Option(metavar="PREPARED", help="Folder to write to: a new folder, or that of an interrupted preparation.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as data.min_user=5.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(min=1, max=99_999, help="Maximum number of shards; default: one for every two million interactions."),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Write the tables as sorted shards, for train, tune, evaluate, compare.

    These commands, rebuild and data check accept the result as --data, and give bit-identical results in less time and
    memory. Tables may be larger than memory. train --resume, retrain and data check --report need the original tables.

    Example: recall data prepare shop/recall.toml --out prepared; recall train shop/recall.toml --data prepared
    """
    from recall.config import load_config
    from recall.data.dataset import open_tables
    from recall.data.prepare import prepare

    loaded, folder = load_config(config, settings or ()), data if data is not None else config.parent
    with output.stage("prepare the tables"):
        manifest = prepare(loaded, open_tables(loaded.data, folder), folder, out, shards)
    for message in manifest.left_out:
        output.note(f"note: {message}")
    output.note(f"next: recall train {config} --data {out}")
    counts = {"interactions": manifest.interactions, "users": manifest.users, "items": manifest.items}
    plain = {"folder": str(out), **counts, "shards": manifest.shards}
    output.result(as_json, plain, {**plain, **{name: f"{count:,}" for name, count in counts.items()}})


def generate_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; created when missing.")],
    interactions: Annotated[int, typer.Option(help="Number of interactions.")] = 60_000,
    users: Annotated[int, typer.Option(help="Number of users.")] = 2_000,
    items: Annotated[int, typer.Option(help="Number of items.")] = 1_500,
    considered: Annotated[
        int | None,
        typer.Option(
            help="Number of items that a synthetic user chooses from, drawn by popularity. More items take longer, and make "
            "tastes more visible. Default: all of up to 2,000 items, 16 of a larger catalogue."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random generator.")] = 0,
    csv: Annotated[bool, typer.Option("--csv", help="Write CSV instead of Parquet.")] = False,
) -> None:
    """Generate the tables of a synthetic shop, and a configuration for them."""
    from recall.data.synthetic import SyntheticConfig, generate

    if considered is None:
        considered = items if items <= _CHOSEN_AMONG_ALL else _CONSIDERED
    asked = SyntheticConfig(users=users, items=items, interactions=interactions, considered=considered, seed=seed)
    suffix = ".csv" if csv else ".parquet"
    require_new(*(folder / name for name in (f"interactions{suffix}", f"users{suffix}", f"items{suffix}", "recall.toml")))
    folder.mkdir(parents=True, exist_ok=True)
    with output.stage("generate"):
        generate(asked).write(folder, suffix)
    output.note(f"next: recall train {folder / 'recall.toml'}")
    typer.echo(folder)


def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder for recall.toml, and of the tables unless the options below give them.")
    ],
    interactions: Annotated[
        Path | None,
        typer.Option(help="File with one row for each interaction: text, JSON lines or Parquet; or a folder of such files."),
    ] = None,
    users: Annotated[Path | None, typer.Option(help="File with one row for each user.")] = None,
    items: Annotated[Path | None, typer.Option(help="File with one row for each item.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Column with the user id; default: detected.")] = None,
    item_id: Annotated[str | None, typer.Option(help="Column with the item id; default: detected.")] = None,
) -> None:
    """Write a configuration (recall.toml) for your tables, to review before training.

    Detects separator, encoding, header, id columns, times, decimal commas, missing values and event types. A comment gives
    the reason for each setting. In an empty folder, it first generates the tables of a small synthetic shop as CSV.

    Example: recall init shop --interactions ratings.csv --items movies.csv --users people.tsv
    """
    from recall.data.scaffold.draft import draft
    from recall.data.synthetic import SyntheticConfig, generate

    config = folder / "recall.toml"
    given = (("interactions", interactions), ("users", users), ("items", items))
    files = {name: path for name, path in given if path is not None}
    if files and interactions is None:
        raise typer.BadParameter("--users and --items require --interactions")
    if not folder.is_dir() and not files:
        raise DataError(
            "there is no such folder",
            where=str(folder),
            hint="Correct the path, or create an empty folder, which gets a small synthetic shop",
        )
    require_new(config)
    if files or any(folder.iterdir()):
        drafted = draft(folder, user_id, item_id, files)
        folder.mkdir(parents=True, exist_ok=True)
        config.write_text(drafted, encoding="utf-8")
        for line in drafted.splitlines():
            if line.startswith("# warning: "):
                output.note(line.removeprefix("# "))
        output.note("review and correct it, then run: recall data check " + str(config))
    else:
        with output.stage("generate a small shop"):
            generate(SyntheticConfig(users=200, items=150, interactions=4_000)).write(folder, ".csv")
        output.note(f"next: recall train {config}")
    typer.echo(config)


def show_config(
    config: output.Config,
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
