"""A draft of any table is a valid configuration, and drafting never fails with an internal error."""

import datetime
import tempfile
import tomllib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.scaffold.draft import draft
from recall.errors import RecallError

NAMES = st.sampled_from(
    [
        *(
            "rating",
            "event",
            "clicked",
            "qty",
            "time",
            "date",
            "split",
            "weight",
            "title",
            "previous",
            "previous_items",
            "user_x",
        ),
        *(
            "item_x",
            "x",
            "a b",
            'q"uote',
            "line\nbreak",
            "tab\tbed",
            "näme",
            "session_id",
            "review",
            "label",
            "type",
            "\x7f",
            "#",
            "",
        ),
    ]
)
VALUES = st.sampled_from(
    [
        st.integers(-5, 5),
        st.integers(1_600_000_000, 1_600_000_100),
        st.floats(allow_nan=True, allow_infinity=False, width=32),
        st.booleans(),
        st.sampled_from(["view", "buy", "refund", "", "x\ny", '"', "1", "01", "true", "2024-01-01"]),
        st.sampled_from([["a"], ["a", "b"], []]),
        st.sampled_from([[["a"]], [["a"], ["b"]]]),
        st.dates(datetime.date(2000, 1, 1), datetime.date(2001, 1, 1)),
        st.none(),
    ]
)


@st.composite
def columns(draw: st.DrawFn, rows: int) -> dict[str, pl.Series]:
    found = {}
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        one = draw(VALUES)
        values = draw(st.lists(one | st.none() if draw(st.booleans()) else one, min_size=rows, max_size=rows))
        found[name] = pl.Series(name, values, dtype=pl.String if all(value is None for value in values) else None, strict=False)
    return found


@st.composite
def tables(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    rows = draw(st.integers(1, 40))
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    user = draw(st.lists(st.integers(0, users), min_size=rows, max_size=rows))
    item = draw(st.lists(st.integers(0, items), min_size=rows, max_size=rows))
    found = {"interactions": pl.DataFrame({"user_id": user, "item_id": item, **draw(columns(rows))})}
    if draw(st.booleans()):
        found["users"] = pl.DataFrame({"user_id": range(users), **draw(columns(users))})
    if draw(st.booleans()):
        found["items"] = pl.DataFrame({"item_id": range(items), **draw(columns(items))})
    return found


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(tables())
def test_every_draft_is_a_valid_configuration(made: dict[str, pl.DataFrame]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for table, frame in made.items():
            frame.write_parquet(folder / f"{table}.parquet")
        config = parse_config(tomllib.loads(draft(folder)))
        try:
            load_dataset(config, folder)
            said = ""
        except RecallError as error:  # such as no training part in so few rows
            said = str(error)
        assert "column '" not in said or "no column" not in said  # but every named column exists


def test_columns_of_unsupported_types_are_reported(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "places": [[{"lat": 1.0}]], "raw": [b"x"]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    text = draft(tmp_path)
    assert "# places: of type List(Struct" in text
    assert "# raw: of type Binary" in text
    assert load_dataset(parse_config(tomllib.loads(text)), tmp_path).context_columns == ()


def test_columns_of_the_same_name_get_distinct_field_names(tmp_path: Path) -> None:
    n = 60
    kinds = [f"k{row % 3}" for row in range(n)]
    log = pl.DataFrame({"user_id": [row % 7 for row in range(n)], "item_id": [row % 11 for row in range(n)], "kind": kinds})
    log.write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"item_id": range(11), "kind": [f"i{row % 2}" for row in range(11)]}).write_parquet(tmp_path / "items.parquet")
    config = parse_config(tomllib.loads(draft(tmp_path)))
    assert {name: config.schema_.column(name) for name in ("kind", "item_kind")} == {"kind": "kind", "item_kind": "kind"}
    dataset = load_dataset(config, tmp_path)
    assert (dataset.context_columns, dataset.item_columns) == (("kind",), ("kind",))


def test_an_empty_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id,rating\n")
    with pytest.raises(RecallError, match="there are no interactions"):
        draft(tmp_path)
