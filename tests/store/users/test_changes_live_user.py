"""Changes of a user applied to the record of a bundle, also if its data contain some of them."""

import orjson
import pytest

from recall.errors import StoreError
from recall.store.users.changes import DELETED, InteractionEvent, UserPut, UserUpsert
from recall.store.users.record import MAX_HISTORY, MAX_SEEN, LiveUser, UserRecord


def after(items: str, data: str = "old") -> LiveUser:
    """Create a user with these items, latest first."""
    user: LiveUser | None = None
    for number, item in enumerate(reversed(items)):
        user = InteractionEvent("u", item, float(number), data).apply(user, 0.0)
    assert user is not None
    return user


def history(user: LiveUser, stored: str, data: str) -> str:
    record = user.apply_to(UserRecord({}, tuple(stored), tuple(dict.fromkeys(stored))), data)
    assert record is not None
    assert set(record.seen) >= {*stored, *user.interactions}
    assert len(set(record.seen)) == len(record.seen)
    return "".join(record.history)


@pytest.mark.parametrize(
    ("taken", "stored", "expected"),
    [
        ("cba", "zy", "cbazy"),  # none is in the data
        ("cba", "azy", "cbazy"),  # the first
        ("cba", "bazy", "cbazy"),
        ("cba", "cbazy", "cbazy"),  # all
        ("cba", "cba", "cba"),
        ("cba", "cb", "cb"),  # all, with a shortened history in the data
        ("dcba", "cb", "dcb"),
        ("aba", "abazy", "abazy"),  # the longest run is used
        ("cba", "", "cba"),
        ("cba", "czy", "cbaczy"),  # no run: these may be other interactions
    ],
)
def test_interactions_contained_in_a_later_bundle_are_not_duplicated(taken: str, stored: str, expected: str) -> None:
    assert history(after(taken), stored, "new") == expected


@pytest.mark.parametrize(("taken", "stored"), [("cba", "azy"), ("a", "a"), ("aa", "aa"), ("cba", "cba")])
def test_changes_are_applied_on_top_of_the_served_bundle(taken: str, stored: str) -> None:
    assert history(after(taken, "same"), stored, "same") == taken + stored


def test_newer_changes_are_on_top_of_older_ones() -> None:
    user = after("ba", "old")
    for number, item in enumerate("ab"):
        user = InteractionEvent("u", item, 10.0 + number, "new").apply(user, 0.0)
    assert history(user, "bazy", "new") == "babazy"
    assert history(user, "zy", "old") == "babazy"  # also after a rollback


def test_a_given_history_replaces_that_of_the_bundle() -> None:
    user = UserUpsert("u", {}, ("b", "a"), None).apply(None, 0.0)
    user = InteractionEvent("u", "c", None, "old").apply(user, 0.0)
    assert history(user, "cbazy", "new") == "cba"


def test_the_stored_form_round_trips() -> None:
    users = [
        LiveUser(),
        DELETED,
        after("abc"),
        UserPut("u", {"a": 1, "b": [1.5, "x", None], "c": None, "é": True}, ("h",), ("s",)).apply(None, 0.0),
        UserUpsert("u", {"a": None}, None, ("s",)).apply(after("abc"), 0.0),
    ]
    for user in users:
        assert LiveUser.from_json(user.to_json()) == user


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"1", b"{}", b'{"format": 1}', DELETED.to_json().replace(b'"times":[]', b'"times":[1]')],
)
def test_unreadable_data_are_reported(raw: bytes) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        LiveUser.from_json(raw)


def test_a_newer_format_is_reported() -> None:
    newer = orjson.dumps({**orjson.loads(DELETED.to_json()), "format": 2})
    with pytest.raises(StoreError, match="Upgrade"):
        LiveUser.from_json(newer)


def test_histories_and_seen_items_keep_the_latest() -> None:
    long = tuple(f"i{number}" for number in range(MAX_HISTORY + MAX_SEEN + 5))
    put = UserPut("u", {}, long, ("last",)).apply(None, 0.0)
    assert put.history == long[:MAX_HISTORY]
    assert put.seen == long[MAX_HISTORY : MAX_HISTORY + MAX_SEEN]
    upsert = UserUpsert("u", {}, long, None).apply(None, 0.0)
    assert (upsert.history, upsert.seen) == (put.history, put.seen)
    record = InteractionEvent("u", "latest", None, "d").apply(put, 0.0).apply_to(None, "d")
    assert record is not None
    assert record.history == ("latest", *long[: MAX_HISTORY - 1])


def test_interactions_are_ordered_by_time_then_arrival() -> None:
    user: LiveUser | None = None
    for item, time in (("a", 5.0), ("b", 5.0), ("c", 1.0), ("d", None), ("e", 9.0)):
        user = InteractionEvent("u", item, time, "d").apply(user, 7.0)
    assert user is not None
    assert user.interactions == ("e", "d", "b", "a", "c")
    assert user.interaction_times == (9.0, 7.0, 5.0, 5.0, 1.0)
    assert user.interaction_data == ("d",) * 5
