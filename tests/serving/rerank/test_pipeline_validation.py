"""An invalid request is refused before its user is read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel
from recall.serving.rerank.rules import Dedupe, Pin, Quota
from recall.store.users.record import LiveUser
from recall.store.users.sqlite import SqliteLiveUsers


class CountingUsers(SqliteLiveUsers):
    """The real store, counting the users that are read."""

    read = 0

    def get(self, user_ids: Sequence[str]) -> dict[str, LiveUser]:
        self.read += len(user_ids)
        return super().get(user_ids)


@pytest.fixture
def counted(published: Path, tmp_path: Path) -> Iterator[tuple[Recommender, CountingUsers]]:
    users = CountingUsers(tmp_path / "users.sqlite")
    loaded = Recommender.load(published, users=users)
    yield loaded, users
    loaded.close()
    users.close()


BAD = [
    ({"rules": [Quota("nowhere", 1)]}, "/rules/0/column"),
    ({"rules": [Quota("category", 1), Dedupe("nowhere")]}, "/rules/1/column"),
    ({"rules": [Quota("category", 0)]}, "/rules/0/most"),
    ({"rules": [Quota("category", 1)] * 11}, "/rules"),
    ({"rules": [Pin({"i1": 6})]}, "/rules/0/items"),
    ({"channels": Channels([ModelChannel(), LatestChannel("nowhere")])}, "/channels/lists/1/column"),
    ({"channels": Channels([ListChannel(["i1", "i1"])])}, "/channels/lists/0/items"),
    ({"boosts": {"nowhere": 1.0}}, "/boosts/nowhere"),
    ({"filter": {"nowhere": 1}}, "/filter/nowhere"),
    ({"filter": {"price": {"above": 1}}}, "/filter/price/above"),
    ({"rules": [Quota("nowhere", 1)], "n": 0}, "/n"),
]


@pytest.mark.parametrize(("parts", "where"), BAD)
def test_no_user_is_read_for_an_invalid_request(
    counted: tuple[Recommender, CountingUsers], parts: dict[str, object], where: str
) -> None:
    recommender, users = counted
    request = Request("u1", **{"n": 5, **parts})
    for ask in (recommender.recommend, lambda one: recommender.why_not(one, "i1")):
        with pytest.raises(RequestError) as raised:
            ask(request)
        assert raised.value.where == where
    if "boosts" in parts:
        for ask in (lambda one: recommender.score(one, ["i1"]), lambda one: recommender.explain(one, "i1")):
            with pytest.raises(RequestError):
                ask(request)
    assert users.read == 0


def test_a_batch_reads_only_users_of_valid_requests(counted: tuple[Recommender, CountingUsers]) -> None:
    recommender, users = counted
    requests = [Request("u1", n=5), *(Request("u2", **{"n": 5, **parts}) for parts, _ in BAD), Request("u3", n=5)]
    answers = recommender.recommend_each(requests)
    assert [isinstance(one, RequestError) for one in answers] == [False, *[True] * len(BAD), False]
    assert [one.where for one in answers[1:-1] if isinstance(one, RequestError)] == [where for _, where in BAD]
    assert users.read == 2


def test_a_valid_request_reads_its_user_once(counted: tuple[Recommender, CountingUsers]) -> None:
    recommender, users = counted
    asked = Request("u1", n=5, rules=[Quota("category", 2)], filter={"price": {"gte": 0}})
    assert recommender.recommend(asked).ids == recommender.recommend_batch([asked])[0].ids
    assert users.read == 2
