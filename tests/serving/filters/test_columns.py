"""Bitmaps compared with the reference implementation, for columns of every type."""

import datetime
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.config.schema import Schema
from recall.errors import RequestError
from recall.serving.filters.parse import parse
from tests.hypotheses import examples
from tests.serving.filters.reference import UTC, columns_of, selected

NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = datetime.date(2026, 3, 1)
ROWS = 400


def catalogue(size: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """A column of every type, with missing values in each."""
    rng = np.random.default_rng(seed)

    def some(values: list, missing: float = 0.15) -> list:
        return [None if rng.random() < missing else values[rng.integers(len(values))] for _ in range(size)]

    days = [DAY + datetime.timedelta(days=int(shift)) for shift in range(-3, 4)]
    times = [datetime.datetime(2026, 3, 1) + datetime.timedelta(hours=6 * shift) for shift in range(-4, 5)]
    tags = ["red", "blue", "été", "5", ""]
    return pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(size)],
            "category": some(["shoes", "hats", "5", "", "été"]),
            "code": some(["1", "2", "10", "-3.5"]),
            "price": some([0.0, -0.0, 1.5, 2.0, 2.5, 9.99, 1e300]),
            "single": pl.Series(some([0.1, 9.99, 3.0]), dtype=pl.Float32),
            "stock": some([-(2**53) - 1, -1, 0, 3, 5, 2**53, 2**53 + 1]),
            "large": pl.Series(some([0, 5, 2**64 - 1]), dtype=pl.UInt64),
            "small": pl.Series(some(list(range(-100, 100))), dtype=pl.Int8),
            "new": some([True, False]),
            "day": some(days),
            "since": pl.Series(some(times), dtype=pl.Datetime("ms")),
            "until": pl.Series(some(times), dtype=pl.Datetime("ns", "Europe/Paris")),
            "written": some([time.isoformat() for time in times]),
            "opens": some([datetime.time(8), datetime.time(9, 30), datetime.time(23, 59, 59, 999_999)]),
            "kind": pl.Series(some(["a", "b"]), dtype=pl.Categorical),
            "nothing": [None] * size,
            "tags": pl.Series(some([["red"], ["red", "blue", "red"], [], ["été", None], ["5"]]), dtype=pl.List(pl.String)),
            "sizes": pl.Series(some([[1, 2], [2.5], [], [None], [3, 1]]), dtype=pl.List(pl.Float64)),
            "any": some(tags),
        }
    )


FRAME = catalogue()
ATTRIBUTES = columns_of(FRAME)
PLAIN = FRAME.with_columns(
    pl.col("tags", "sizes").list.drop_nulls(),
    pl.Series("single", [None if value is None else round(value, 2) for value in FRAME["single"]], dtype=pl.Float64),
)

TEXTS = st.sampled_from(["shoes", "hats", "5", "", "été", "red", "blue", "1", "zz", "a"])
NUMBERS = st.sampled_from(
    [-(2**53) - 2, -1, -0.0, 0, 0.1, 1.5, 2, 3, 5, 9.99, 2**53, 2.0**53, 2**53 + 1, 2**64, -(10**400), 1e308]
)
TIMES = st.sampled_from(
    ["2026-02-28", "2026-03-01T00:00:00", "2026-03-01T06:00:00.000001", "2026-03-01T05:59:59Z", "2026-03-02T08:00+02:00"]
)
CLOCKS = st.sampled_from(["08:00", "08:00:00.5", "09:30", "23:59:59.999999"])
TRUTHS = st.booleans()
OF = {
    **dict.fromkeys(["item_id", "category", "kind", "any", "nothing"], TEXTS),
    **dict.fromkeys(["price", "single", "stock", "large", "small"], NUMBERS),
    **dict.fromkeys(["day", "since", "until"], TIMES),
    "opens": CLOCKS,
    "code": NUMBERS,
}
BAGS = {"tags": st.one_of(TEXTS, st.just(5)), "sizes": NUMBERS}
PRESENCE = st.one_of(*(st.fixed_dictionaries({key: TRUTHS}) for key in ("missing", "exists")))


