"""`recall versions`, `activate` and `rollback`: which version is live."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output

if TYPE_CHECKING:
    from recall.bundle.activation import Version

Root = Annotated[Path, typer.Argument(help="The folder of published bundles.")]
Expect = Annotated[str | None, typer.Option(help="Fail unless this version is live.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show_versions(root: Root, as_json: Json = False) -> None:
    """List the versions of a root, newest first, and mark the live one."""
    from recall.bundle.activation import listed
    from recall.errors import BundleError

    found = listed(root)
    if not found:
        raise BundleError("there are no versions", where=str(root), hint="Give the folder that bundles are published to")
    if as_json:
        output.show_json([_plain(one) for one in found])
        return
    rows = [["live" if one.live else "", one.folder.name, *_row(one)] for one in found]
    output.show_table(["", "version", "created", "model", "items", "MB", "made from"], rows)


def activate(
    root: Root,
    version: Annotated[str, typer.Argument(help="Name of a version, such as 000003-4f2a90c1.")],
    expect: Expect = None,
    as_json: Json = False,
) -> None:
    """Make a version live, after verifying it. Running services pick it up."""
    from recall.bundle.activation import find

    _activate(root, find(root, version), expect, as_json)


def roll_back(root: Root, expect: Expect = None, as_json: Json = False) -> None:
    """Return to the version that was live before; repeat to go back further."""
    from recall.bundle.activation import previous
    from recall.bundle.versions import live_name

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
    if as_json:
        output.show_json({"version": folder.name, "previous": before or None})
    else:
        output.show({"live": folder.name, "before": before or "none"})


def _row(one: "Version") -> list[object]:
    manifest = one.manifest
    if manifest is None:
        return [one.fault, "", "", "", ""]
    parent = "" if manifest.parent is None else manifest.parent
    return [manifest.created, manifest.model.kind, manifest.sizes.items, round(one.size / 1e6, 1), str(parent)]


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
