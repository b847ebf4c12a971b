import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall.config.schema import HistoryField
from recall.features.history import History, HistoryEncoder
from recall.features.vocabulary import MISSING
from tests.features.rows import as_sets

IDS = pl.Series("item_id", list("abcdef"))
COUNTS = np.array([5, 4, 3, 2, 1, 0])  # f has no interactions, so it is unknown
RANGE = st.tuples(st.integers(1, 6), st.integers(0, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def fit(field: HistoryField) -> HistoryEncoder:
    return HistoryEncoder.fit(field, IDS, COUNTS)


def history(rows: list[list[int]]) -> History:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return History(indptr, np.array([item for row in rows for item in row], dtype=np.int32))


@given(
    st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=6),
    st.lists(RANGE, min_size=1, max_size=4),
    st.sampled_from(["none", "mean", "sqrt"]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
    st.booleans(),
)
def test_a_request_is_encoded_like_in_bulk(
    rows: list[list[int]],
    lags: list[tuple[int, int]],
    norm: str,
    min_count: int,
    shared: bool,
    decay: float,
    weighted: bool,
    learnt: bool,
) -> None:
    field = HistoryField.model_validate(
        {
            "kind": "history",
            "lags": lags,
            "norm": norm,
            "min_count": min_count,
            "shared": shared,
            "decay": decay,
            "weights": [0.3 + number for number in range(len(lags))] if weighted else (),
            "learn_weights": learnt and shared and len(lags) > 1,
        }
    )
    encoder = fit(field)
    bulk = encoder.encode(history(rows), encoder.vocabulary.rows(IDS))
    assert bulk.indptr.dtype == np.int64
    assert bulk.indices.dtype == np.int32
    assert bulk.weights.dtype == np.float32
    assert bulk.n_features == encoder.size
    for row, found in zip(rows, as_sets(bulk), strict=True):
        single = encoder.encode_one([IDS[item] for item in row])
        assert {feature: float(np.float32(weight)) for feature, weight in single} == found


def test_each_range_has_separate_rows() -> None:
    encoder = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 1), (2, 3)], "norm": "none"}))
    size = encoder.vocabulary.size
    assert size == 7
    assert encoder.blocks("past") == [("past[1]", size), ("past[2-3]", size)]
    assert dict(encoder.encode_one(["a", "b", "b", "c"])) == {2: 1.0, size + 3: 2.0}
    assert dict(encoder.encode_one(["f", "?", "a"])) == {0: 1.0, size: 1.0, size + 2: 1.0}
    assert dict(encoder.encode_one(["a", "b", "b", "c"], 100)) == {102: 1.0, 100 + size + 3: 2.0}
    assert encoder.encode_one([]) == [(MISSING, 1.0)]
    assert encoder.encode_one([], 100) == [(100 + MISSING, 1.0)]


@pytest.mark.parametrize(("norm", "weight"), [("none", 1.0), ("mean", 0.25), ("sqrt", 0.5)])
def test_weights_are_divided_by_the_number_of_items_in_the_range(norm: str, weight: float) -> None:
    encoder = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 9)], "norm": norm}))
    assert dict(encoder.encode_one(["a", "b", "c", "a"])) == {2: 2 * weight, 3: weight, 4: weight}


@pytest.mark.parametrize(("norm", "divisor"), [("none", 1.0), ("mean", 11 / 6), ("sqrt", (1 + 1 / 4 + 1 / 9) ** 0.5)])
def test_items_of_a_range_weigh_less_the_longer_ago_they_are(norm: str, divisor: float) -> None:
    encoder = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 9)], "norm": norm, "decay": 1}))
    assert dict(encoder.encode_one(["a", "b", "a"])) == pytest.approx({2: (1 + 1 / 3) / divisor, 3: 0.5 / divisor})
    wide = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 1), (2, 3)], "norm": "none", "decay": 0.5}))
    assert dict(wide.encode_one(["a", "b", "c"])) == pytest.approx({2: 1.0, 7 + 3: 2**-0.5, 7 + 4: 3**-0.5})


def test_ranges_can_share_rows_and_have_weights() -> None:
    encoder = fit(
        HistoryField.model_validate(
            {"kind": "history", "lags": [(1, 1), (2, 3), (1, 9)], "norm": "mean", "shared": True, "weights": [4, 1, 0.5]}
        )
    )
    assert encoder.size == encoder.vocabulary.size == 7
    assert encoder.blocks("past") == [("past", 7)]
    assert dict(encoder.encode_one(["a", "b", "c", "a"])) == pytest.approx({2: 4 + 2 / 8, 3: 0.5 + 1 / 8, 4: 0.5 + 1 / 8})
    assert dict(encoder.encode_one(["a"], 100)) == {102: 4.5}
    assert encoder.encode_one([], 100) == [(100 + MISSING, 1.0)]
    apart = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 1), (2, 3)], "norm": "none", "weights": [4, 1]}))
    assert dict(apart.encode_one(["a", "b"])) == {2: 4.0, 7 + 3: 1.0}


def test_ranges_are_apart_until_their_weights_are_learnt() -> None:
    lags = [(1, 1), (2, 3), (4, 4)]
    values = {"kind": "history", "lags": lags, "norm": "none", "shared": True, "weights": [2, 1, 1], "learn_weights": True}
    encoder = fit(HistoryField.model_validate(values))
    assert encoder.blocks("past") == [("past", 3 * 7)]
    assert dict(encoder.encode_one(["a", "b", "b", "a"])) == {2: 2.0, 7 + 3: 2.0, 14 + 2: 1.0}
    field = encoder.field.with_learnt_weights([0.5, -0.25])
    assert field == HistoryField.model_validate({**values, "weights": [2, 0.5, -0.25], "learn_weights": False})
    assert dict(fit(field).encode_one(["a", "b", "b", "a"])) == {2: 2 - 0.25, 3: 1.0}


def test_rare_items_are_unknown() -> None:
    encoder = fit(HistoryField(kind="history", min_count=4))
    assert encoder.vocabulary.values.to_list() == ["a", "b"]


def test_an_empty_history_is_the_missing_row_of_the_first_range() -> None:
    encoder = fit(HistoryField.model_validate({"kind": "history", "lags": [(1, 1), (2, 3)]}))
    assert len(encoder.encode(history([]), encoder.vocabulary.rows(IDS))) == 0
    assert as_sets(encoder.encode(history([[], []]), encoder.vocabulary.rows(IDS))) == [{MISSING: 1.0}] * 2
    among = encoder.encode(history([[], [0], []]), encoder.vocabulary.rows(IDS))
    assert as_sets(among) == [{MISSING: 1.0}, {2: 1.0}, {MISSING: 1.0}]


def test_encoders_of_older_bundles_encode_an_empty_history_without_features() -> None:
    learnt = fit(HistoryField(kind="history"))
    encoder = HistoryEncoder(learnt.field, learnt.vocabulary, tells_empty=False)
    assert encoder.encode_one([]) == []
    assert as_sets(encoder.encode(history([[], [0]]), encoder.vocabulary.rows(IDS))) == [{}, {2: 1.0}]
    assert not encoder.with_values_of(learnt).tells_empty
