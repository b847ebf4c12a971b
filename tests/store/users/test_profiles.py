"""Current user profiles: the records of a bundle with live changes applied."""

import datetime
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from recall.bundle import files
from recall.bundle.versions import resolve
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import RequestError, StoreDownError, StoreError
from recall.features.encoder import FeatureEncoder
from recall.publish.derived import compact
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.changes import UserUpsert
from recall.store.users.profiles import Interaction, User
from recall.store.users.record import UserRecord
from recall.store.users.redis import RedisLiveUsers
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.conftest import TINY, random_model, write_tiny_tables
from tests.service.serving import free_port


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "root"))


@pytest.fixture
def live(root: Path) -> Iterator[Recommender]:
    loaded = Recommender.load(root)
    yield loaded
    loaded.close()


def record_of(recommender: Recommender, user_id: str) -> UserRecord:
    record = recommender.users.get(user_id)
    assert record is not None
    return record


def items_of(recommender: Recommender, request: Request) -> list[tuple[str, float]]:
    return [(item.item_id, item.score) for item in recommender.recommend(request).items]


def test_changes_take_effect_in_the_next_answer(live: Recommender, recommender: Recommender) -> None:
    before = record_of(live, "u1")
    first, second = [item for item, _ in items_of(live, Request("u1", n=2))]
    receipt = live.users.log_interactions([Interaction("u1", first), Interaction("u1", second)])
    assert receipt == (2, 1)
    receipt = live.users.upsert([User("u1", {"age": 77, "gender": None})])
    assert receipt == (3, 1)
    expected = replace(
        Request("u1", n=100), features={"age": 77, "gender": None}, history=(second, first, *before.history), exclude=(first,)
    )
    assert items_of(live, Request("u1", n=100)) == items_of(recommender, expected)
    assert record_of(live, "u1").seen == (second, first, *before.seen)
    assert items_of(live, Request("u2", n=100)) == items_of(recommender, Request("u2", n=100))


def test_request_values_override_stored_ones(live: Recommender, recommender: Recommender) -> None:
    live.users.put(User("u1", {"age": 20}, ["i1"], ["i2"]))
    own = replace(Request("u1", n=100), features={"age": 40}, history=("i3",))
    expected = replace(own, features={"age": 40, "gender": None, "zip": None}, exclude=("i1", "i2"), exclude_seen=False)
    assert items_of(live, own) == [one for one in items_of(recommender, expected) if one[0] != "i3"]


def test_a_new_user_is_known_and_a_deleted_one_is_not(live: Recommender, recommender: Recommender) -> None:
    live.users.upsert([User("new", {"age": 30, "zip": 11}, ["i1"])])
    answer = live.recommend(Request("new", n=100))
    assert answer.user == "known"
    expected = Request("new", features={"age": 30, "zip": 11}, history=("i1",), n=100)
    assert [(one.item_id, one.score) for one in answer.items] == items_of(recommender, expected)
    assert live.users.delete(["u1", "nobody"]) == (3, 1)
    assert live.recommend(Request("u1")).user == "unknown"
    nothing = Request("u1", dict.fromkeys(("age", "gender", "zip")), history=(), n=100, exclude_seen=False)
    assert items_of(live, Request("u1", n=100)) == items_of(recommender, nothing)
    assert live.users.get("u1") is None


