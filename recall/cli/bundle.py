"""`recall bundle`, `versions`, `activate`, `serve`: what is published and served.

The keys of a service are made here, too.
"""

import os
import re
import secrets
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recall.cli import output
from recall.cli.output import EXTRAS, Bundle, UnavailableError
from recall.cli.tune import described

if TYPE_CHECKING:
    from recall.bundle.activation import Version
    from recall.bundle.manifest import Manifest

ROUNDING = 1e-6
"""Folding losses below this are rounding of float32."""


def show_bundle(bundle: Bundle, as_json: output.Json = False) -> None:
    """Print the main facts of a bundle's manifest; --json prints all of it."""
    from recall.bundle.manifest import Manifest
    from recall.bundle.versions import resolve, versions

    folder = resolve(bundle)
    manifest = Manifest.read(folder)
    sizes, parity, index = manifest.sizes, manifest.parity, manifest.index
    lines: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "folder": folder,
        "created": manifest.created,
        "users": f"{sizes.users:,} ({sizes.n_user_features:,} features)",
        "items": f"{sizes.items:,} ({sizes.n_item_features:,} features)",
        "model": _model(manifest),
        "fields": ", ".join(f"{name} ({field.side} {field.kind})" for name, field in manifest.schema_.fields.items()),
        "index": described(index),
        "export check": f"largest error {parity.largest_error:.1e}, tolerance {parity.tolerance:.0e}",
        **{part: _figures(value) for part, value in manifest.metrics.items()},
        "size": f"{sum(entry.bytes for entry in manifest.files.values()) / 1e6:,.1f} MB in {len(manifest.files)} files",
    }
    if manifest.parent is not None:
        lines["made from"] = manifest.parent
    if folder != bundle:
        lines["versions"] = ", ".join(version.name for version in versions(bundle))
    output.result(as_json, manifest.model_dump(mode="json", by_alias=True), lines)


def verify_bundle(bundle: Bundle, as_json: output.Json = False) -> None:
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
            typer.echo(f"{manifest.version} is valid: {counted}")


def export_bundle(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    format_: Annotated[
        Literal["parquet", "npy", "faiss"],
        typer.Option(
            "--format", help="Parquet tables, NumPy arrays with ids as JSON, or a Faiss IndexFlatIP with ids as JSON."
        ),
    ] = "parquet",
    users: Annotated[bool, typer.Option("--users", help="Also write the vector of each known user, without context.")] = False,
    as_json: output.Json = False,
) -> None:
    """Export item vectors and ids, live changes included, for other systems.

    The score of an item is the inner product of its vector and the vector of the user.

    Example: recall bundle export bundles --format faiss --users --out vectors
    """
    from recall.publish.vector_export import export_vectors

    with output.stage("write the vectors"):
        report = export_vectors(bundle, out, format_, users=users)
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
    output.result(as_json, report, lines)


def _model(manifest: "Manifest") -> str:
    model, sizes = manifest.model, manifest.sizes
    cosine = ", scaled to unit length" if model.cosine else ""
    shown = f"{model.kind}, {sizes.k} factors, vectors of {sizes.dim:,} numbers{cosine}"
    if model.fold is None or model.fold.lost < ROUNDING:
        return shown
    return f"{shown}; folding error {model.fold.lost:.1e} of the field weights, at most {model.fold.score_error:.1e} of a score"


def _figures(value: object) -> str:
    if isinstance(value, list):  # such as a curve
        return f"of {len(value)}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_figures(one)}" for name, one in value.items())
    return f"{value:.4f}" if isinstance(value, float) else str(value)


Root = Annotated[Path, typer.Argument(help="The folder of published bundles.")]
Expect = Annotated[str | None, typer.Option(help="Fail unless this version is live now.")]


def show_versions(root: Root, as_json: output.Json = False) -> None:
    """List the versions of a root, newest first, and mark the live one.

    With a depot, its live version is downloaded first. If there are no versions, --json prints an empty list.
    """
    from recall.bundle.activation import follow, list_versions
    from recall.bundle.versions import open_depot
    from recall.errors import BundleError

    follow(root, open_depot())
    found = list_versions(root)
    if as_json:
        output.show_json([_plain(one) for one in found])
        return
    if not found:
        raise BundleError("there are no versions", where=str(root), hint="Give the folder that bundles are published to")
    rows = [["live" if one.live else "", one.folder.name, *_row(one)] for one in found]
    output.show_table(["", "version", "created", "model", "items", "MB", "made from"], rows)


