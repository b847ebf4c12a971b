"""`recall rebuild`."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output


def rebuild(
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    items: Annotated[Path, typer.Argument(help="All items as they are now: .parquet or .csv.")],
    out: Annotated[Path | None, typer.Option(help="Folder to publish to; default: BUNDLE.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Column that no field reads; suppresses the warning.")
    ] = None,
    as_of: Annotated[
        int, typer.Option("--as-of", min=0, metavar="SEQUENCE", help="The table contains all live changes up to this one.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish a trained model with a new catalogue, without training.

    The vector of an item is computed from its features.
    """
    from recall.publish.rebuild import rebuild as publish_catalogue

    with output.stage("encode, index, compare, publish"):
        report = publish_catalogue(bundle, items, out if out is not None else bundle, ignore or (), as_of)
    if report.unopened:
        output.note(f"the index of the source could not be opened, and a new one was built: {report.unopened}")
    for line in report.standing.lines():
        output.note(line)
    for warning in report.warnings:
        output.note(f"warning: {warning}")
    if as_json:
        output.show_json(
            {
                "folder": str(report.folder),
                "version": report.manifest.version,
                "added": list(report.added),
                "removed": list(report.removed),
                "changed": list(report.changed),
                "kept": report.kept,
                "users": report.users,
                "overlap": report.overlap,
                "live_changes": report.standing.counts(),
                "warnings": list(report.warnings),
            }
        )
        return
    output.show(
        {
            "published": report.folder,
            "items": f"{len(report.added):,} added, {len(report.removed):,} removed, {len(report.changed):,} changed, "
            f"{report.kept:,} as before",
            "overlap": f"{report.overlap:.1%} of the lists of {report.users:,} users are as before",
        }
    )
