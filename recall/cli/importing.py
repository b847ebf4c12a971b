"""`recall import`."""

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
