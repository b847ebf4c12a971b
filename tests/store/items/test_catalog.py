"""Changes are visible to the next request of every process, and invalid ones have no effect."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve
from recall.errors import JournalError, RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Recommendations, Request
from recall.store.items.log import JOURNAL
from tests.conftest import ITEMS

FRESH = {"category": "c1", "tags": ["t1", "t2"], "tag_weights": [1.0, 2.0], "price": 25.0}
EVERYTHING = Request("u1", n=1000, exclude_seen=False)


def scores_of(answer: Recommendations) -> dict[str, float]:
    return {item.item_id: item.score for item in answer.items}


def test_an_upserted_item_is_served_by_the_next_request(live: Recommender) -> None:
    before = scores_of(live.recommend(EVERYTHING))
    receipt = live.items.upsert({"fresh": FRESH})
    assert receipt == (1, 0)
    answer = live.recommend(EVERYTHING)
    assert answer.sequence == 1
    assert answer.exact
    after = scores_of(answer)
    assert set(after) == {*before, "fresh"}
    assert before == {one: score for one, score in after.items() if one != "fresh"}
    assert [item.score for item in answer.items] == sorted(after.values(), reverse=True)
    vector = live.bundle.tables.item_vectors(live.bundle.encoder.encode_item({"item_id": "fresh", **FRESH}))[0]
    user = live.user_vectors([EVERYTHING])[0]
    assert after["fresh"] == pytest.approx(float(vector @ user), abs=1e-5)


def test_upserting_an_unchanged_item_keeps_its_score_bit_for_bit(live: Recommender) -> None:
    before = live.recommend(EVERYTHING)
    rows = live.bundle.items().rows(named=True)
    for row in (rows[4], rows[7]):
        item_id = row.pop("item_id")
        assert live.items.upsert({item_id: row}).known == 1
    items = {one.pop("item_id"): one for one in live.bundle.items().rows(named=True)[9:14]}
    live.items.upsert(items)
    assert sorted(live.recommend(EVERYTHING).items) == sorted(before.items)


def test_an_upsert_replaces_the_whole_item(live: Recommender) -> None:
    before = scores_of(live.recommend(EVERYTHING))
    live.items.upsert({"i1": {"category": "c1"}})
    after = scores_of(live.recommend(EVERYTHING))
    assert after.keys() == before.keys()
    assert after["i1"] != before["i1"]
    (missing,) = live.items.current().segments[1].content.items().select("tags", "price").rows()
    assert missing == (None, None)


def test_a_deleted_item_disappears_at_once(live: Recommender) -> None:
    first = live.recommend(EVERYTHING)
    assert live.items.delete(["i1", "nowhere", "i1"]) == (2, 1)
    answer = live.recommend(EVERYTHING)
    assert answer.items == tuple(item for item in first.items if item.item_id != "i1")
    with pytest.raises(RequestError, match="'i1' is not in the catalogue"):
        live.explain(EVERYTHING, "i1")
    with pytest.raises(RequestError, match="1 items are not in the catalogue: 'i1'"):
        live.predict([(EVERYTHING, "i1"), (EVERYTHING, "i2")])
    excluding = live.recommend(Request("u1", exclude=["i1"]))
    assert excluding.warnings == ("1 excluded ids are not in the catalogue: 'i1'",)
    live.items.upsert({"fresh": FRESH})
    live.items.delete(["fresh"])
    assert live.recommend(EVERYTHING).items == answer.items
    live.items.upsert({"i1": FRESH})
    assert len(live.recommend(EVERYTHING).items) == ITEMS


def test_all_items_can_be_deleted_and_replaced(live: Recommender) -> None:
    live.items.delete(live.bundle.item_ids.values.to_list())
    answer = live.recommend(EVERYTHING)
    assert (answer.items, answer.exact) == ((), True)
    live.items.upsert({f"new {number}": {"price": float(number)} for number in range(700)})
    answer = live.recommend(EVERYTHING)
    assert len(answer.items) == 700
    assert scores_of(live.recommend(Request("u1", n=20))) == dict(list(scores_of(answer).items())[:20])


def test_explanations_and_predictions_include_new_items(live: Recommender) -> None:
    live.items.upsert({"fresh": FRESH})
    score = scores_of(live.recommend(EVERYTHING))["fresh"]
    explanation = live.explain(EVERYTHING, "fresh")
    assert explanation.score == pytest.approx(score, abs=1e-5)
    assert sum(one.value for one in explanation.contributions) == pytest.approx(score, abs=1e-4)
    (predicted,) = live.predict([(EVERYTHING, "fresh")])
    assert predicted.score == pytest.approx(score + explanation.user_offset, abs=1e-5)


def test_new_items_can_be_excluded_and_seen(live: Recommender) -> None:
    live.items.upsert({"fresh": FRESH, "i2": FRESH})
    left = scores_of(live.recommend(Request("u1", n=1000, exclude_seen=False, exclude=["fresh", "i2", "i3"])))
    assert len(left) == ITEMS - 2
    assert not {"fresh", "i2", "i3"} & set(left)
    assert "fresh" not in scores_of(live.recommend(Request(history=["fresh"], n=1000)))


def test_changes_survive_the_process(root: Path, live: Recommender) -> None:
    live.items.upsert({"fresh": FRESH, "i2": FRESH})
    live.items.delete(["i3"])
    again = Recommender.load(root)
    assert again.recommend(EVERYTHING) == live.recommend(EVERYTHING)
    again.close()
    folder = Recommender.load(resolve(root))  # a single version is read-only
    assert folder.recommend(EVERYTHING).sequence == 0
    assert "fresh" not in scores_of(folder.recommend(EVERYTHING))
    with pytest.raises(JournalError, match="Load the root"):
        folder.items.delete(["i1"])
    folder.close()
    followed = Recommender.load(resolve(root), root=root)
    assert followed.recommend(EVERYTHING) == live.recommend(EVERYTHING)
    followed.close()


WRITER = """
import sys
from recall.serving.recommender import Recommender

