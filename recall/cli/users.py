"""Commands about the users of a root, such as `recall users erase`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from recall.cli import output
from recall.cli.bundle import Root
from recall.errors import BundleError, ConfigError, PublishBusyError

_SECONDS = 5.0  # that a read of Redis may take
Users = Annotated[str, typer.Option(envvar="RECALL_USERS", show_default=False, help="Redis with the live changes of users.")]


def load_users(
    root: Root,
    version: Annotated[str, typer.Option(help="Name of a version in the folder; default: the live version.")] = "",
    users: Users = "sqlite",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove users of versions that are in neither the folder nor its depot.")
    ] = False,
    as_json: output.Json = False,
) -> None:
    """Load the users of a version into Redis.

    Services with `--exported-users redis` read them from there, and need no file of users. Users that are already in Redis, as
    after a compaction, are not sent again. An interrupted run can be continued.

    Example: recall users load bundles --prune
    """
    from recall.bundle.activation import find, list_versions
    from recall.bundle.files import USERS
    from recall.bundle.reader import load_bundle
    from recall.bundle.versions import open_depot, resolve
    from recall.store.users.redis import RedisLiveUsers
    from recall.store.users.sqlite import open_live_users

    live = open_live_users(users, root, _SECONDS)
    if not isinstance(live, RedisLiveUsers):
        raise ConfigError("no Redis is named", where="users", hint="Set RECALL_USERS=redis://HOST:PORT/DB, or give --users")
    with closing(live), output.stage("verify, load") as show:
        bundle = load_bundle(find(root, version) if version else resolve(root), index=False)
        entry = bundle.manifest.files[USERS]
        sent = live.exports.load(bundle.users_file, entry.sha256, lambda done, total: show(f"{done:,} of {total:,} users"))
        removed: list[str] = []
        if prune:
            depot = open_depot()
            named = [one.manifest.files for one in list_versions(root) if one.manifest is not None]
            kept = [files[USERS].sha256 for files in named if USERS in files]
            shared = [depot.digests(name) for name in depot.versions()]
            removed = live.exports.prune([*kept, *(digests[USERS] for digests in shared if USERS in digests)])
    name, size = bundle.manifest.version, bundle.manifest.sizes.users
    output.result(
        as_json,
        {"version": name, "users": size, "sent": sent, "removed": removed},
        {"version": name, "users": f"{size:,}, {sent:,} of them sent", "removed": f"{len(removed)} other files of users"},
    )


def erase_users(
    root: Annotated[Path, typer.Argument(help="The folder of published bundles; may be in use.")],
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of users.")],
    users: Users = "sqlite",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for services to close the older versions.")] = 10.0,
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
        hint = "Give the folder that bundles are published to"
        if Path(ids[-1]).is_dir():
            hint = f"The folder comes first: recall users erase {ids[-1]} {root}"
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
        **({"removed from the depot": ", ".join(report.depot)} if report.depot else {}),
        "keys": f"{report.keys:,} idempotency keys removed",
    }
    output.result(as_json, report, lines)
    output.note(*report.remains)
    if report.held:
        raise PublishBusyError(
            f"{', '.join(report.held)} cannot be removed: a process has the version open",
            where=str(root),
            why="the users are deleted and no answer knows them, but files still contain them",
            hint="Stop that process, or let it follow the live version, and run the command again",
        )
