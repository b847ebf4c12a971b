"""Commands that change a root without training, such as `recall rebuild`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recall.cli import output
from recall.cli.bundle import Root
from recall.cli.train import REJECTED, Activate

if TYPE_CHECKING:
    from recall.config import RunConfig
    from recall.data.dataset import Dataset
    from recall.publish.importers.importer import ImportReport
    from recall.store.group_commit import Receipt


def import_model(
    kind: Annotated[
        Literal["libfm", "libffm", "xlearn", "lightfm", "arrays"],
        typer.Argument(help="Program that wrote the model; 'arrays' for fastFM and myFM."),
    ],
    file: Annotated[Path, typer.Argument(help="Model file: text of libFM, libffm or xLearn; .npz of LightFM and arrays.")],
    mapping: Annotated[
        Path | None, typer.Option(help="Table with one row for each feature: feature, side, field, value.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to publish a new version to.")] = Path("bundles"),
    users: Annotated[Path | None, typer.Option(help="Table of known users: .parquet or .csv.")] = None,
    items: Annotated[Path | None, typer.Option(help="Table of all items: .parquet or .csv.")] = None,
    name: Annotated[str, typer.Option(help="Name of the bundle.")] = "imported",
    user_id: Annotated[str, typer.Option(help="Column with a user's id.")] = "user_id",
    item_id: Annotated[str, typer.Option(help="Column with an item's id.")] = "item_id",
    no_norm: Annotated[bool, typer.Option("--no-norm", help="xLearn was run with --no-norm.")] = False,
    as_json: output.Json = False,
) -> None:
    """Publish a model that another program has trained.

    Example: recall import libfm model.txt --mapping features.csv --items items.csv --out bundles
    """
    from recall.publish.importers.importer import run_import

    with output.stage("read, encode, verify, index, publish"):
        report = run_import(kind, file, mapping, items, users, out, name, (user_id, item_id), no_norm)
    output.note(*report.log_overlap.describe())
    output.result(as_json, _result(report), _lines(report))


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
        "check": f"served scores differ from the definition by at most {parity.largest_error:.1e} "
        f"({parity.users:,} users x {parity.items:,} items, tolerance {parity.tolerance:.0e})",
    }
    if report.unknown:
        named = ", ".join(f"{count:,} of {field}" for field, count in report.unknown.items())
        lines["unknown"] = f"item values that the mapping does not name, which are ignored: {named}"
    return lines


def rebuild(
    bundle: output.Bundle,
    items: Annotated[Path, typer.Argument(help="Table of all current items: .parquet or .csv.")],
    config: Annotated[
        Path | None,
        typer.Option(help="With --activate if-not-worse: configuration (TOML) whose held-out interactions are evaluated."),
    ] = None,
    data: output.Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder to publish to; default: BUNDLE.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Accept this column although no field reads it; repeatable.")
    ] = None,
    as_of: Annotated[
        int,
        typer.Option(
            "--as-of", min=0, metavar="SEQUENCE", help="The table already contains all live changes up to this sequence number."
        ),
    ] = 0,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Publish even if no item of BUNDLE is in the table.")
    ] = False,
    activate: Activate = "always",
    as_json: output.Json = False,
) -> None:
    """Publish the live model with a new items table, without training.

    The vectors of items are computed from their features. With --activate if-not-worse, a version that is worse than the live
    version is published, but not activated, and the exit code is 3.
    """
    from recall.bundle.versions import live_name
    from recall.evaluation.gate import activates_at_once, settle
    from recall.publish.rebuild import rebuild as publish_catalogue

    root = out if out is not None else bundle
    held = _held_out(root, config, data) if activate == "if-not-worse" else None
    with output.stage("encode, index, compare, publish"):
        before, live = live_name(root), activates_at_once(activate, root)
        report = publish_catalogue(bundle, items, root, ignore or (), as_of, other_data=other_data, activate=live)
    gate = None
    if held is not None:
        with output.stage("compare with the live version"):
            gate = settle(activate, report.folder, root, before, *held)
    elif activate == "never":
        output.note(f"not activated; recall activate {root} {report.folder.name} does so")
    if report.unopened:
        output.note(f"the index of the source could not be opened, and a new one was built: {report.unopened}")
    output.note(*report.log_overlap.describe())
    output.note(*(f"warning: {warning}" for warning in report.warnings))
    output.result(
        as_json,
        {
            "folder": str(report.folder),
            "version": report.manifest.version,
            "added": list(report.added),
            "removed": list(report.removed),
            "changed": list(report.changed),
            "kept": report.kept,
            "users": report.users,
            "overlap": report.overlap,
            "live_changes": report.log_overlap.to_json(),
            "warnings": list(report.warnings),
            **({"gate": gate.model_dump()} if gate is not None else {}),
        },
        {
            "published": report.folder,
            "items": f"{len(report.added):,} added, {len(report.removed):,} removed, {len(report.changed):,} changed, "
            f"{report.kept:,} as before",
            "overlap": f"{report.overlap:.1%} of the lists of {report.users:,} users are as before",
            **(gate.lines() if gate is not None else {}),
        },
    )
    if gate is not None and gate.worse:
        raise typer.Exit(REJECTED)


def _held_out(root: Path, config: Path | None, data: Path | None) -> "tuple[Dataset, RunConfig]":
    """Return the data to compare a version with the live one on."""
    from recall.config import load_config
    from recall.data.dataset import load_dataset
    from recall.evaluation.gate import require_comparable

    if config is None:
        raise typer.BadParameter("--activate if-not-worse requires --config CONFIG, whose held-out interactions are evaluated")
    loaded, folder = load_config(config), data if data is not None else config.parent
    with output.stage("load the tables"):
        dataset = load_dataset(loaded, folder)
    require_comparable(root, dataset, loaded, lambda changed: load_dataset(changed, folder))
    return dataset, loaded


def publish_version(
    version: Annotated[
        Path, typer.Argument(help="Folder of the version to publish, or a root, whose live version is published.")
    ],
    root: Annotated[Path, typer.Argument(help="The folder of published bundles to publish to.")],
    as_of: Annotated[
        int,
        typer.Option(
            "--as-of",
            min=0,
            metavar="SEQUENCE",
            help="The version already contains all live changes of ROOT up to this sequence number.",
        ),
    ] = 0,
    other_data: Annotated[bool, typer.Option("--other-data", help="Publish even if ROOT serves a different data set.")] = False,
    as_json: output.Json = False,
) -> None:
    """Verify and publish a version made elsewhere; live changes of ROOT stay on top."""
    from recall.publish.derived import adopt

    with output.stage("verify, ask golden requests, publish"):
        adopted = adopt(version, root, as_of, other_data=other_data)
    if adopted.unmatched:
        output.note(f"warning: {adopted.unmatched}")
    output.note(*adopted.log_overlap.describe())
    output.result(
        as_json,
        {
            "folder": str(adopted.folder),
            "version": adopted.manifest.version,
            "source": adopted.source,
            "live_changes": adopted.log_overlap.to_json(),
        },
        {"published": adopted.folder, "from": adopted.source, "items": f"{adopted.manifest.sizes.items:,}"},
    )


def backup(
    root: Annotated[Path, typer.Argument(help="The folder of published bundles; may be in use.")],
    to: Annotated[Path, typer.Argument(help="Folder to create; it can be served directly.")],
    as_json: output.Json = False,
) -> None:
    """Make a consistent copy of a root with its live changes and users, and verify it."""
    from recall.publish.backup import backup as copy

    with output.stage("copy, verify"):
        report = copy(root, to)
    output.result(
        as_json,
        report,
        {
            "copied to": report.folder,
            "live": report.live,
            "versions": f"{report.versions:,}, {report.linked:,} of their files linked",
            "changes up to": f"{report.changes:,} of items, {report.users:,} of users",
        },
    )


Key = Annotated[str | None, typer.Option(help="Idempotency key: the same change under the same key is applied once.")]


def upsert_items(
    root: Root,
    table: Annotated[
        Path, typer.Argument(help="Table of complete items: .parquet or .csv with the id column and any features.")
    ],
    key: Key = None,
    as_json: output.Json = False,
) -> None:
    """Insert or replace items in the live catalogue, without training."""
    from recall.data.entities import read_entities
    from recall.data.tables import open_table
    from recall.features.canonical import ColumnForms
    from recall.features.values import to_request_values
    from recall.publish.rebuild import data_config
    from recall.serving.recommender import Recommender

    with Recommender.load(root, verify=False) as recommender:
        column = recommender.bundle.encoder.schema.item_id
        read = open_table("items", table, data_config(recommender.bundle.manifest))
        items = to_request_values(
            read_entities(read, column, tuple(name for name in read.columns if name != column), (), ColumnForms())
        )
        receipt = recommender.items.upsert({row.pop(column): row for row in items.iter_rows(named=True)}, key)
        _show(receipt, {"added": len(items) - receipt.known, "replaced": receipt.known}, as_json)


def delete_items(
    root: Root,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of items.")],
    key: Key = None,
    as_json: output.Json = False,
) -> None:
    """Delete items from the live catalogue."""
    from recall.serving.recommender import Recommender

    with Recommender.load(root, verify=False) as recommender:
        receipt = recommender.items.delete(ids, key)
        unknown = len(set(recommender.bundle.encoder.item_ids(ids))) - receipt.known
        _show(receipt, {"deleted": receipt.known, "not there": unknown}, as_json)


def compact(root: Root, as_json: output.Json = False) -> None:
    """Publish a new version that contains the live changes of items."""
    from recall.publish.derived import compact as publish_changes

    with output.stage("encode, index, compare, publish"):
        report = publish_changes(root)
    if report is None:
        if as_json:
            output.show_json({"folder": None})
        else:
            typer.echo("nothing has changed since the live version")
        return
    counts = {"added": len(report.added), "removed": len(report.removed), "changed": len(report.changed), "kept": report.kept}
    output.result(
        as_json,
        {"folder": str(report.folder), "version": report.manifest.version, "folded": report.manifest.folded, **counts},
        {
            "published": report.folder,
            "items": ", ".join(f"{count:,} {name}" for name, count in counts.items()),
            "changes up to": report.manifest.folded,
        },
    )


def _show(receipt: "Receipt", counts: dict[str, int], as_json: bool) -> None:
    output.note(*(f"warning: {warning}" for warning in receipt.warnings))
    plain = {"sequence": receipt.sequence, **counts, **({"warnings": receipt.warnings} if receipt.warnings else {})}
    output.result(as_json, plain, {name: f"{count:,}" for name, count in counts.items()} | {"sequence": str(receipt.sequence)})