live = Recommender.load(sys.argv[1])
for line in sys.stdin:
    live.items.upsert({line.strip(): {"price": 3.0}})
    print("done", flush=True)
"""


def test_another_process_sees_a_change_promptly(root: Path, live: Recommender) -> None:
    command = [sys.executable, "-c", WRITER, str(root)]
    cwd = Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in range(5):
            print(f"other {number}", file=writer.stdin, flush=True)
            assert writer.stdout.readline() == "done\n"
            deadline = time.monotonic() + 60
            while f"other {number}" not in scores_of(live.recommend(EVERYTHING)):
                assert time.monotonic() < deadline
            assert live.items.upsert({f"own {number}": {}}).sequence == 2 * number + 2
        writer.stdin.close()


def test_a_request_sees_only_complete_batches(live: Recommender) -> None:
    """Every batch sets one price for all its items, so that a partial batch would show two prices."""
    names = [f"item {number}" for number in range(8)]
    prices = [float(4**number) for number in range(6)]
    live.items.upsert({one: {"price": prices[0]} for one in names})
    expected = set()
    for price in prices:
        live.items.upsert({one: {"price": price} for one in names})
        scores = scores_of(live.recommend(EVERYTHING))
        expected.add(tuple(scores[one] for one in names))
    done = Event()

    def ask() -> list[tuple[tuple[float, ...], int]]:
        seen = []
        while not done.is_set():
            answer = live.recommend(EVERYTHING)
            scores = scores_of(answer)
            seen.append((tuple(scores[one] for one in names), answer.sequence))
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for number in range(40):
            live.items.upsert({one: {"price": prices[number % len(prices)]} for one in names})
        done.set()
        seen = [one for future in asking for one in future.result()]
    assert {scores for scores, _ in seen} <= expected
    assert all(sequence % len(names) == 0 for _, sequence in seen)


def test_a_batch_retried_with_its_key_changes_nothing(live: Recommender) -> None:
    assert live.items.upsert({"fresh": FRESH}, key="one") == (1, 0)
    assert live.items.delete(["fresh"], key="two") == (2, 1)
    assert live.items.upsert({"fresh": FRESH}, key="one").sequence == 1
    assert "fresh" not in scores_of(live.recommend(EVERYTHING))
    with pytest.raises(RequestError, match="belongs to other changes"):
        live.items.upsert({"fresh": {}}, key="one")
    assert live.items.upsert({}).sequence == live.items.delete([]).sequence == 2


@pytest.mark.parametrize(
    ("features", "where", "message"),
    [
        ({"categry": "c1"}, "/items/1/features/categry", "item 'b': .*Did you mean 'category'"),
        ({"a/b": 1}, "/items/1/features/a~1b", "no column"),
        ({"price": float("nan")}, "/items/1/features/price", "item 'b': the value of column 'price' is not a finite number"),
        ({"price": float("inf")}, "/items/1/features/price", "not a finite number"),
        ({"price": "dear"}, "/items/1/features/price", "not a finite number"),
        ({"price": [1.0]}, "/items/1/features/price", "not a finite number"),
        ({"tags": "t1|t2", "tag_weights": [1.0]}, "/items/1/features/tag_weights", "item 'b': .*weight"),
        ({"tags": {"t1": 1}}, "/items/1/features/tags", "not a list"),
        ({"tags": ["t1"], "tag_weights": [float("inf")]}, "/items/1/features/tag_weights", "finite"),
        ({"tags": ["t1"], "tag_weights": [1e300]}, "/items/1/features/tag_weights", "item 'b': .*too large"),
        ({"category": ["c1"]}, "/items/1/features/category", "not a scalar"),
        ({"category": float("-inf")}, "/items/1/features/category", "finite"),
        ({"category": "\ud800"}, "/items/1/features/category", "Unicode"),
    ],
)
def test_an_invalid_item_is_named_and_changes_nothing(
    root: Path, live: Recommender, features: dict[str, object], where: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        live.items.upsert({"a": FRESH, "b": features, "c": FRESH})
    assert raised.value.where == where
    assert live.recommend(EVERYTHING).sequence == 0
    assert not (root / JOURNAL).exists()


@pytest.mark.parametrize(("value", "what"), [(np.inf, "holds NaN or an infinity"), (1e20, "is too large to be scored")])
def test_an_item_whose_score_overflows_is_refused(
    live: Recommender, monkeypatch: pytest.MonkeyPatch, value: float, what: str
) -> None:
    original = type(live.bundle.tables).item_vectors

    def overflowing(tables: object, rows: object) -> object:
        vectors = original(tables, rows)  # type: ignore[arg-type]
        return np.where(vectors[:, :1] == poison, np.float32(value), vectors)

    given = live.items._reader.encode({"b": {"category": "c2", "price": 7.0}})
    poison = given.vectors[0, 0]
    monkeypatch.setattr(type(live.bundle.tables), "item_vectors", overflowing)
    with pytest.raises(RequestError, match=f"item 'b': the vector {what}") as raised:
        live.items.upsert({"a": FRESH, "b": {"category": "c2", "price": 7.0}})
    assert raised.value.where == "/items/1/features"
    assert live.items.current().sequence == 0


@pytest.mark.parametrize("ids", [[3], ["\ud800"], "i1"])
def test_ids_are_text(live: Recommender, ids: object) -> None:
    with pytest.raises(RequestError):
        live.items.delete(ids)  # type: ignore[arg-type]


@pytest.mark.parametrize("item_id", ["nul\0inside", "line\nbreak", "../../etc", "é", "e\u0301", "' OR 1=1--", "🦊" * 50])
def test_ids_round_trip_as_given(root: Path, live: Recommender, item_id: str) -> None:
    live.items.upsert({item_id: {}})
    again = Recommender.load(root)
    assert item_id in scores_of(again.recommend(EVERYTHING))
    again.items.delete([item_id])
    again.close()
    assert item_id not in scores_of(Recommender.load(root).recommend(EVERYTHING))


def test_an_unreadable_log_degrades_answers(root: Path, live: Recommender) -> None:
    live.items.upsert({"fresh": FRESH})
    answer = live.recommend(EVERYTHING)
    path = root / JOURNAL
    whole = path.with_name("whole")
    live.items._journal.close()  # type: ignore[union-attr]
    path.rename(whole)
    path.write_bytes(b"no database" * 1000)
    time.sleep(0.02)
    stale = live.recommend(EVERYTHING)
    assert stale.items == answer.items
    (degraded,) = stale.degraded
    assert degraded.part == "items"
    assert degraded.reason.startswith("later changes of items are not known: ")
    assert str(root) not in degraded.reason  # clients see the problem, not its path
    for other in (
        live.explain(EVERYTHING, "i1"),
        live.why_not(EVERYTHING, "i1"),
        live.score(EVERYTHING, ["i1"]),
        live.user_vector(EVERYTHING),
        live.similar("i1"),
        live.item("i1"),
        live.list_items(),
    ):
        assert (other.degraded, other.bundle, other.sequence) == (
            stale.degraded,
            stale.bundle,
            stale.sequence,
        )
    with pytest.raises(JournalError, match="damaged"):
        live.items.delete(["fresh"])
    with pytest.raises(JournalError, match="damaged"):
        live.items.refresh()
    with pytest.raises(JournalError, match="damaged"):
        Recommender.load(root)
    whole.replace(path)
    time.sleep(0.02)
    assert live.recommend(EVERYTHING) == answer


def test_a_change_that_does_not_fit_a_bundle_is_skipped_and_named(root: Path, live: Recommender) -> None:
    live.items.upsert({"fresh": FRESH, "i2": FRESH})
    assert live.items._journal is not None
    from recall.store.items.log_position import Change

    bad = [Change("i2", {"price": "dear"}), Change("other", {"price": 1.0, "gone": "x"}), Change("tags", {"tags": ["t1"]})]
    live.items._journal.append(bad)
    live.items.refresh()
    assert set(live.items.refused) == {"i2", "tags"}
    assert "finite" in live.items.refused["i2"]
    scores = scores_of(live.recommend(EVERYTHING))
    assert {"fresh", "other"} <= set(scores)
    assert not {"i2", "tags"} & set(scores)
    live.items.upsert({"i2": FRESH})
    assert set(live.items.refused) == {"tags"}
    assert "i2" in scores_of(live.recommend(EVERYTHING))
    assert load_bundle(root).manifest.folded == 0


def test_filters_and_allow_lists_apply_to_changed_items(live: Recommender) -> None:
    cheap = {"price": {"lt": 10.0}}
    before = scores_of(live.recommend(Request("u1", n=1000, exclude_seen=False, filter=cheap)))
    live.items.upsert({"near": {"price": 5.0}, "dear": {"price": 500.0}, "i1": {"price": 90.0}, "i9": {"price": 3.0}})
    live.items.delete(["i3"])
    after = scores_of(live.recommend(Request("u1", n=1000, exclude_seen=False, filter=cheap)))
    assert {"i1", "i3"} <= set(before)
    assert set(after) == set(before) - {"i1", "i3"} | {"near", "i9"}
    allowed = live.recommend(Request("u1", n=1000, exclude_seen=False, allow=["near", "dear", "i1", "i3", "i4"]))
    assert set(scores_of(allowed)) == {"near", "dear", "i1", "i4"}
    assert allowed.exact
    both = live.recommend(Request("u1", n=1000, exclude_seen=False, filter=cheap, allow=["near", "dear", "i1"]))
    assert set(scores_of(both)) == {"near"}
