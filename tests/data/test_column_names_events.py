import polars as pl
import pytest

from recall.data.column_names import event_rule, known_events


def test_proposed_weights_rank_purchase_cart_view() -> None:
    rule = event_rule(pl.Series(["purchase", "view", "add_to_cart", "Wishlist"]))
    assert rule.weights == {"view": 1.0, "Wishlist": 2.0, "add_to_cart": 3.0, "purchase": 5.0}
    assert (rule.left_out, rule.not_taken, rule.unknown) == ((), (), ())


@pytest.mark.parametrize("name", ["remove_from_cart", "removeFromCart", "unlike", "refund", "order cancelled"])
def test_events_that_undo_others_are_dropped(name: str) -> None:
    assert event_rule(pl.Series(["view", name])).left_out == (name,)


@pytest.mark.parametrize("name", ["impression", "SHOWN", "skip", "dislike"])
def test_rejections_and_impressions_are_negatives(name: str) -> None:
    assert event_rule(pl.Series(["click", name])).not_taken == (name,)


def test_what_was_cooked_counts_as_much_as_what_was_saved() -> None:
    assert event_rule(pl.Series(["save", "view", "cook"])).weights == {"view": 1.0, "cook": 2.0, "save": 2.0}


def test_unrecognised_events_have_weight_1_and_are_named() -> None:
    rule = event_rule(pl.Series(["zap", "view"]))
    assert rule.weights == {"view": 1.0, "zap": 1.0}
    assert rule.unknown == ("zap",)
    assert known_events(["zap", "view"]) == ["view"]


def test_at_least_one_event_is_positive() -> None:
    assert event_rule(pl.Series(["impression", "skip"])).weights == {"impression": 1.0, "skip": 1.0}
