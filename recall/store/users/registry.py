"""A store of users that change, by its setting."""

from pathlib import Path

from recall.errors import ConfigError
from recall.store.high_water_mark import Mark
from recall.store.users.changes import READ_SECONDS, LiveUsers
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers

SQLITE = "sqlite"


def open_live_users(setting: str, root: Path | None, read_seconds: float = READ_SECONDS) -> LiveUsers | None:
    """Open the store of user changes that a setting names.

    Args:
        setting: "sqlite" for a file in the root of published versions, or the address of a Redis.
        root: of published versions; without one there is no place for the file, and nothing is stored. With a Redis it has a
            file that remembers how far that had come.
        read_seconds: budget of a read that goes to another machine.

    Raises:
        ConfigError: The setting is neither, or what it needs is not installed.
    """
    if setting == SQLITE:
        return None if root is None else SqliteLiveUsers(root / USERS_LIVE)
    try:
        from recall.store.users.redis import USERS_REDIS_MARK, RedisLiveUsers
    except ModuleNotFoundError:
        raise ConfigError(
            "users in Redis need the package redis", where="users", hint="Install it with: pip install 'fm-recall[redis]'"
        ) from None
    mark = None if root is None else Mark(root / USERS_REDIS_MARK)
    return RedisLiveUsers(setting, read_seconds=read_seconds, mark=mark)
