from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.data.outcomes import parse_labels
from recall.data.roles import Role, detect_roles, numbers_of

N = 600
RNG = np.random.default_rng(0)
USER, ITEM = RNG.integers(0, 40, N), RNG.integers(0, 30, N)


def role(name: str, values: Any, **more: pl.Series) -> Role:
    frame = pl.DataFrame({"u": USER, "i": ITEM, "ts": 1_600_000_000 + 60 * np.arange(N), name: values})
    return detect_roles(frame, "u", "i", more)[name]


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("rating", RNG.integers(1, 6, N), "rating"),
        ("Stars", RNG.choice([0.5, 1.0, 4.5], N), "rating"),
        ("rating", RNG.choice(["1", "5", "3.5"], N), "rating"),
        ("score", RNG.integers(0, 101, N), "rating"),
        ("rating", np.where(ITEM % 2, 5, 1), "rating"),  # even if it is a function of the item
        ("clicked", RNG.integers(0, 2, N), "label"),
        ("is_purchased", RNG.choice([True, False], N), "label"),
        ("label", RNG.choice(["TRUE", "false"], N), "label"),
        ("y", RNG.integers(0, 2, N), "label"),
        ("x&y", RNG.integers(0, 2, N), "assumed"),  # by its values
        ("skipped", RNG.integers(0, 2, N), "event"),
        ("event", RNG.choice(["zip", "zap"], N), "event"),
        ("what", RNG.choice(["view", "cart", "purchase"], N), "event"),  # by its values alone
        ("action_type", RNG.integers(0, 4, N), "event"),
        ("applied", RNG.choice(["yes", "no"], N), "label"),
        ("user_rating", RNG.integers(1, 6, N), "rating"),
        ("favourite", RNG.integers(0, 2, N), "label"),
        ("source", RNG.choice(["search", "browse", "share"], N), "context"),  # the referrer
        ("shipped_on", [f"2024-01-{1 + n % 28:02}" for n in RNG.integers(0, 28, N)], "moment"),
        ("read_time", RNG.integers(0, 300, N), "assumed"),
        ("qty", RNG.integers(1, 40, N), "amount"),
        ("price_paid", RNG.random(N), "amount"),
        ("price", RNG.integers(5, 90, N) / 8, "consequence"),  # of the chosen item
        ("last_price", RNG.integers(5, 90, N) / 8, "context"),
        ("dwell_ms", RNG.integers(0, 90_000, N), "amount"),
        ("clicks", RNG.integers(0, 9, N), "amount"),
        ("weight", RNG.random(N) + 1, "amount"),
        ("duration", 60 + ITEM, "item"),  # the length of the film, not the time watched
        ("units", USER % 7, "user"),
        ("review", [f"text {n}" for n in range(N)], "consequence"),
        ("title", [f"t{one}" for one in ITEM], "item"),
        ("genres", [[f"g{one % 4}", "x"] for one in ITEM], "item"),
        ("country", [f"c{one % 5}" for one in USER], "user"),
        ("session", [f"{one}/{n // 4}" for n, one in enumerate(USER)], "visit"),
        ("order_no", np.arange(N), "visit"),
        ("hour", RNG.integers(0, 24, N), "context"),
        ("weekday", RNG.choice(["mo", "tu", "we"], N), "context"),
        ("weekend", RNG.integers(0, 2, N), "context"),
        ("type", RNG.choice(["organic", "paid_ad"], N), "context"),
        ("device", RNG.choice(["phone", "web"], N), "context"),
        ("city", RNG.choice([f"c{n}" for n in range(30)], N), "context"),
        ("temperature", RNG.normal(20, 5, N), "context"),
        ("last_rating", RNG.integers(1, 6, N), "context"),
        ("constant", ["x"] * N, "context"),
        ("bewertung", RNG.integers(1, 6, N), "rating"),
        ("Bewertung_1_bis_5", RNG.integers(1, 6, N), "rating"),
        ("calificación", RNG.integers(1, 11, N), "rating"),
        ("note", RNG.integers(0, 21, N), "rating"),
        ("оценка", RNG.integers(1, 6, N), "rating"),
        ("gekauft", RNG.integers(0, 2, N), "label"),
        ("acheté", RNG.choice([True, False], N), "label"),
        ("quantité", RNG.integers(1, 40, N), "amount"),
        ("abc", RNG.integers(1, 6, N), "assumed"),
        ("abc", RNG.integers(0, 11, N) / 2, "assumed"),
        ("abc", RNG.choice(["1", "2", "3", "4", "5"], N), "assumed"),
        ("abc", RNG.integers(0, 2, N), "assumed"),
        ("abc", RNG.choice([True, False], N), "assumed"),
        ("abc", RNG.choice(["Ja", "Nein"], N), "assumed"),
        ("abc", RNG.choice(["yes", "no"], N), "assumed"),
        ("weekend", RNG.choice(["yes", "no"], N), "context"),
        ("gekauft", RNG.choice(["ja", "nein"], N), "label"),
        ("abc", RNG.choice(["yes", "maybe"], N), "context"),
        ("abc", RNG.integers(0, 24, N), "assumed"),
        ("abc", RNG.integers(0, 1000, N), "assumed"),
        ("abc", (1_600_000_000 + 60 * np.arange(N)) // 3600 % 2, "context"),  # a function of the hour
        ("slot", RNG.integers(1, 6, N), "context"),
        ("is_mobile", RNG.integers(0, 2, N), "context"),
        ("nothing", pl.Series([None] * N, dtype=pl.String), "context"),
        ("actions", RNG.integers(1, 6, N), "amount"),  # how many, not which
        ("Event count", RNG.integers(1, 6, N), "amount"),
        ("event_id", [f"e{n}" for n in range(N)], "visit"),
        ("Item revenue", RNG.integers(0, 90, N) / 4, "amount"),
        ("item age", RNG.integers(0, 90, N) / 4, "context"),
        ("title", RNG.choice(["Great", "Five stars", "Broken"], N), "consequence"),  # of a review
        ("week_no", np.arange(N) // 20, "moment"),  # it rises with the time
        ("receipt", [f"C{n}" if n % 20 == 7 else str(48_000 + n // 4) for n in range(N)], "moment"),
        ("Stato", RNG.choice(["in corso", "evasa", "sospesa"], N), "consequence"),
        ("Stato", RNG.choice(["Presente", "Assente", "Disdetta"], N), "event"),
        ("state", RNG.choice(["CA", "NY", "TX"], N), "context"),  # a place
        ("split", RNG.choice(["train", "test"], N), "split"),
        ("split", RNG.choice(["left", "right"], N), "context"),
    ],
)
def test_roles_are_inferred_from_values_then_from_names(name: str, values: Any, kind: str) -> None:
    found = role(name, values)
    assert found.kind == kind, found


def test_rare_events_outside_the_sample_are_found() -> None:
    found = role("event", RNG.choice(["view", "cart"], N), event=pl.Series("event", ["view", "cart", "refund"]))
    assert found.events is not None
    assert found.events.left_out == ("refund",)


@pytest.mark.parametrize(
    ("name", "ratings", "kind"),
    [
        ("verified_purchase", RNG.integers(1, 6, N), "assumed"),  # what was not bought here was rated nevertheless
        ("verified_purchase", RNG.integers(0, 101, N), "label"),  # a score that a model gave
        ("verified_purchase", 1 + ITEM % 5, "label"),  # the stars of a hotel, say
        ("purchased", RNG.integers(1, 6, N), "label"),
    ],
)
def test_what_was_rated_was_taken(name: str, ratings: Any, kind: str) -> None:
    frame = pl.DataFrame({"u": USER, "i": ITEM, name: RNG.choice([True, False], N), "rating": ratings})
    assert detect_roles(frame, "u", "i", {})[name].kind == kind


def test_no_in_any_language_is_a_label_of_0() -> None:
    for yes, no in (("ja", "nein"), ("oui", "non"), ("sí", "no"), ("да", "нет"), ("Y", "N"), ("T", "N")):
        values = RNG.choice([yes, no], N)
        assert role("gekauft", values).reason.startswith(f"{yes.lower()} and {no.lower()}")
        assert parse_labels(pl.Series(values), "gekauft").tolist() == (values == yes).tolist()


def test_multiples_of_a_price_of_the_item_are_amounts() -> None:
    price = 10.0 + ITEM.astype(float) ** 3
    assert role("valor", price * RNG.integers(1, 5, N)).kind == "amount"
    assert role("valor", price).kind == "item"


@pytest.mark.parametrize(("values", "kind"), [([0, 2.5, 5], "assumed"), ([0, 1, 2], "assumed"), ([1, 2, 3], "context")])
def test_few_numbers_are_amounts_where_they_count_from_0_or_have_fractions(values: list[float], kind: str) -> None:
    assert role("gebuhr", RNG.choice(values, N)).kind == kind


def test_yes_in_a_rejection_column_is_negative() -> None:
    for name, yes, no in (
        ("returned", "Yes", "No"),
        ("skipped", "y", "n"),
        ("storniert", "ja", "nein"),
        ("annulé", "oui", "non"),
        ("Rückgabe", "ja", "nein"),
    ):
        found = role(name, RNG.choice([yes, no], N))
        assert found.events is not None
        assert (found.events.weights, found.events.not_taken) == ({no: 1.0}, (yes,))


def test_of_two_time_columns_the_one_named_so_is_used() -> None:
    base = 1_600_000_000 + RNG.permutation(N) * 60
    found = detect_roles(pl.DataFrame({"u": USER, "i": ITEM, "loaded": base + 5, "timestamp": base}), "u", "i", {})
    assert (found["timestamp"].kind, found["loaded"].kind) == ("time", "moment")


def test_only_numeric_notation_is_a_number() -> None:
    assert numbers_of(pl.Series(["1", " 2.5", None])).to_list() == [1.0, 2.5, None]  # type: ignore[union-attr]
    for strange in (["1", "x"], ["01", "02"], [["a"]]):
        assert numbers_of(pl.Series(strange)) is None


def test_numbers_of_orders_are_known_by_name_though_users_share_them() -> None:
    frame = pl.DataFrame(
        {"u": [n % 7 for n in range(99)], "i": [n % 11 for n in range(99)], "Beleg-Nr.": [n // 3 for n in range(99)]}
    )
    assert detect_roles(frame, "u", "i", {})["Beleg-Nr."].kind == "visit"
    assert detect_roles(frame.rename({"Beleg-Nr.": "depth"}), "u", "i", {})["depth"].kind == "context"


@pytest.mark.parametrize(
    ("name", "values", "weights", "not_taken", "missing"),
    [
        ("clicked", [1, 0, None], {"1": 1.0}, ("0",), "left out"),
        ("clicked", [1.0, 0.0, float("nan")], {"1": 1.0}, ("0",), "left out"),
        ("purchased", [1, None], {"1": 1.0}, (), "not taken"),
        ("purchased", ["x", None], {"x": 1.0}, (), "not taken"),
        ("returned", [0, 1, None], {"0": 1.0}, ("1",), "taken"),
        ("returned", [None, 1], {}, ("1",), "taken"),
        ("event", ["view", "buy", None], {"view": 1.0, "buy": 5.0}, (), "taken"),
    ],
)
def test_rows_without_an_outcome_count_by_what_the_others_say(
    name: str, values: list[Any], weights: dict[str, float], not_taken: tuple[str, ...], missing: str
) -> None:
    rule = role(name, [values[n * n % 7 % len(values)] for n in range(N)]).events
    assert rule is not None
    assert (rule.weights, rule.not_taken, rule.missing) == (weights, not_taken, missing)


def test_a_column_of_nan_alone_is_no_outcome() -> None:
    frame = pl.DataFrame({"u": ["a", "b"], "i": ["x", "y"], "rating": ["nan", "nan"]})
    assert detect_roles(frame, "u", "i", {})["rating"].kind == "context"


def test_short_codes_for_the_kind_of_a_row_are_no_context() -> None:
    assert role("typ", RNG.choice(["S", "K", "Z"], N)).kind == "consequence"
    assert role("type", RNG.choice(["phone", "tablet"], N)).kind == "context"
    assert role("%", RNG.choice(["S", "K", "Z"], N)).kind == "context"  # a name without words


def test_a_title_in_several_forms_is_no_context() -> None:
    forms = np.array(["", " (3D)", " [OV]"])[RNG.integers(0, 3, N)]
    titles = [f"Film {'abcdefghijklmnopqrstuvwxyzABCD'[item]}{form}" for item, form in zip(ITEM, forms, strict=True)]
    assert role("film", titles).kind == "consequence"
    assert role("search_term", titles).kind == "context"  # which a request has


def test_rows_that_were_not_taken_need_no_time() -> None:
    achieved = RNG.choice([0, 1], N)
    frame = pl.DataFrame({"u": USER, "i": ITEM, "achieved": achieved})
    times = pl.Series("unlocktime", 1_600_000_000 + 3_600 * RNG.integers(0, 9_999, N))
    known = frame.with_columns(pl.when(pl.col("achieved") == 1).then(times))
    unknown = frame.with_columns(pl.when(pl.Series(RNG.choice([False, True], N))).then(times))
    readable = []
    for table in (known, unknown):
        time = detect_roles(table, "u", "i", {})["unlocktime"].time
        readable.append(time is not None and time.readable)
    assert readable == [True, False]
