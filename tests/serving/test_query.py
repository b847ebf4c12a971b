"""Cached query vectors equal newly computed ones after any change."""

import gc
import itertools
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.profiles import Interaction, User


@pytest.fixture
def kept(published: Path, tmp_path: Path) -> Iterator[Recommender]:
    """A recommender that gets repeated requests."""
    loaded = Recommender.load(Path(shutil.copytree(published, tmp_path / "root")))
    yield loaded
    loaded.close()


def fresh(kept: Recommender, root: Path, *requests: Request) -> list[object]:
    loaded = Recommender.load(root)
    try:
        return [loaded.recommend(request) for request in requests]
    finally:
        loaded.close()


def test_cached_users_get_the_answers_of_a_fresh_recommender(kept: Recommender, tmp_path: Path) -> None:
    root = tmp_path / "root"
    users = ["u1", "u2", "nobody"]
    asked = [Request(user, n=5) for user in users]
    asked += [Request("u1", n=5, popularity=0.5), Request("u1", n=5, exclude_seen=False), Request("u1", n=5, history=())]
    asked += [Request("u1", {"age": 40}, n=5), Request("u2", n=3)]

    def check() -> list[object]:
        for _ in range(2):  # the second time from the cache
            found = [kept.recommend(request) for request in asked]
            assert found == fresh(kept, root, *asked)
            assert [kept.recommend_batch([request])[0] for request in asked] == found
        return found

    seen = [check()]
    best = kept.recommend(asked[0]).items[0].item_id
    kept.users.log_interactions([Interaction("u1", best)])
    seen.append(check())
    kept.users.upsert([User("u2", {"age": 71}), User("nobody", {"age": 20})])
    seen.append(check())
    gone = kept.recommend(asked[1]).items[0].item_id
    kept.items.delete([gone])
    seen.append(check())
    kept.users.delete(["u1"])
    seen.append(check())
    assert all(before != after for before, after in itertools.pairwise(seen))


def test_cached_vectors_are_read_only(kept: Recommender) -> None:
    request = Request("u1", n=5)
    expected = kept.recommend(request)
    with pytest.raises(ValueError, match="read-only"):
        kept._query_builder.build(request, kept.items.current()).vector[0] = 7.0
    assert kept.recommend(Request("u1", n=5, popularity=0.0)) != expected
    assert kept.recommend(request) == expected


def test_cached_queries_keep_no_old_segment(kept: Recommender) -> None:
    kept.items.upsert({"fresh": {"price": 1.0}})
    kept.recommend(Request("u1", n=5))
    old = weakref.ref(kept.items.current().segments[1])
    kept.items.upsert({"other": {"price": 2.0}})
    kept.recommend(Request("u2", n=5))
    gc.collect()
    assert old() is None
