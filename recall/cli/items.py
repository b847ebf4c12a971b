"""`recall items` and `recall compact`: change the catalogue of a live root."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output

if TYPE_CHECKING:
    from recall.store.group_commit import Receipt

Root = Annotated[Path, typer.Argument(help="The folder of published bundles.")]
Key = Annotated[str | None, typer.Option(help="Idempotency key: the same change under the same key is applied once.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def upsert_items(
    root: Root,
    table: Annotated[Path, typer.Argument(help="Complete items: .parquet or .csv with the id column and any features.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Insert or replace items in the live catalogue, without training."""
    from recall.data.entities import listed
    from recall.data.tables import read_items
    from recall.features.values import as_requested
    from recall.publish.rebuild import trained_on
    from recall.serving.recommender import Recommender

    with Recommender.load(root, verify=False) as recommender:
        column = recommender.bundle.encoder.schema.item_id
        read = read_items(trained_on(recommender.bundle.manifest), table)
        items = as_requested(listed(read, column, tuple(name for name in read.columns if name != column), set()))
        receipt = recommender.items.upsert({row.pop(column): row for row in items.iter_rows(named=True)}, key)
        _show(receipt, {"added": len(items) - receipt.known, "replaced": receipt.known}, as_json)


def delete_items(
    root: Root,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of items.")],
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Delete items from the live catalogue."""
    from recall.features.canonical import TEXT, canonical_text
    from recall.serving.recommender import Recommender

    with Recommender.load(root, verify=False) as recommender:
        receipt = recommender.items.delete(ids, key)
        encoder = recommender.bundle.encoder
        type_ = encoder.types.items.get(encoder.schema.item_id, TEXT)
        unknown = len({canonical_text(one, type_) for one in ids}) - receipt.known
        _show(receipt, {"deleted": receipt.known, "not there": unknown}, as_json)


def compact(root: Root, as_json: Json = False) -> None:
    """Publish the current items as a new version, which folds in the live changes."""
    from recall.publish.compact import compact as publish_changes

    with output.stage("encode, index, compare, publish"):
        report = publish_changes(root)
    if report is None:
        if as_json:
            output.show_json({"folder": None})
        else:
            typer.echo("nothing has changed since the live version")
        return
    counts = {"added": len(report.added), "removed": len(report.removed), "changed": len(report.changed), "kept": report.kept}
    if as_json:
        output.show_json(
            {"folder": str(report.folder), "version": report.manifest.version, "folded": report.manifest.folded, **counts}
        )
    else:
        items = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        output.show({"published": report.folder, "items": items, "changes up to": report.manifest.folded})


def _show(receipt: "Receipt", counts: dict[str, int], as_json: bool) -> None:
    for warning in receipt.warnings:
        output.note(f"warning: {warning}")
    if as_json:
        more = {"warnings": list(receipt.warnings)} if receipt.warnings else {}
        output.show_json({"sequence": receipt.sequence, **counts, **more})
    else:
        output.show({**{name: f"{count:,}" for name, count in counts.items()}, "sequence": receipt.sequence})
