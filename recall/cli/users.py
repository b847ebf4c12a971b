"""`recall users`: change the users of a root."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output
from recall.errors import BundleError, PublishBusyError

_SECONDS = 5.0  # that a read of Redis may take


def erase_users(
    root: Annotated[Path, typer.Argument(help="The folder of published bundles; may be in use.")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of users.")],
    users: Annotated[
        str,
        typer.Option(envvar="RECALL_USERS", show_default=False, help="Redis that the service keeps changes of users in."),
    ] = "sqlite",
    wait: Annotated[float, typer.Option(min=0, help="Seconds until services must have left the older versions.")] = 10.0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: output.Json = False,
) -> None:
    """Erase users from live changes and all versions; older versions are removed.

    Publishes the live version without them. Removal cannot be undone.

    Example: recall users erase bundles u0001
    """
    from recall.publish.erase import erase_users as erase
    from recall.store.users.sqlite import open_live_users

    if not root.is_dir():
        hint = f"The folder comes first: recall users erase {ids[-1]} {root}" if Path(ids[-1]).is_dir() else ""
        raise BundleError("there is no such folder", where=str(root), hint=hint)
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Erase {', '.join(ids)}, and remove all versions that contain them?", abort=True, err=True)
    live = open_live_users(users, root, _SECONDS)
    assert live is not None  # there is a root
    try:
        with output.stage("delete, publish, remove older versions"):
            report = erase(root, ids, live, wait)
    finally:
        live.close()
    lines: dict[str, object] = {
        "published": report.version or "nothing, the live version does not contain them",
        "removed": ", ".join(report.removed) or "no version",
        "keys": f"{report.keys:,} idempotency keys removed",
    }
    output.result(as_json, report, lines)
    for line in report.remains:
        output.note(line)
    if report.held:
        raise PublishBusyError(
            f"{', '.join(report.held)} cannot be removed: a process has the version open",
            where=str(root),
            why="the users are deleted and no answer knows them, but files still contain them",
            hint="Stop that process, or let it follow the live version, and run the command again",
        )
