import pytest

from recall.store.items.binding import Standing
from recall.store.items.log_position import Base


@pytest.mark.parametrize(
    ("ids", "withheld", "added"),
    [
        (("x",), "item 'x' of this table stays deleted", "item 'x' is served besides"),
        (("x", "y"), "2 items ('x', 'y') of this table stay deleted", "2 items ('x', 'y') are served besides"),
    ],
)
def test_one_item_stays_and_several_stay(ids: tuple[str, ...], withheld: str, added: str) -> None:
    lines = Standing(Base("log", 3), withheld=ids, added=ids).lines()
    assert [line.removesuffix(", as live changes say") for line in lines] == [withheld, added]