def of_column(column: str) -> st.SearchStrategy:
    if column in BAGS:
        values = st.lists(BAGS[column], max_size=3)
        return st.one_of(PRESENCE, *(st.fixed_dictionaries({key: values}) for key in ("any", "all")))
    if column == "new":
        return st.one_of(PRESENCE, TRUTHS, st.fixed_dictionaries({"in": st.lists(TRUTHS, max_size=2)}))
    if column == "code":  # text that is compared with numbers on request
        return st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), NUMBERS, min_size=1)
    values = OF[column]
    ranges = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), values, min_size=1)
    both = st.builds(lambda bounds, one: {**bounds, "equals": one}, ranges, values)
    one_of = st.fixed_dictionaries({"in": st.lists(values, max_size=4)})
    return st.one_of(values, PRESENCE, ranges, one_of, both)


def entry(column: str) -> st.SearchStrategy:
    return of_column(column).map(lambda given: {"columns": {column: given}} if column == "any" else {column: given})


WINDOWS = st.fixed_dictionaries(
    {"from": st.sampled_from(["since", "day", "written"])},
    optional={"until": st.sampled_from(["until", "day"]), "at": st.one_of(st.just("now"), TIMES)},
).map(lambda window: {"available": window})
CONDITIONS = st.one_of(st.sampled_from([*OF, *BAGS, "new"]).flatmap(entry), WINDOWS)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        *(st.fixed_dictionaries({key: st.lists(inner, max_size=3)}) for key in ("all", "any")),
        st.builds(lambda one, other: {**one, **other}, inner, inner),
    ),
    max_leaves=6,
)


@given(FILTERS)
@settings(max_examples=examples(400))
def test_a_bitmap_equals_a_loop_over_the_items(filter_: dict) -> None:
    found = ATTRIBUTES.select(parse(filter_), NOW)
    np.testing.assert_array_equal(found.mask, selected(filter_, PLAIN, NOW))
    assert found.count == found.mask.sum()


@given(FILTERS, st.integers(0, 5))
@settings(max_examples=examples(100))
def test_further_items_are_parsed_like_the_catalogue(filter_: dict, rows: int) -> None:
    others = PLAIN.sample(rows, seed=3, with_replacement=True)
    found = ATTRIBUTES.over(others).select(parse(filter_), NOW)
    np.testing.assert_array_equal(found.mask, selected(filter_, others, NOW))


@given(st.lists(FILTERS, min_size=2, max_size=6))
@settings(max_examples=examples(50))
def test_cached_bitmaps_are_equal_to_computed_ones(filters: list[dict]) -> None:
    attributes = columns_of(FRAME)
    first = [attributes.select(parse(one), NOW) for one in filters]
    again = [attributes.select(parse(one), NOW) for one in filters]
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_equivalent_filters_share_a_bitmap() -> None:
    same = [{"price": {"gte": 2, "lt": 3}, "new": True}, {"new": True, "price": {"lt": 2.75, "gt": 1.75}}]
    same += [{"all": [one]} for one in same] + [{"any": [same[0], same[1]]}]
    found = [ATTRIBUTES.select(parse(one), NOW) for one in same]
    assert all(one is found[0] for one in found)
    assert 0 < found[0].count < ROWS


def test_an_availability_window_follows_the_clock() -> None:
    """A bitmap of a time window is valid until the next change and not a microsecond longer, cached or not."""
    filter_ = {"available": {"from": "since", "until": "until"}}
    changes = {value for name in ("since", "until") for value in FRAME[name].dt.replace_time_zone(None).drop_nulls()}
    changes |= {value.astimezone(UTC).replace(tzinfo=None) for value in FRAME["until"].drop_nulls()}
    step = datetime.timedelta(microseconds=1)
    moments = [(change + shift).replace(tzinfo=UTC) for change in sorted(changes) for shift in (-step, 0 * step, step)]
    rng = np.random.default_rng(1)
    found = {}
    for at in [*moments, *rng.permutation(np.array(moments, dtype=object)).tolist()]:
        selection = ATTRIBUTES.select(parse(filter_), at)
        np.testing.assert_array_equal(selection.mask, selected(filter_, PLAIN, at))
        assert found.setdefault(at, selection) is selection
        given = {"available": {"from": "since", "until": "until", "at": at.isoformat()}}
        assert ATTRIBUTES.select(parse(given), NOW) is selection
    assert len({one.mask.tobytes() for one in found.values()}) > 5


