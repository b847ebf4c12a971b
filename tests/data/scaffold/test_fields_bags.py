import polars as pl
import pytest

from recall.data.scaffold.fields import draft_bag, guess_field, min_count_key


@pytest.mark.parametrize(
    ("separator", "keys"),
    [
        ("|", 'kind = "bag"'),
        (", ", 'kind = "bag", separator = ","'),
        (";", 'kind = "bag", separator = ";"'),
        (" / ", 'kind = "bag", separator = "/"'),
        ("、", 'kind = "bag", separator = "、"'),
    ],
)
def test_a_bag_is_drafted_with_its_separator(separator: str, keys: str) -> None:
    cells = pl.Series([separator.join(bag) for bag in [("a", "b"), ("b", "c"), ("c",), ("a", "c")] * 5])
    assert draft_bag(cells) == (keys, f'3 values between "{separator.strip()}"')


def test_lists_written_as_text_are_omitted_and_reported() -> None:
    found = draft_bag(pl.Series(["['a', 'b']", "['b']"]))
    assert found is not None
    assert (found[0], found[1].startswith("lists written as text")) == ("", True)


@pytest.mark.parametrize("cells", [["3,5", "4,0", "3,5", "4"], ["0,1234", "17,2", "-5,125", "+8"], ["1.234,5", "999,25", "12"]])
def test_numbers_with_a_decimal_comma_are_omitted_and_reported(cells: list[str]) -> None:
    found = guess_field(pl.Series(cells * 5))
    assert (found.keys, found.reason.startswith("numbers with a decimal comma")) == ("", True)


def test_bags_of_numbers_are_bags() -> None:
    assert draft_bag(pl.Series(["1,2", "2,3,4", "4", "1,4"] * 5)) == ('kind = "bag", separator = ","', '4 values between ","')


def test_text_of_several_lines_is_no_bag() -> None:
    cells = pl.Series([f"the {one},\nthe {other}" for one in "abcd" for other in "abcd"])
    assert draft_bag(cells) is None
    assert draft_bag(cells.str.replace_all("\n", " ")) is not None


def test_parts_that_are_in_one_category_only_are_no_bag() -> None:
    assert draft_bag(pl.Series(["Café", "Bar", "Deli / Bodega", "Gym / Fitness Center"] * 9)) is None
    assert draft_bag(pl.Series([["lone"], *([f"text {n}"] for n in range(40))])) == (
        "",
        "lists that hardly share a member: nothing to learn from",
    )


def test_a_column_that_is_not_a_bag_is_not_drafted_as_one() -> None:
    assert draft_bag(pl.Series(["a", "b", "a"])) is None


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ([str(n) for n in range(1_000)], ""),
        ([str(n) for n in range(1_001)], ", min_count = 2"),
        ([str(n // 2) for n in range(40_000)], ", min_count = 3"),
        ([str(n // 4) for n in range(80_000)], ", min_count = 5"),
        ([str(n // 60) for n in range(720_000)], ", min_count = 50"),
    ],
)
def test_min_count_is_the_smallest_that_limits_the_vocabulary(values: list[str], keys: str) -> None:
    assert min_count_key(pl.Series(values)) == keys


def test_bag_values_are_counted_separately() -> None:
    lists = pl.Series([[str(n), str(n + 1), str(n + 2)] for n in range(1_200)])
    assert draft_bag(lists) == ('kind = "bag", min_count = 2', "lists")
