"""Upserted items are encoded bit-identically to published ones."""

import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.bundle.reader import Bundle, load_bundle
from recall.config.schema import BagField, NumericField, Schema
from recall.errors import RequestError
from recall.store.items import delta
from recall.store.items.coercion import CatalogColumns
from recall.store.items.delta import ItemReader
from recall.store.items.log_position import LogRow, to_json

TYPES: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "text": pl.String(),
    "cut": pl.String(),
    "whole": pl.Int8(),
    "number": pl.Float64(),
    "narrow": pl.Float32(),
    "truth": pl.Boolean(),
    "day": pl.Date(),
    "moment": pl.Datetime("us"),
    "coarse": pl.Datetime("ms"),
    "zoned": pl.Datetime("us", "Europe/Paris"),
    "clock": pl.Time(),
    "bag": pl.List(pl.Int64()),
}
SCHEMA = Schema(
    fields={
        "user": NumericField(side="user", kind="numeric"),
        "number": NumericField(side="item", kind="numeric"),
        "cut": BagField(side="item", kind="bag"),
        "bag": BagField(side="item", kind="bag", separator=","),
    }
)
NOON = datetime.datetime(2026, 1, 31, 12)
ZONED = NOON.replace(tzinfo=ZoneInfo("Europe/Paris"))


@pytest.fixture(scope="session")
def bundle(published: Path) -> Bundle:
    return load_bundle(published)


@pytest.fixture
def columns() -> CatalogColumns:
    return CatalogColumns(TYPES, SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None, None],
        [[], None, [None], [""]],
        [["true", "1", "null"], ['a "quoted" \\ text', "\n\x00\u2028", "\U0001f600"], [None, "b"]],
    ],
)
def test_lists_of_text_are_read_as_they_are(values: list[list[str | None] | None]) -> None:
    columns = CatalogColumns({"tags": pl.List(pl.String())}, SCHEMA)
    frame = columns.frame([], [{} if one is None else {"tags": one} for one in values])
    assert frame["tags"].dtype == pl.List(pl.String)
    assert frame["tags"].to_list() == values


@pytest.mark.parametrize(
    ("column", "value", "read"),
    [
        ("text", "a", "a"),
        ("text", 12.0, "12"),
        ("text", True, "true"),
        ("cut", "a|b", "a|b"),
        ("cut", ["a", None, 3], "a||3"),
        ("whole", -128, -128),
        ("whole", 7.0, 7),
        ("whole", " 7 ", 7),
        ("number", 7, 7.0),
        ("number", "1e3", 1000.0),
        ("number", True, 1.0),
        ("narrow", 0.1, 0.1),
        ("narrow", 0.123456789, 0.12345679),
        ("truth", "True", True),
        ("truth", False, False),
        ("day", "2026-01-31", datetime.date(2026, 1, 31)),
        ("moment", "2026-01-31T12:00", NOON),
        ("moment", NOON, NOON),
        ("moment", "2026-01-31 13:00:00+01:00", NOON),
        ("zoned", "2026-01-31T11:00", ZONED),
        ("day", "2026-01-31T00:00:00Z", datetime.date(2026, 1, 31)),
        ("whole", "7.0", 7),
        ("coarse", "2026-01-31T12:00:00.123456", NOON.replace(microsecond=123000)),
        ("zoned", "2026-01-31T11:00:00Z", ZONED),
        ("clock", "18:30", datetime.time(18, 30)),
        ("bag", [1, None, "3"], [1, None, 3]),
        ("bag", "1,2", [1, 2]),
        ("bag", [], []),
    ],
)
def test_values_are_parsed_by_column_type(columns: CatalogColumns, column: str, value: object, read: object) -> None:
    values = columns.read("a", {column: value, "text": None} if column != "text" else {column: value}, "")
    assert values == {column: read}
    again = columns.read("a", orjson.loads(orjson.dumps(values)), "")  # as read from the log
    assert again == values
    frame = columns.frame(["a", "b"], [values, {}])
    assert dict(frame.schema) == TYPES
    assert frame["item_id"].to_list() == ["a", "b"]
    assert frame[column].to_list() == [pytest.approx(read, rel=1e-7) if column == "narrow" else read, None]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("text", ["a"], "not a scalar"),
        ("text", float("nan"), "finite"),
        ("cut", ["a|b"], "inside a part"),
        ("whole", 128, "not an integer from -128 to 127"),
        ("whole", 1.5, "integer"),
        ("whole", True, "integer"),
        ("whole", "x", "integer"),
        ("number", "x", "finite"),
        ("number", 10**400, "finite"),
        ("narrow", 1e300, "finite"),
        ("truth", 1, "neither true nor false"),
        ("truth", "yes", "neither true nor false"),
        ("day", "2026-02-31", "not a date"),
        ("day", NOON, "not a date"),
        ("moment", "noon", "not a time"),
        ("zoned", 5, "not a time"),
        ("number", "1_000", "finite"),
        ("number", "١", "finite"),
        ("whole", "1_0", "integer"),
        ("whole", "١", "integer"),
        ("clock", "25:00", "time of day"),
        ("bag", "x", "integer"),
        ("bag", 3, "not a list"),
        ("bag", [[1]], "integer"),
        ("bgg", 3, "no column 'bgg'. Did you mean 'bag'"),
        ("item_id", "a", "no column 'item_id'"),
    ],
)
def test_values_of_the_wrong_type_are_refused(columns: CatalogColumns, column: str, value: object, message: str) -> None:
    with pytest.raises(RequestError, match=rf"item 'a'.*{message}") as raised:
        columns.read("a", {column: value}, "/items/0/features")
    assert raised.value.where == f"/items/0/features/{column}"