def test_the_current_time_is_the_default() -> None:
    soon = datetime.datetime.now(UTC) + datetime.timedelta(hours=1)
    attributes = columns_of(pl.DataFrame({"until": [soon - datetime.timedelta(hours=2), soon, None]}))
    assert attributes.select(parse({"available": {"until": "until"}})).rows.tolist() == [1, 2]


def test_numeric_windows_need_a_number() -> None:
    attributes = columns_of(pl.DataFrame({"from": [1, 5, None], "until": [4.5, None, 3.0]}))
    window = {"from": "from", "until": "until", "at": 3}
    assert attributes.select(parse({"available": window})).rows.tolist() == [0]
    with pytest.raises(RequestError, match="which cannot be compared with the present") as refused:
        attributes.select(parse({"available": {"from": "from"}}))
    assert refused.value.where == "/filter/available/from"


def test_text_bags_are_split_like_their_field() -> None:
    field = {"side": "item", "kind": "bag", "separator": ";", "weights": "w"}
    user = {"side": "user", "kind": "categorical"}
    schema = Schema.model_validate({"fields": {"labels": {**field, "column": "tags"}, "user_id": user}})
    attributes = columns_of(pl.DataFrame({"tags": ["a;b", "b", "", None], "w": ["1;2", "3", "", None]}), schema)
    assert attributes.select(parse({"tags": {"any": ["b"]}})).rows.tolist() == [0, 1]
    assert attributes.select(parse({"tags": {"all": []}})).rows.tolist() == [0, 1, 2]
    assert attributes.select(parse({"tags": {"all": ["a", "b"]}})).rows.tolist() == [0]
    assert attributes.select(parse({"w": {"any": [3]}})).rows.tolist() == [1]


@pytest.mark.parametrize(
    ("filter_", "where", "message"),
    [
        ({"categry": "shoes"}, "/filter/categry", "no such column. Did you mean 'category'?"),
        ({"not": {"x/y~": 1}}, "/filter/not/x~1y~0", "no such column"),
        ({"all": [{"new": True}, {"priec": 1}]}, "/filter/all/1/priec", "Did you mean 'price'?"),
        ({"price": "cheap"}, "/filter/price", "column 'price' holds numbers, not a text. Write the value as a number"),
        ({"price": {"lte": True}}, "/filter/price/lte", "holds numbers, not true or false"),
        ({"price": {"in": [1, "+2"]}}, "/filter/price/in/1", "holds numbers, not a text"),
        ({"new": 1}, "/filter/new", "holds true and false, not a number"),
        ({"price": {"gte": "1e+999"}}, "/filter/price/gte", "holds numbers, not a text"),
        ({"new": "yes"}, "/filter/new", "holds true and false, not a text"),
        ({"new": {"gt": True}}, "/filter/new/gt", "cannot be compared with gt, gte, lt and lte. Use equals for column 'new'"),
        ({"category": {"gt": 5}}, "/filter/category/gt", "column 'category' cannot be read as numbers"),
        ({"category": {"gt": True}}, "/filter/category/gt", "true and false cannot be compared with gt"),
        ({"day": "yesterday"}, "/filter/day", "holds dates or times, not other text. Write the value as ISO 8601"),
        ({"day": {"gte": 20260301}}, "/filter/day/gte", "holds dates or times, not a number"),
        ({"opens": "2026-03-01"}, "/filter/opens", "holds times of day"),
        ({"tags": "red"}, "/filter/tags", 'holds a list for each item. Write {"any"'),
        ({"tags": {"gt": "red"}}, "/filter/tags", "holds a list for each item"),
        ({"sizes": {"all": [1, "1_0"]}}, "/filter/sizes/all/1", "holds numbers, not a text"),
        ({"category": {"any": ["shoes"]}}, "/filter/category/any", "one value for each item"),
        ({"available": {"from": "sinc"}}, "/filter/available/from", "Did you mean 'since'?"),
        ({"available": {"from": "category"}}, "/filter/available/from", "cannot be read as dates or times"),
        ({"available": {"until": "tags"}}, "/filter/available/until", "holds a list"),
        ({"available": {"until": "until", "at": 5}}, "/filter/available/at", "holds dates or times, not a number"),
        ({"columns": {"any": {"any": ["red"]}}}, "/filter/columns/any/any", "one value for each item"),
        ({"odd": {"missing": True}}, "/filter/odd/missing", "has a type that filters cannot compare"),
    ],
)
def test_conditions_that_do_not_fit_the_catalogue_are_refused(filter_: dict, where: str, message: str) -> None:
    odd = FRAME.with_columns(odd=pl.struct("price", "stock"))
    with pytest.raises(RequestError) as refused:
        columns_of(odd).select(parse(filter_), NOW)
    assert refused.value.where == where
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("filter_", "plain"),
    [
        ({"new": "True"}, {"new": True}),
        ({"new": {"in": ["false", "TRUE"]}}, {"new": {"in": [False, True]}}),
        ({"price": "2.50"}, {"price": 2.5}),
        ({"price": {"lte": "2.0"}}, {"price": {"lte": 2}}),
        ({"stock": "9007199254740993"}, {"stock": 2**53 + 1}),
        ({"sizes": {"any": ["3", "1.0"]}}, {"sizes": {"any": [3, 1]}}),
    ],
)
def test_typed_columns_accept_text_values_like_csv_columns(filter_: dict, plain: dict) -> None:
    written, expected = (ATTRIBUTES.select(parse(one), NOW).mask for one in (filter_, plain))
    assert expected.any()
    np.testing.assert_array_equal(written, expected)


