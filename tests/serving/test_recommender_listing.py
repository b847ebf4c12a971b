"""Pages of the catalogue, compared with the sorted ids of all items."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recall.errors import RequestError
from recall.serving.recommender import Recommender
from tests.hypotheses import examples
from tests.serving.conftest import shaped_root, shop

__all__ = ["shaped_root", "shop"]

unchanged = settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])


@unchanged
@given(count=st.integers(1, 300), after=st.one_of(st.none(), st.sampled_from(["", "i", "i1", "i10", "i1000", "new3", "zzz"])))
def test_a_page_contains_the_next_ids_in_order(shop: Recommender, count: int, after: str | None) -> None:
    ids = sorted(shop.items.current().items()["item_id"])
    rest = [one for one in ids if after is None or one > after]
    page = shop.list_items(count, after)
    assert [one.item_id for one in page.items] == rest[:count]
    assert page.after == (rest[count - 1] if len(rest) > count else None)
    assert page.sequence == shop.items.current().sequence


def test_listed_items_have_their_catalogue_values(shop: Recommender) -> None:
    table = {row.pop("item_id"): row for row in shop.items.current().items().to_dicts()}
    for one in shop.list_items(1000).items:
        assert one.features == {name: value for name, value in table[one.item_id].items() if value is not None}
        assert shop.item(one.item_id).items == (one,)


def test_unknown_items_are_reported(shop: Recommender) -> None:
    assert shop.item("none").items == ()
    with pytest.raises(RequestError) as raised:
        shop.item(3)  # type: ignore[arg-type]
    assert raised.value.where == "/item_id"
    assert shop.list_items(5, "zzzz").items == ()
