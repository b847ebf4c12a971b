"""Contract tests of every mutable user store."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from recall.errors import RequestError
from recall.store.users.changes import InteractionEvent, LiveUsers, UserChange, UserDelete, UserPut, UserUpsert, WriteResult
from recall.store.users.record import LiveUser, UserRecord
from tests.store.users.conftest import Open

DATA = "0123456789abcdef"
STORED = UserRecord({"age": 30, "zip": "00001"}, ("b1", "b2"), ("b1", "b2", "b3"))
ODD_IDS = ["", "nul\0inside", "line\r\nbreak", "\ufeff", "é", "e\u0301", "' OR 1=1 --", "a b", "user:1", "{x}", "🦊" * 300]


def took(user_id: str, item_id: str, time: float | None = None) -> InteractionEvent:
    return InteractionEvent(user_id, item_id, time, DATA)


def record_of(store: LiveUsers, user_id: str, stored: UserRecord | None = None) -> UserRecord | None:
    user = store.get([user_id]).get(user_id)
    assert isinstance(user, LiveUser)
    return user.apply_to(stored, DATA)


def test_a_new_store_is_empty(store: LiveUsers) -> None:
    assert store.get(["a", "b"]) == {}
    assert store.get([]) == {}
    assert store.ids() == []
    assert store.sequence() == 0


def test_an_interaction_is_added_to_history_and_seen_items(store: LiveUsers) -> None:
    assert store.write([took("u", "i1"), took("u", "i2"), took("v", "i1")]).known == {"u": None, "v": None}
    assert store.sequence() == 3
    assert record_of(store, "u") == UserRecord({}, ("i2", "i1"), ("i2", "i1"))
    assert record_of(store, "u", STORED) == UserRecord(
        STORED.features, ("i2", "i1", "b1", "b2"), ("i2", "i1", "b1", "b2", "b3")
    )
    assert store.write([took("u", "i1")]).known == {"u": True}
    assert store.sequence() == 4
    assert record_of(store, "u") == UserRecord({}, ("i1", "i2", "i1"), ("i1", "i2"))
    assert record_of(store, "v") == UserRecord({}, ("i1",), ("i1",))


def test_a_timed_interaction_is_inserted_in_order(store: LiveUsers) -> None:
    store.write([took("u", "at 20", 20.0), took("u", "at 10", 10.0), took("u", "at 30", 30), took("u", "at 20 too", 20.0)])
    store.write([took("u", "now"), took("u", "at 15", 15.0)])
    record = record_of(store, "u")
    assert record is not None
    assert record.history == ("now", "at 30", "at 20 too", "at 20", "at 15", "at 10")


def test_an_untimed_interaction_is_the_latest_regardless_of_the_clock(store: LiveUsers) -> None:
    store.write([took("u", "far ahead", 4e12)])
    store.write([took("u", "next")])
    store.write([took("u", "last")])
    record = record_of(store, "u")
    assert record is not None
    assert record.history == ("last", "next", "far ahead")


def test_putting_a_user_replaces_everything(store: LiveUsers) -> None:
    store.write([took("u", "i1")])
    store.write([UserPut("u", {"age": 31, "zip": None}, ("h1", "h2"), ("s1",))])
    for stored in (None, STORED):
        assert record_of(store, "u", stored) == UserRecord({"age": 31}, ("h1", "h2"), ("h1", "h2", "s1"))
    store.write([took("u", "i2")])
    assert record_of(store, "u", STORED) == UserRecord({"age": 31}, ("i2", "h1", "h2"), ("i2", "h1", "h2", "s1"))


def test_an_upsert_changes_only_the_given_columns(store: LiveUsers) -> None:
    store.write([UserUpsert("u", {"age": 31}, None, None)])
    assert record_of(store, "u", STORED) == UserRecord({"age": 31, "zip": "00001"}, STORED.history, STORED.seen)
    store.write([UserUpsert("u", {"zip": None, "tags": ["x", None]}, None, None)])
    assert record_of(store, "u", STORED) == UserRecord({"age": 31, "tags": ["x", None]}, STORED.history, STORED.seen)
    store.write([took("u", "i1"), UserUpsert("u", {}, ("h1",), None)])
    assert record_of(store, "u", STORED) == UserRecord(
        {"age": 31, "tags": ["x", None]}, ("h1",), ("h1", "i1", "b1", "b2", "b3")
    )
    store.write([took("u", "i2"), UserUpsert("u", {}, None, ("s1",))])
    assert record_of(store, "u", STORED) == UserRecord({"age": 31, "tags": ["x", None]}, ("i2", "h1"), ("i2", "h1", "s1"))
    store.write([UserUpsert("u", {}, (), ())])
    assert record_of(store, "u", STORED) == UserRecord({"age": 31, "tags": ["x", None]}, (), ())


def test_a_deleted_user_is_unknown_even_if_in_the_bundle(store: LiveUsers) -> None:
    store.write([took("u", "i1"), UserDelete("u"), UserDelete("never there")])
    assert record_of(store, "u", STORED) is None
    assert record_of(store, "never there", STORED) is None
    assert store.ids() == []
    written = store.write([took("u", "i2"), UserUpsert("never there", {"age": 1}, None, None)])
    assert written.known == {"u": False, "never there": False}
    assert record_of(store, "u", STORED) == UserRecord({}, ("i2",), ("i2",))
    assert record_of(store, "never there", STORED) == UserRecord({"age": 1}, (), ())


def test_other_processes_see_changes_on_the_next_read(open_store: Open) -> None:
    writer, reader = open_store(), open_store()
    for number in range(20):
        assert "u" in reader.get(["u"]) or number == 0
        writer.write([took("u", f"i{number}")])
        record = record_of(reader, "u")
        assert record is not None
        assert record.history[0] == f"i{number}"
        assert reader.sequence() == number + 1
        writer, reader = reader, writer


@pytest.mark.parametrize("odd", ODD_IDS)
def test_ids_round_trip_exactly(open_store: Open, odd: str) -> None:
    open_store().write([UserPut(odd, {"text": odd}, (odd,), (odd + "x",)), took(odd, odd + "y")], key="k")
    store = open_store()
    assert record_of(store, odd) == UserRecord({"text": odd}, (odd + "y", odd), (odd + "y", odd, odd + "x"))
    assert store.ids(None, 10) == [odd]
    assert store.get(["another", odd]).keys() == {odd}


def test_users_are_listed_in_order_in_pages(store: LiveUsers) -> None:
    named = [f"u{number:03}" for number in range(25)] + ["é", "z", "\U0001f600"]
    store.write([took(one, "i") for one in reversed(named)])
    store.write([UserDelete("u003")])
    expected = sorted(set(named) - {"u003"}, key=str.encode)
    assert store.ids() == expected
    pages, after = [], None
    while page := store.ids(after, 7):
        pages += page
        after = page[-1]
    assert pages == expected


def test_a_retried_batch_is_applied_once(open_store: Open) -> None:
    store = open_store()
    batch: list[UserChange] = [took("u", "i1"), UserUpsert("v", {"b": 1, "a": 2}, None, None)]
    first = store.write(batch, "one")
    assert (first.repeated, first.known) == (False, {"u": None, "v": None})
    second = store.write([took("u", "i2")], "two")
    assert second.sequence > store.write([took("u", "i1"), batch[1]], "one").sequence
    again: list[UserChange] = [took("u", "i1"), UserUpsert("v", {"a": 2, "b": 1}, None, None)]
    assert store.write(again, "one") == WriteResult(first.sequence, True, {"u": True, "v": True})
    assert open_store().write(batch, "one").sequence == first.sequence
    record = record_of(store, "u")
    assert record is not None
    assert record.history == ("i2", "i1")
    for other in ([took("u", "i3")], [took("u", "i1", 5.0), batch[1]], [UserDelete("u"), batch[1]]):
        with pytest.raises(RequestError, match="belongs to other changes") as raised:
            store.write(other, "one")
        assert raised.value.where == "/key"
    assert store.write([took("u", "i1")]).sequence > second.sequence  # without keys, these are two batches
    assert store.write([UserDelete("u")], "three").known == {"u": True}
    assert store.write([UserDelete("u")], "three").known == {"u": False}


def test_a_batch_whose_key_belongs_to_other_changes_changes_nobody(store: LiveUsers) -> None:
    store.write([took("u", "i1")], "one")
    with pytest.raises(RequestError, match="belongs to other changes"):
        store.write([took("v", "i1"), took("u", "i1"), took("w", "i1")], "one")
    assert store.get(["v", "w"]) == {}
    assert store.sequence() == 1


def test_a_retried_batch_is_recognised_with_any_served_bundle(store: LiveUsers) -> None:
    first, again = InteractionEvent("u", "i1", None, "old data"), InteractionEvent("u", "i1", None, "new data")
    assert store.write([first], "one").sequence == store.write([again], "one").sequence
    user = store.get(["u"])["u"]
    assert isinstance(user, LiveUser)
    assert user.interactions == ("i1",)


def _drawn(rng: random.Random) -> UserChange:
    user_id, items = rng.choice("abcd"), tuple(rng.choices("uvwxyz", k=rng.randint(0, 3)))
    given = {name: rng.choice([None, 1, "x"]) for name in rng.sample(["age", "zip"], rng.randint(0, 2))}
    return rng.choice(
        [
            UserPut(user_id, given, items, items[:1]),
            UserUpsert(user_id, given, rng.choice([None, items]), rng.choice([None, items])),
            *[took(user_id, rng.choice("uvwxyz"), float(rng.randint(0, 9)))] * 4,
            UserDelete(user_id),
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_store_behaves_like_a_dictionary(open_store: Open, seed: int) -> None:
    rng, stores = random.Random(seed), [open_store(), open_store()]
    held: dict[str, LiveUser] = {}
    keys: dict[str, tuple[list[UserChange], int]] = {}
    written = 0
    for number in range(40):
        batch = [_drawn(rng) for _ in range(rng.randint(1, 4))]
        key = rng.choice([None, f"key {number}", *keys])
        if key in keys:
            batch, last = keys[key]
            assert rng.choice(stores).write(batch, key).sequence == last
        else:
            written += len(batch)
            last = rng.choice(stores).write(batch, key).sequence
            for change in batch:
                held[change.user_id] = change.apply(held.get(change.user_id), 0.0)
            if key is not None:
                keys[key] = batch, last
        store = rng.choice(stores)
        assert store.get(["a", "b", "c", "d"]) == held
        assert store.ids() == sorted(user_id for user_id, user in held.items() if user.known)
        assert store.sequence() >= written


def test_many_interactions_are_applied_in_their_order(store: LiveUsers) -> None:
    rng, held = random.Random(3), UserPut("u", {"age": 30}, ("h1", "h2"), ("s1",)).apply(None, 0.0)
    store.write([UserPut("u", {"age": 30}, ("h1", "h2"), ("s1",))])
    for number in range(60):
        batch = [took("u", f"i{rng.randint(0, 900)}", rng.choice([float(rng.randint(0, 99)), 1e3 + number])) for _ in range(30)]
        store.write(batch)
        for event in batch:
            held = event.apply(held, 0.0)
        if number % 9 == 0:
            assert store.get(["u"]) == {"u": held}
    assert store.get(["u"]) == {"u": held}


def test_concurrent_writes_of_one_user_are_not_lost(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    start = Barrier(4)

    def write(place: int) -> list[tuple[int, str]]:
        start.wait()
        names = [f"{place} {number}" for number in range(25)]
        return [(stores[place].write([took(f"own {place}", "i"), took("u", name)]).sequence, name) for name in names]

    with ThreadPoolExecutor(4) as pool:
        written = [one for done in pool.map(write, range(4)) for one in done]
    assert len({sequence for sequence, _ in written}) == 100
    record = record_of(stores[0], "u")
    assert record is not None
    assert [name for _, name in sorted(written, reverse=True)] == list(record.history)
    for place in range(4):
        assert [one for one in record.history if one[0] == str(place)] == [f"{place} {number}" for number in range(24, -1, -1)]


def test_threads_share_one_store(store: LiveUsers) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            store.write([took(f"u{thread}", f"i{number}")], key=f"{thread} {number}")
            record = record_of(store, f"u{thread}")
            assert record is not None
            assert record.history[0] == f"i{number}"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.sequence() == 160


def test_a_closed_store_opens_again(store: LiveUsers) -> None:
    store.write([took("u", "i1")])
    store.close()
    assert store.write([took("u", "i2")]).sequence == 2
    assert store.get(["u"]).keys() == {"u"}


def test_the_size_of_a_record_is_bounded(store: LiveUsers) -> None:
    for start in range(0, 12_000, 1000):
        store.write([took("u", f"i{number}") for number in range(start, start + 1000)])
    user = store.get(["u"])["u"]
    assert isinstance(user, LiveUser)
    assert list(user.interactions) == [f"i{number}" for number in range(11_999, 10_999, -1)]
    assert list(user.seen) == [f"i{number}" for number in range(10_999, 999, -1)]
