import pytest

from recall.store.items.log_overlap import LogOverlap
from recall.store.items.log_position import Base


@pytest.mark.parametrize(
    ("ids", "withheld", "added"),
    [
        (("x",), "item 'x' of this table stays deleted by live changes", "item 'x' added by live changes is served"),
        (("x", "y"), "2 items ('x', 'y') of this table stay deleted", "2 items ('x', 'y') added by live changes are served"),
    ],
)
def test_one_item_stays_and_several_stay(ids: tuple[str, ...], withheld: str, added: str) -> None:
    lines = LogOverlap(Base("log", 3), withheld=ids, added=ids).describe()
    assert [line.startswith(start) for line, start in zip(lines, (withheld, added), strict=True)] == [True, True]