def activate(
    root: Root,
    version: Annotated[str, typer.Argument(help="Name of a version, such as 000003-4f2a90c1.")],
    expect: Expect = None,
    as_json: output.Json = False,
) -> None:
    """Verify a version and make it live. Running services switch to it."""
    from recall.bundle.activation import fetch_version, find
    from recall.bundle.versions import open_depot

    fetch_version(root, version, open_depot())
    _activate(root, find(root, version), expect, as_json)


def roll_back(root: Root, expect: Expect = None, as_json: output.Json = False) -> None:
    """Return to the version that was live before; repeat to go back further."""
    from recall.bundle.activation import follow, previous
    from recall.bundle.versions import live_name, open_depot

    follow(root, open_depot())
    live = live_name(root)
    _activate(root, previous(root), expect if expect is not None else live, as_json)


def _activate(root: Path, folder: Path, expected: str | None, as_json: bool) -> None:
    from recall.bundle.activation import activate
    from recall.publish import golden
    from recall.serving.recommender import Recommender

    # verified as the service does; its lock keeps it from being pruned meanwhile
    with output.stage("verify, ask golden requests"), Recommender.load(folder, root=root) as recommender:
        golden.check(recommender)
        before = activate(root, folder.name, expected)
    output.result(
        as_json, {"version": folder.name, "previous": before or None}, {"live": folder.name, "before": before or "none"}
    )


def _row(one: "Version") -> list[object]:
    manifest = one.manifest
    if manifest is None:
        return [one.fault, "", "", "", ""]
    parent = "" if manifest.parent is None else manifest.parent
    return [manifest.created, manifest.model.kind, manifest.sizes.items, f"{one.size / 1e6:.1f}", str(parent)]


def _plain(one: "Version") -> dict[str, object]:
    manifest = one.manifest
    plain: dict[str, object] = {"version": one.folder.name, "live": one.live, "fault": one.fault or None}
    if manifest is not None:
        plain |= {
            "created": manifest.created,
            "parent": manifest.parent,
            "kind": manifest.model.kind,
            "items": manifest.sizes.items,
            "users": manifest.sizes.users,
            "bytes": one.size,
        }
    return plain


def serve(
    context: typer.Context,
    help_: Annotated[bool, typer.Option("--help", help="Show all options and exit.")] = False,
) -> None:
    """Serve recommendations over HTTP, and switch to newly published versions.

    The options are those of `python -m service`, which this command executes. Environment variables RECALL_... set them, too.
    """
    command, environment = service_command(["--help"] if help_ else ["--no-wait", *context.args])
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def service_command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs the installed service, and its environment.

    Args:
        arguments: of the service. One with a password belongs in the environment: all users see a command line.

    Raises:
        UnavailableError: The dependencies of the service are not installed.
    """
    missing = [module for module, extra in EXTRAS.items() if extra == "serve" and find_spec(module) is None]
    if missing:
        what = "serving needs packages that are not installed: " + ", ".join(missing)
        raise UnavailableError(what, hint="Install them with: pip install 'fm-recall[serve]'")
    home = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH")) if part)
    # -P: a folder called `service` in the working directory must not be imported.
    return [sys.executable, "-P", "-m", "service", *arguments], {**os.environ, "PYTHONPATH": path}


_NAME = re.compile(r"[A-Za-z0-9._ -]*")
_BYTES = 32  # 256 bits cannot be guessed


def new_key(
    role: Annotated[Literal["read", "admin"], typer.Option(help="read: queries only; admin: changes as well.")] = "read",
    name: Annotated[str, typer.Option(help="Name of the key in the file of hashes.")] = "",
    as_json: output.Json = False,
) -> None:
    """Generate an API key, and print it with the line of its hash. Nothing is stored.

    The service reads such lines from the file given by `recall serve --keys`, or plain keys from RECALL_READ_KEY and
    RECALL_ADMIN_KEY.
    """
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("a name must consist of letters, digits, spaces and . _ -", param_hint="--name")
    key = f"{role}-{secrets.token_urlsafe(_BYTES)}"
    line = " ".join([role, f"sha256:{sha256(key.encode()).hexdigest()}", *name.split()])
    made = {"key": key, "line": line}
    output.result(as_json, made, made)