def test_a_batch_reads_users_once_and_equals_single_requests(live: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    live.users.log_interactions([Interaction("u1", "i0"), Interaction("new", "i1")])
    requests = [Request(user, n=5) for user in ("u1", "new", None, "u2", "stranger", "u1")]
    expected = [live.recommend(request) for request in requests]
    asked: list[list[str]] = []
    inner = SqliteLiveUsers.get
    monkeypatch.setattr(SqliteLiveUsers, "get", lambda self, ids: asked.append(list(ids)) or inner(self, ids))
    assert live.recommend_batch(requests) == expected
    assert asked == [["u1", "new", "u2", "stranger"]]


@pytest.mark.parametrize(
    ("user", "where"),
    [
        (User("u", {"agee": 1}), "/users/1/features/agee"),
        (User("u", {"age": "old"}), "/users/1/features/age"),
        (User("u", {"age": float("nan")}), "/users/1/features/age"),
        (User("u", {"gender": {"a": 1}}), "/users/1/features/gender"),
        (User("u", {"user_id": "v"}), "/users/1/features/user_id"),
        (User("u", {"device": "web"}), "/users/1/features/device"),
        (User("u", {"age": 2**70}), "/users/1/features"),
        (User(7, {}), "/users/1/user_id"),  # type: ignore[arg-type]
        (User("\ud800", {}), "/users/1/user_id"),
        (User("u", {}, "i1"), "/users/1/history"),
        (User("u", {}, ["i1", 2]), "/users/1/history/1"),  # type: ignore[list-item]
        (User("u", {}, None, ["\ud800"]), "/users/1/seen/0"),
    ],
)
def test_invalid_changes_are_named_and_nothing_is_written(root: Path, live: Recommender, user: User, where: str) -> None:
    with pytest.raises(RequestError) as raised:
        live.users.upsert([User("good", {"age": 1}), user])
    assert raised.value.where == where
    assert not (root / USERS_LIVE).exists()


def test_a_misspelt_column_gets_a_suggestion(live: Recommender) -> None:
    with pytest.raises(RequestError, match="Did you mean 'gender'"):
        live.users.put(User("u", {"gendr": "f"}))


@pytest.mark.parametrize(
    ("interaction", "where"),
    [
        (Interaction("u", 7), "/interactions/1/item_id"),  # type: ignore[arg-type]
        (Interaction("\ud800", "i"), "/interactions/1/user_id"),
        (Interaction("u", "i", float("nan")), "/interactions/1/time"),
        (Interaction("u", "i", float("inf")), "/interactions/1/time"),
        (Interaction("u", "i", "now"), "/interactions/1/time"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_interaction_is_named(root: Path, live: Recommender, interaction: Interaction, where: str) -> None:
    with pytest.raises(RequestError) as raised:
        live.users.log_interactions([Interaction("u", "i"), interaction])
    assert raised.value.where == where
    assert not (root / USERS_LIVE).exists()


def test_values_of_every_kind_are_stored_in_canonical_form(live: Recommender, recommender: Recommender) -> None:
    for value in (31, 31.0, True, 0.5):
        live.users.upsert([User("u1", {"age": value, "zip": datetime.date(2026, 1, 31), "gender": Decimal(value)})])
        expected = Request("u1", features={"age": value, "zip": "2026-01-31", "gender": value}, n=100)
        assert items_of(live, Request("u1", n=100)) == items_of(recommender, expected)


def test_an_idempotency_key_identifies_one_change(live: Recommender) -> None:
    before = record_of(live, "u1").history
    for _ in range(3):
        assert live.users.log_interactions([Interaction("u1", "i1")], key="k").sequence == 1
    assert record_of(live, "u1").history == ("i1", *before)
    with pytest.raises(RequestError, match="other changes"):
        live.users.delete(["u1"], key="k")


def test_a_repeated_change_is_reported_as_such(live: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    users, given = live.users, [Interaction("u1", "i9")]
    assert [users.log_interactions(given, key="one").repeated for _ in range(2)] == [False, True]
    assert not users.log_interactions(given, key="two").repeated
    assert not users.log_interactions(given).repeated
    assert users.upsert([User("u1", {"age": 31})], key="three").repeated is False
    assert users.upsert([User("u1", {"age": 31})], key="three").repeated is True

    def slow(_: object) -> int:
        raise StoreDownError("no answer came in time")

    monkeypatch.setattr(SqliteLiveUsers, "sequence", slow)
    assert not users.log_interactions(given, key="four").repeated


def test_an_empty_batch_changes_nothing(root: Path, live: Recommender) -> None:
    assert live.users.upsert([]) == live.users.log_interactions([]) == live.users.delete([]) == (0, 0)
    assert not (root / USERS_LIVE).exists()


def test_a_single_bundle_cannot_be_changed(root: Path) -> None:
    recommender = Recommender.load(resolve(root))
    assert not recommender.users.writable
    with pytest.raises(StoreError, match="no store for changes of users"):
        recommender.users.log_interactions([Interaction("u1", "i1")])
    recommender.close()
    assert not list(root.rglob("*" + USERS_LIVE))


def test_compaction_and_rebuilds_keep_user_changes(root: Path, live: Recommender) -> None:
    live.users.log_interactions([Interaction("u1", "fresh"), Interaction("new", "i1")])
    live.items.upsert({"fresh": {"category": "c1"}})
    before = [record_of(live, user) for user in ("u1", "new")]
    assert compact(root) is not None
    again = Recommender.load(root)
    assert [record_of(again, user) for user in ("u1", "new")] == before
    assert "fresh" not in dict(items_of(again, Request("u1", n=100)))
    again.close()


def test_checks_of_a_bundle_ignore_user_changes(root: Path, live: Recommender) -> None:
    live.users.log_interactions([Interaction("u1", "i1"), Interaction("new", "i1")])
    live.users.delete(["u2"])
    alone = Recommender.load(root, users=None)
    assert not alone.users.writable
    for user_id in ("u1", "new", "u2"):
        assert alone.users.get(user_id) == alone.users.known([user_id])[user_id].record
        assert (
            live.users.known([user_id])[user_id]
            == live.users.known([user_id, "u3"])[user_id]
            != alone.users.known([user_id])[user_id]
        )
    assert record_of(alone, "u1").history == record_of(live, "u1").history[1:]
    assert alone.users.get("new") is None
    assert alone.users.get("u2") is not None
    alone.close()


def test_user_data_never_prevents_a_publication(root: Path, live: Recommender) -> None:
    store = SqliteLiveUsers(root / USERS_LIVE)
    store.write([UserUpsert(f"u{number}", {"age": ["a", "list"]}, None, None) for number in range(12)])
    store.close()
    live.items.upsert({"fresh": {"category": "c1"}})
    assert compact(root) is not None
    (root / USERS_LIVE).write_bytes(b"no database " * 1000)
    live.items.upsert({"fresher": {"category": "c1"}})
    report = compact(root)
    assert report is not None
    assert report.overlap > 0


def test_a_later_bundle_does_not_count_interactions_twice(tmp_path: Path) -> None:
    write_tiny_tables(tmp_path)
    config = parse_config(TINY)

    def publish() -> Recommender:
        dataset = load_dataset(config, tmp_path)
        encoder = FeatureEncoder.fit(dataset)
        export(random_model(encoder), encoder, dataset, config, tmp_path / "bundles")
        return Recommender.load(tmp_path / "bundles")

    first = publish()
    before = record_of(first, "u1").history
    first.users.log_interactions([Interaction("u1", item) for item in ("i3", "i4", "i3", "i5")])
    known = record_of(first, "u1")
    assert known.history == ("i5", "i3", "i4", "i3", *before)
    first.close()
    table = tmp_path / "interactions.parquet"
    events = pl.read_parquet(table)
    added = pl.DataFrame({"user_id": ["u1"] * 3, "item_id": ["i3", "i4", "i3"], "time": [100, 101, 102]})
    pl.concat([events, added], how="diagonal").with_columns(
        pl.col("strength").fill_null(1.0), pl.col("device").fill_null("web"), pl.col("hour").fill_null(1)
    ).write_parquet(table)
    second = publish()
    record = record_of(second, "u1")
    assert record.history[:3] == ("i5", "i3", "i4")
    assert (set(record.seen), len(record.seen)) == (set(known.seen), len(set(known.seen)))
    assert record.history == known.history
    second.close()


def test_values_unreadable_by_another_model_are_skipped_and_reported(root: Path, live: Recommender) -> None:
    store = SqliteLiveUsers(root / USERS_LIVE)
    store.write([UserUpsert("u1", {"age": ["a", "list"], "colour": "red", "zip": 7}, None, None)])
    answer = live.recommend(Request("u1", n=100))
    assert [one for one in answer.warnings if "cannot be read by the model: 'age'" in one]
    expected = live.recommend(Request("u1", n=100, features={"age": None, "zip": 7}))
    assert answer.items == expected.items
    assert expected.warnings == ()
    with pytest.raises(RequestError) as raised:  # invalid request values are errors of the request
        live.recommend(Request("u1", features={"age": ["a", "list"]}))
    assert raised.value.where == "/features/age"
    store.close()


def test_an_unreadable_record_is_reported_and_the_bundle_is_used(
    root: Path, live: Recommender, recommender: Recommender
) -> None:
    (root / USERS_LIVE).write_bytes(b"no database " * 1000)
    answer = live.recommend(Request("u1", n=100))
    assert [(one.part, "not known" in one.reason) for one in answer.degraded] == [("users", True)]
    assert answer.items == recommender.recommend(Request("u1", n=100)).items
    assert live.recommend(Request(n=5)).degraded == ()
    with pytest.raises(StoreError, match="not known"):
        live.users.get("u1")
    with pytest.raises(StoreError, match="damaged"):
        live.users.log_interactions([Interaction("u1", "i1")])


def test_a_store_passed_by_the_caller_stays_open(root: Path, recommender: Recommender) -> None:
    store = RedisLiveUsers(f"redis://127.0.0.1:{free_port()}/0", read_seconds=1)
    loaded = Recommender.load(root, users=store)
    answers = loaded.recommend_batch([Request("u1", n=100), Request(n=3), Request("u1", n=100)])
    assert [[one.part for one in answer.degraded] for answer in answers] == [["users"], [], ["users"]]
    assert answers[0].items == recommender.recommend(Request("u1", n=100)).items
    with pytest.raises(StoreDownError):
        loaded.users.log_interactions([Interaction("u1", "i1")])
    assert not (root / USERS_LIVE).exists()
    loaded.close()
    store.close()


def test_requests_and_changes_run_concurrently(live: Recommender) -> None:
    def work(thread: int) -> None:
        for number in range(20):
            live.users.log_interactions([Interaction(f"w{thread}", f"i{number % 15}")])
            assert record_of(live, f"w{thread}").history[0] == f"i{number % 15}"
            answer = live.recommend(Request(f"w{thread}", n=100))
            assert (answer.user, answer.degraded) == ("known", ())
            assert f"i{number % 15}" not in [one.item_id for one in answer.items]

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))


def test_user_changes_do_not_write_to_the_bundle(root: Path, live: Recommender) -> None:
    stored = resolve(root) / files.USERS
    before = stored.read_bytes()
    live.users.log_interactions([Interaction("u1", "i1")])
    live.users.delete(["u2"])
    assert stored.read_bytes() == before
