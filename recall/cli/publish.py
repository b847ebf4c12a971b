"""`recall import`, `rebuild`, `publish`, `backup`: versions not trained here."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output

if TYPE_CHECKING:
    from recall.publish.importers.importer import ImportReport


class Kind(StrEnum):
    """Program or format that the model comes from."""

    LIBFM = "libfm"
    LIBFFM = "libffm"
    XLEARN = "xlearn"
    LIGHTFM = "lightfm"
    ARRAYS = "arrays"


def import_model(
    kind: Annotated[Kind, typer.Argument(help="Program that wrote the model; 'arrays' are those of fastFM and myFM.")],
    file: Annotated[Path, typer.Argument(help="The model: text of libFM, libffm or xLearn; .npz of LightFM and arrays.")],
    mapping: Annotated[Path | None, typer.Option(help="Table with one row a feature: feature, side, field, value.")] = None,
    items: Annotated[Path | None, typer.Option(help="All items: .parquet or .csv.")] = None,
    users: Annotated[Path | None, typer.Option(help="Known users: .parquet or .csv.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to publish a new version to.")] = Path("bundles"),
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "imported",
    user_id: Annotated[str, typer.Option(help="Column with a user's id.")] = "user_id",
    item_id: Annotated[str, typer.Option(help="Column with an item's id.")] = "item_id",
    no_norm: Annotated[bool, typer.Option("--no-norm", help="xLearn was run with --no-norm.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish a model of another program, verified against its score definition.

    Example: recall import libfm model.txt --mapping features.csv --items items.csv --out bundles
    """
    from recall.publish.importers.importer import run_import

    with output.stage("read, encode, verify, index, publish"):
        report = run_import(kind.value, file, mapping, items, users, out, name, (user_id, item_id), no_norm)
    for line in report.standing.lines():
        output.note(line)
    if as_json:
        output.show_json(_result(report))
    else:
        output.show(_lines(report))


def _result(report: "ImportReport") -> dict[str, object]:
    manifest = report.manifest
    return {
        "folder": str(report.folder),
        "version": manifest.version,
        "sizes": manifest.sizes.model_dump(),
        "parity": manifest.parity.model_dump(),
        "index": manifest.index.model_dump(),
        "unknown": dict(report.unknown),
    }


def _lines(report: "ImportReport") -> dict[str, object]:
    sizes, parity = report.manifest.sizes, report.manifest.parity
    lines: dict[str, object] = {
        "published": report.folder,
        "model": f"{report.manifest.model.kind}, {sizes.k} factors, vectors of {sizes.dim} numbers",
        "catalogue": f"{sizes.items:,} items ({sizes.n_item_features:,} features), "
        f"{sizes.users:,} users ({sizes.n_user_features:,} features)",
        "proof": f"served scores differ from the definition's by {parity.largest_error:.1e} at most "
        f"({parity.users:,} users x {parity.items:,} items, tolerance {parity.tolerance:.0e})",
    }
    if report.unknown:
        named = ", ".join(f"{count:,} of {field}" for field, count in report.unknown.items())
        lines["unknown"] = f"item values that the mapping does not name, which are ignored: {named}"
    return lines


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
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Publish although no item of BUNDLE is in the table.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish a trained model with a new catalogue, without training.

    The vector of an item is computed from its features.
    """
    from recall.publish.rebuild import rebuild as publish_catalogue

    with output.stage("encode, index, compare, publish"):
        root = out if out is not None else bundle
        report = publish_catalogue(bundle, items, root, ignore or (), as_of, other_data=other_data)
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


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def publish_version(
    version: Annotated[Path, typer.Argument(help="The version to publish, or a root elsewhere, whose live one is taken.")],
    root: Annotated[Path, typer.Argument(help="The folder of published bundles to publish to.")],
    as_of: Annotated[
        int,
        typer.Option(
            "--as-of", min=0, metavar="SEQUENCE", help="The version contains all live changes of ROOT up to this one."
        ),
    ] = 0,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Publish although ROOT serves a version of another data set.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify and publish a version built elsewhere, below the live changes of ROOT."""
    from recall.publish.adopt import adopt

    with output.stage("verify, ask golden requests, publish"):
        adopted = adopt(version, root, as_of, other_data=other_data)
    if adopted.unmatched:
        output.note(f"warning: {adopted.unmatched}")
    for line in adopted.standing.lines():
        output.note(line)
    if as_json:
        output.show_json(
            {
                "folder": str(adopted.folder),
                "version": adopted.manifest.version,
                "source": adopted.source,
                "live_changes": adopted.standing.counts(),
            }
        )
    else:
        output.show({"published": adopted.folder, "from": adopted.source, "items": f"{adopted.manifest.sizes.items:,}"})


def backup(
    root: Annotated[Path, typer.Argument(help="The folder of published bundles; may be in use.")],
    to: Annotated[Path, typer.Argument(help="A folder that does not exist yet; can be served as it is.")],
    as_json: Json = False,
) -> None:
    """Copy a root with its live changes and users at one point in time; verify it."""
    from recall.publish.backup import backup as copy

    with output.stage("copy, verify"):
        report = copy(root, to)
    if as_json:
        output.show_json(
            {
                "folder": str(report.folder),
                "live": report.live,
                "versions": report.versions,
                "linked": report.linked,
                "changes": report.changes,
                "users": report.users,
            }
        )
    else:
        output.show(
            {
                "copied to": report.folder,
                "live": report.live,
                "versions": f"{report.versions:,}, {report.linked:,} of their files linked",
                "changes up to": f"{report.changes:,} of items, {report.users:,} of users",
            }
        )
