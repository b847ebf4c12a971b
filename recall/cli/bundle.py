"""`recall bundle`: show, verify and export what was published."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output
from recall.cli.tune import described

if TYPE_CHECKING:
    from recall.bundle.manifest import Manifest

ROUNDING = 1e-6
"""Folding losses below this are rounding of float32."""


class Format(StrEnum):
    """File format of exported vectors; see `recall.publish.vector_export`."""

    PARQUET = "parquet"
    NPY = "npy"
    FAISS = "faiss"


BundlePath = Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show_bundle(bundle: BundlePath, as_json: Json = False) -> None:
    """Print the main facts of a bundle's manifest; --json prints all of it."""
    from recall.bundle.manifest import Manifest
    from recall.bundle.versions import resolve, versions

    folder = resolve(bundle)
    manifest = Manifest.read(folder)
    if as_json:
        output.show_json(manifest.model_dump(mode="json", by_alias=True))
        return
    sizes, parity, index, away = manifest.sizes, manifest.parity, manifest.index, manifest.users_elsewhere
    lines: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "folder": folder,
        "created": manifest.created,
        "users": f"{sizes.users:,} ({sizes.n_user_features:,} features)"
        + (f", at {away.location}" if away is not None else ""),
        "items": f"{sizes.items:,} ({sizes.n_item_features:,} features)",
        "model": _model(manifest),
        "fields": ", ".join(f"{name} ({field.side} {field.kind})" for name, field in manifest.schema_.fields.items()),
        "index": described(index),
        "proof": f"largest error {parity.largest_error:.1e}, tolerance {parity.tolerance:.0e}",
        **{part: _figures(value) for part, value in manifest.metrics.items()},
        "size": f"{sum(entry.bytes for entry in manifest.files.values()) / 1e6:,.1f} MB in {len(manifest.files)} files",
    }
    if manifest.parent is not None:
        lines["made from"] = manifest.parent
    if folder != bundle:
        lines["versions"] = ", ".join(version.name for version in versions(bundle))
    output.show(lines)


def verify_bundle(bundle: BundlePath, as_json: Json = False) -> None:
    """Verify a bundle: names, sizes, SHA-256, shapes, numbers, index, golden requests."""
    from recall.publish import golden
    from recall.serving.recommender import Recommender

    with output.stage("verify"):
        recommender = Recommender.load(bundle, verify=True)
    with recommender:
        manifest = recommender.bundle.manifest
        asked = golden.check(recommender)
        files, size = len(manifest.files), sum(entry.bytes for entry in manifest.files.values())
        if as_json:
            output.show_json({"version": manifest.version, "sound": True, "files": files, "bytes": size, "golden": asked})
        else:
            counted = f"{files} files, {size:,} bytes, {manifest.sizes.items:,} items, {asked} golden requests"
            typer.echo(f"{manifest.version} is sound: {counted}")


def export_bundle(
    bundle: BundlePath,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="Parquet tables; NumPy arrays with ids as JSON; or a Faiss IndexFlatIP with ids as JSON."
        ),
    ] = Format.PARQUET,
    users: Annotated[bool, typer.Option("--users", help="Also write the vector of each known user, without context.")] = False,
    as_json: Json = False,
) -> None:
    """Export item vectors and ids, live changes included, for other systems.

    The score of an item is the inner product of its vector and the user's.

    Example: recall bundle export bundles --format faiss --users --out vectors
    """
    from recall.publish.vector_export import export_vectors

    with output.stage("write the vectors"):
        report = export_vectors(bundle, out, format_.value, users=users)
    if as_json:
        output.show_json({**report._asdict(), "folder": str(report.folder)})
        return
    lines: dict[str, object] = {
        "written": report.folder,
        "files": ", ".join(report.files),
        "items": f"{report.items:,} vectors of {report.dim:,} numbers",
        "version": report.version,
    }
    if report.users is not None:
        lines["users"] = f"{report.users:,} vectors"
    if report.sequence:
        lines["changes up to"] = report.sequence
    output.show(lines)


def _model(manifest: "Manifest") -> str:
    model, sizes = manifest.model, manifest.sizes
    cosine = ", scaled to unit length" if model.cosine else ""
    shown = f"{model.kind}, {sizes.k} factors, vectors of {sizes.dim:,} numbers{cosine}"
    if model.fold is None or model.fold.lost < ROUNDING:
        return shown
    return f"{shown}; folding lost {model.fold.lost:.1e} of the field weights, {model.fold.score_error:.1e} of a score at most"


def _figures(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_figures(one)}" for name, one in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)
