"""Workload: two processes write changes of items and users to their logs; and the check after a crash."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import Change
from recall.store.users.changes import InteractionEvent, UserChange, UserDelete, UserPut, UserUpsert
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.simulation.power import Broken, Entry, Moment
from tests.simulation.workload import Marks
from tests.store.items.entries import last, since

ITEMS = [f"i{number}" for number in range(8)]
USERS = [f"u{number}" for number in range(4)]
OPERATIONS = 30


def work(folder: Path, draw: random.Random, marks: Marks) -> None:
    """Run random writes."""
    marks.say(begin="log")
    journals = [SqliteChangeLog(folder / JOURNAL), SqliteChangeLog(folder / JOURNAL)]
    users = [SqliteLiveUsers(folder / USERS_LIVE), SqliteLiveUsers(folder / USERS_LIVE)]
    keyed: list[tuple[list[Change], str]] = []
    for number in range(OPERATIONS):
        which = draw.randrange(2)
        journal, store = journals[which], users[which]
        match draw.choices(["append", "again", "users", "prune", "close"], [10, 1, 6, 1, 3])[0]:
            case "append":
                changes = _changes(draw)
                key = f"key {number}" if draw.random() < 0.3 else None
                if key is not None:
                    keyed.append((changes, key))
                marks.carry_out(partial(_appended, journal, changes, key), do="items", key=key)
            case "again" if keyed:
                marks.carry_out(partial(_appended, journal, *draw.choice(keyed)), do="nothing")
            case "users":
                many = [_user_change(draw) for _ in range(draw.randint(1, 3))]
                marks.carry_out(partial(_written, store, many), do="users")
            case "prune":
                upto = draw.randint(0, last(journal))
                marks.carry_out(partial(_pruned, journal, upto), do="prune", upto=upto)
            case "close":
                marks.carry_out(partial(_closed, journal, store), do="nothing")
    for one in (*journals, *users):
        one.close()


@dataclass
class Logs:
    """The expected contents of the logs.

    Attributes:
        items: id and values of every change, by its sequence.
        keys: acknowledged sequence and changes by idempotency key.
        pruned: changes up to this sequence may be missing.
        users: stored record by id.
        sequence: last change of users.
    """

    items: dict[int, tuple[str, Any]] = field(default_factory=dict)
    keys: dict[str, tuple[int, list[Change]]] = field(default_factory=dict)
    pruned: int = 0
    users: dict[str, str] = field(default_factory=dict)
    sequence: int = 0

    @classmethod
    def after(cls, entries: list[Entry]) -> "Logs":
        """Collect the acknowledged changes."""
        logs = cls()
        for entry in entries:
            match entry["do"]:
                case "items":
                    if entry["sequence"] != max(logs.items, default=0) + len(entry["changes"]):
                        raise Broken(f"a batch was given sequence {entry['sequence']} after {max(logs.items, default=0)}")
                    first = entry["sequence"] - len(entry["changes"]) + 1
                    logs.items |= {first + at: (one, values) for at, (one, values) in enumerate(entry["changes"])}
                    if entry["key"] is not None:
                        logs.keys[entry["key"]] = entry["sequence"], [Change(*one) for one in entry["changes"]]
                case "users":
                    logs.users |= entry["users"]
                    logs.sequence = entry["sequence"]
                case "prune":
                    logs.pruned = max(logs.pruned, entry["upto"])
        return logs

    def latest(self, pruned: int) -> dict[str, tuple[int, Any]]:
        """Return the last change of each item after a sequence."""
        return {one: (number, values) for number, (one, values) in self.items.items() if number > pruned}


def check(root: Path, moment: Moment) -> None:
    """Check that exactly the acknowledged changes exist, apart from the complete operation in flight."""
    before = Logs.after(list(moment.done))
    after = Logs.after([*moment.done, moment.next]) if moment.next is not None else before
    journal, users = SqliteChangeLog(root / JOURNAL), SqliteLiveUsers(root / USERS_LIVE)
    try:
        end = _check_items(journal, before, after)
        _either("users", _users_of(users), (before.users, before.sequence), (after.users, after.sequence))
        for key, (sequence, changes) in before.keys.items():
            if journal.append(changes, key) != sequence:
                raise Broken(f"batch {key!r} was taken twice")
        if journal.append([Change("later", {})]) != end + 1:
            raise Broken(f"the change after {end} was given another sequence")
        if [entry.item_id for entry in since(journal, end)] != ["later"]:
            raise Broken("a change after the crash is not there")
        if users.write([UserDelete("later")]).sequence <= before.sequence:
            raise Broken("a sequence of users was given twice")
    finally:
        journal.close()
        users.close()


def _check_items(journal: SqliteChangeLog, before: Logs, after: Logs) -> int:
    pruned = after.pruned
    kept = {entry.item_id: (entry.sequence, entry.features) for entry in since(journal, pruned)}
    _either("items", kept, *(logs.latest(pruned) for logs in (before, after)))
    end = last(journal)
    if end not in {max(logs.items, default=0) for logs in (before, after)}:
        raise Broken(f"the last change is said to be {end}, and {max(before.items, default=0)} was acknowledged")
    return end


def _either(what: str, found: Any, before: Any, after: Any) -> None:
    if found not in (before, after):
        raise Broken(f"{what}: found {_brief(found)}, expected {_brief(before)} or {_brief(after)}")


def _brief(value: Any) -> str:
    text = repr(list(value) if isinstance(value, dict) else value)
    return text if len(text) < 200 else text[:200] + "..."


def _users_of(users: SqliteLiveUsers) -> tuple[dict[str, str], int]:
    return {one: user.to_json().decode() for one, user in users.get(USERS).items()}, users.sequence()


def _appended(journal: SqliteChangeLog, changes: list[Change], key: str | None) -> dict[str, Any]:
    return {"sequence": journal.append(changes, key), "changes": changes}


def _written(users: SqliteLiveUsers, changes: list[UserChange]) -> dict[str, Any]:
    sequence = users.write(changes).sequence
    named = list({change.user_id for change in changes})
    return {"sequence": sequence, "users": {one: user.to_json().decode() for one, user in sorted(users.get(named).items())}}


def _pruned(journal: SqliteChangeLog, upto: int) -> dict[str, Any]:
    journal.prune(upto)
    return {}


def _closed(*logs: Any) -> dict[str, Any]:
    for log in logs:
        log.close()
    return {}


def _changes(draw: random.Random) -> list[Change]:
    changes = []
    for _ in range(draw.choice((1, 1, 2, 5))):
        values = None if draw.random() < 0.3 else {"price": draw.randrange(1000), "text": "x" * draw.choice((0, 10, 3000))}
        changes.append(Change(draw.choice(ITEMS), values))
    return changes


def _user_change(draw: random.Random) -> UserChange:
    user, some = draw.choice(USERS), tuple(draw.choices(ITEMS, k=3))
    kinds: list[Callable[[], UserChange]] = [
        lambda: UserPut(user, {"age": draw.randrange(90)}, some, ()),
        lambda: UserUpsert(user, {"age": draw.randrange(90)}, None, some),
        lambda: InteractionEvent(user, some[0], None, "data"),
        lambda: UserDelete(user),
    ]
    return draw.choice(kinds)()