ITEM = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["c0", "c1", "c2", "never met", ""]),
        "price": st.floats(-1e6, 1e6),
        "tags": st.lists(st.sampled_from(["t0", "t1", "t2", "x", ""]), max_size=6),
    },
)


def test_items_have_the_same_vectors_singly_and_in_batches(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, encoder = ItemReader(bundle), bundle.encoder

    @given(st.lists(ITEM, min_size=1, max_size=5), st.data())
    def same(drawn: list[dict[str, object]], data: st.DataObject) -> None:
        for one in drawn:
            if "tags" in one:
                count = len(one["tags"])  # type: ignore[arg-type]
                one["tag_weights"] = data.draw(st.lists(st.floats(-10, 10, width=32), min_size=count, max_size=count))
        read = reader.read({f"i{at}": one for at, one in enumerate(drawn)})
        together = bundle.tables.item_vectors(encoder.encode_items(reader.columns.frame(list(read), list(read.values()))))
        if len(read) > 1:
            np.testing.assert_allclose(reader.encode(read).vectors, together, rtol=1e-6, atol=1e-6)
        singly = np.concatenate([reader.encode({one: values}).vectors for one, values in read.items()])
        np.testing.assert_array_equal(singly, reader.encode(read).vectors)

    same()


def test_catalogue_items_encode_to_their_published_vectors(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ItemReader(bundle)
    rows = {row.pop("item_id"): row for row in bundle.items().rows(named=True)}
    read = reader.read(rows)
    for few in (64, 0):
        monkeypatch.setattr(delta, "_ENCODE_SINGLY_UP_TO", few)
        found = reader.encode(read)
        np.testing.assert_array_equal(found.vectors, bundle.item_vectors)
        assert found.items.equals(bundle.items())
        assert found.ids == tuple(rows)


def test_times_to_the_nanosecond_keep_all_digits() -> None:
    types = {"item_id": pl.String(), "at": pl.Datetime("ns"), "zoned": pl.Datetime("ns", "Europe/Paris")}
    columns = CatalogColumns(types, SCHEMA)
    values = columns.read("a", {"at": "2026-01-31 13:00:00.123456789+01:00", "zoned": NOON}, "")
    assert values == {"at": "2026-01-31T12:00:00.123456789", "zoned": "2026-01-31T12:00:00"}
    assert columns.read("a", orjson.loads(orjson.dumps(values)), "") == values
    frame = columns.frame(["a", "b"], [values, {}])
    assert dict(frame.schema) == types
    assert frame["at"].to_physical().to_list() == [1_769_860_800_123_456_789, None]
    assert frame["zoned"].to_list() == [ZONED + datetime.timedelta(hours=1), None]
    for wrong in ("noon", "9999-01-01", 5):
        with pytest.raises(RequestError, match="not a time from 1678 to 2262"):
            columns.read("a", {"at": wrong}, "")


def test_the_batch_that_was_read_is_not_encoded_again(published: Path) -> None:
    reader = ItemReader(load_bundle(published))
    items = reader.read({"a": {"price": 3, "category": "c1"}, "b": {}})
    given_ = reader.encode(items)
    rows = [LogRow(7, "gone", None, 0), *(LogRow(8, one, to_json(values), 0) for one, values in items.items())]
    assert reader.encode_rows(rows) == (given_, {})
    assert reader.encode_rows(rows)[0] is given_
    for other in (rows[:-1], [rows[2], rows[1]], [*rows[:2], LogRow(9, "b", b'{"price":4.0}', 0)]):
        again, refused = reader.encode_rows(other)
        assert again is not None
        assert refused == {}
        assert again is not given_
        assert list(again.ids) == [row.item_id for row in other if row.features is not None]
