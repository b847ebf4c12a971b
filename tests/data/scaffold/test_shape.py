import polars as pl

from recall.config import FileFormat
from recall.data.scaffold.detect import Written
from recall.data.scaffold.shape import with_carried, with_columns, with_names, with_rows, with_shape


def form_of(written: Written) -> dict[str, object]:
    assert set(written.reasons) == written.form.model_fields_set
    return {name: getattr(written.form, name) for name in written.reasons}


def test_blanks_that_divide_one_value_into_two_are_removed() -> None:
    assert form_of(with_shape(Written(), pl.DataFrame({"id": ["a", " a", *"bcdefghijklmnopqrstuvwxyz"]}), text=True)) == {
        "strip": True
    }
    assert form_of(with_shape(Written(), pl.DataFrame({"name": ["a "] + ["b"] * 40}), text=True)) == {}


def test_columns_that_only_the_first_line_of_an_order_fills() -> None:
    frame = pl.DataFrame(
        {"order": [1, 1, 2, 2, 2], "user": ["a", None, "b", None, None], "city": ["x", None, None, None, None]}
    )
    assert form_of(with_carried(Written(), frame, "user")) == {"carry": {"user": "order", "city": "order"}}
    assert form_of(with_carried(Written(), frame.with_columns(user=pl.Series(["a", None, "b", "c", None])), "user")) == {}


def test_the_items_of_an_order_are_a_list() -> None:
    frame = pl.DataFrame({"user": ["a"], "tags": [["x"]], "items": [[{"item_id": 1}]]})
    assert form_of(with_rows(Written(), frame)) == {"explode": "items", "unnest": True}
    assert form_of(with_rows(Written(), frame.with_columns(product=pl.lit("p")))) == {}


def test_numbers_that_may_mean_two_things_follow_the_others_of_the_file() -> None:
    frame = pl.DataFrame({"price": ["1,50", "2,75"], "weight": ["1.234", "5.678"], "size": ["1,234", "2,345"]})
    numbers = form_of(with_columns(Written(), frame, set(), interactions=False))["numbers"]
    assert numbers == {"price": ",", "size": ","}


def test_names_of_a_repeated_header_stay() -> None:
    written = Written(FileFormat(header=("user", "price", "price_2")), {"header": "repeated"})
    frame = pl.DataFrame({"user": ["a"], "price": ["1"], "price_2": ["2"]})
    assert with_names({"interactions": frame}, {"interactions": written})["interactions"] == written  # type: ignore[dict-item]