def test_further_items_with_values_of_another_type_are_refused() -> None:
    with pytest.raises(RequestError, match="column 'price' cannot be read as numbers"):
        ATTRIBUTES.over(pl.DataFrame({"price": [[1.0]]})).select(parse({"price": 1}))
    assert ATTRIBUTES.over(pl.DataFrame({"elsewhere": [1]})).select(parse({"price": {"missing": True}})).count == 1


def test_unparsable_text_of_further_items_matches_nothing() -> None:
    column = ["1", "soon", None, "2026-03-05", "2.5", "nan"]
    others = ATTRIBUTES.over(pl.DataFrame({"written": column, "code": column}))
    for filter_, rows in (
        ({"code": {"gte": 0}}, [0, 4]),
        ({"code": {"lt": 2}}, [0]),
        ({"code": {"missing": True}}, [2]),
        ({"not": {"code": {"gte": 0}}}, [1, 2, 3, 5]),
        ({"available": {"from": "written"}}, [2]),
        ({"available": {"until": "written"}}, [2, 3]),
    ):
        assert others.select(parse(filter_), NOW).rows.tolist() == rows


def test_threads_share_the_columns() -> None:
    filters = [{"price": {"gt": bound}} for bound in (0, 1, 2, 5)] + [{"tags": {"any": ["red"]}}, {"category": "hats"}]
    expected = [selected(one, PLAIN, NOW) for one in filters]
    attributes = columns_of(FRAME)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda turn: attributes.select(parse(filters[turn % 6]), NOW), range(300)))
    for turn, selection in enumerate(found):
        np.testing.assert_array_equal(selection.mask, expected[turn % 6])
        assert selection is found[turn % 6]


def test_names_lists_the_columns_for_filters() -> None:
    assert columns_of(FRAME.with_columns(odd=pl.struct("price"))).names == tuple(FRAME.columns)


@pytest.mark.parametrize("distinct", [1, 254, 255, 256, 65_534, 65_535, 65_536])
def test_codes_have_the_smallest_width(distinct: int) -> None:
    """The longest range of codes still fits its storage type."""
    values = np.random.default_rng(2).permutation(np.arange(distinct))
    attributes = columns_of(pl.DataFrame({"value": pl.concat([pl.Series(values), pl.Series([None], dtype=pl.Int64)])}))
    assert attributes.select(parse({"value": {"gte": 0}})).count == distinct
    assert attributes.select(parse({"value": {"missing": True}})).rows.tolist() == [distinct]
    np.testing.assert_array_equal(attributes.select(parse({"value": {"gt": distinct // 3}})).mask[:-1], values > distinct // 3)


def test_an_empty_catalogue_has_no_columns() -> None:
    empty = columns_of(FRAME.clear())
    for filter_ in ({"price": 1}, {"tags": {"any": ["red"]}}, {"not": {"new": True}}, {}):
        assert empty.select(parse(filter_), NOW).count == 0
