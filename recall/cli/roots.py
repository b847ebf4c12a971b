"""`recall publish` and `recall backup`: a version that comes into a root, and a root that is copied as a whole."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def publish_version(
    version: Annotated[Path, typer.Argument(help="The folder of a version, or of published versions elsewhere.")],
    root: Annotated[Path, typer.Argument(help="The folder of published bundles that takes it in.")],
    as_of: Annotated[
        int,
        typer.Option("--as-of", min=0, metavar="SEQUENCE", help="Its tables contain all live changes of ROOT up to this one."),
    ] = 0,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Take it although ROOT serves a version of another data set.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish a version that was made elsewhere: verified, with the live changes of ROOT on top of it."""
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
    root: Annotated[Path, typer.Argument(help="The folder of published bundles; it may be served meanwhile.")],
    to: Annotated[Path, typer.Argument(help="A folder that does not exist yet; it can be served as it is.")],
    as_json: Json = False,
) -> None:
    """Copy a root with its versions, live changes and users, at one point, and verify the copy."""
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
