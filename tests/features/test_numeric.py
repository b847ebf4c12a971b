import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recall.config.schema import NumericField
from recall.errors import DataError, RequestError
from recall.features.numeric import BucketEncoder, ScaledEncoder
from tests.features.rows import agree, as_sets

COLUMN = st.lists(st.none() | st.integers(-(10**9), 10**9).map(lambda number: number / 1000), max_size=12)


def numeric(scale: str, **settings: Any) -> NumericField:
    return NumericField(side="user", kind="numeric", scale=scale, **settings)


def frame(values: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame({"x": values}, {"x": pl.Float64()})


def fit(field: NumericField, values: list[float | None]) -> ScaledEncoder | BucketEncoder:
    kind = BucketEncoder if field.scale == "buckets" else ScaledEncoder
    return kind.fit(field, "x", frame(values), np.ones(len(values), dtype=np.int64))


@pytest.mark.parametrize("scale", ["standard", "log", "buckets"])
@given(learnt=COLUMN, asked=COLUMN)
def test_a_request_is_encoded_like_a_column(scale: str, learnt: list[float | None], asked: list[float | None]) -> None:
    agree(fit(numeric(scale), learnt), frame(asked))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_the_standard_scale_has_mean_0_and_deviation_1(values: list[float]) -> None:
    assume(np.std(values) > 1e-3 * max(1.0, abs(np.mean(values))))
    encoder = fit(numeric("standard"), list(values))
    weights = encoder.encode(frame(list(values))).weights
    assert weights.mean() == pytest.approx(0, abs=1e-4)
    assert weights.std() == pytest.approx(1, abs=1e-4)


def test_the_log_scale_is_symmetric_and_standardised() -> None:
    encoder = fit(numeric("log"), [-math.expm1(2), 0.0, math.expm1(2)])
    deviation = math.sqrt(8 / 3)
    np.testing.assert_allclose(encoder.encode(frame([math.expm1(2), -math.expm1(2)])).weights, [2 / deviation, -2 / deviation])


def test_a_constant_number_has_weight_0() -> None:
    encoder = fit(numeric("standard"), [0.1] * 3)
    assert as_sets(encoder.encode(frame([0.1, 7.0, None]))) == [{2: 0.0}, {2: 0.0}, {1: 1.0}]
    agree(encoder, frame([0.1, 7.0, None]))
    nothing = fit(numeric("standard"), [None])
    assert as_sets(nothing.encode(frame([3.0, None]))) == [{2: 0.0}, {1: 1.0}]


def test_rows_with_weight_0_do_not_affect_the_scale() -> None:
    encoder = ScaledEncoder.fit(numeric("standard"), "x", frame([0.0, 2.0, 1e9]), np.array([1, 1, 0]))
    assert (encoder.mean, encoder.deviation) == (1.0, 1.0)
    buckets = BucketEncoder.fit(numeric("buckets", buckets=2), "x", frame([0.0, 2.0, 1e9]), np.array([1, 1, 0]))
    assert buckets.edges.tolist() == [2.0]


def test_nan_in_a_table_is_missing_and_infinity_is_refused() -> None:
    encoder = fit(numeric("standard"), [0.0, 2.0])
    assert as_sets(encoder.encode(frame([math.nan]))) == [{1: 1.0}]
    for scale in ("standard", "buckets"):
        with pytest.raises(DataError, match="column 'x': 1 value is infinite"):
            fit(numeric(scale), [0.0, math.inf])


def test_numbers_may_be_integers_booleans_or_text() -> None:
    encoder = fit(numeric("standard"), [0.0, 2.0])
    for values in ([0, 2], ["0", " 2"]):
        assert encoder.encode(pl.DataFrame({"x": values})).weights.tolist() == [-1.0, 1.0]
    assert encoder.encode(pl.DataFrame({"x": [False]})).weights.tolist() == [-1.0]
    for value in (2, True + 1, np.float32(2), np.int64(2)):
        assert encoder.encode_one({"x": value}) == [(2, 1.0)]


@pytest.mark.parametrize("scale", ["standard", "log", "buckets"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "2", [2.0], 10**400])
def test_a_non_finite_request_value_names_its_column(scale: str, value: object) -> None:
    with pytest.raises(RequestError, match="is not a finite number") as caught:
        fit(numeric(scale), [0.0, 2.0]).encode_one({"x": value})
    assert caught.value.where == "/features/x"


def test_a_number_beyond_float32_is_refused() -> None:
    encoder = fit(numeric("standard"), [0.0, 2.0])
    with pytest.raises(RequestError, match="too large beside the numbers trained on"):
        encoder.encode_one({"x": 1e300})
    with pytest.raises(DataError, match="too large beside those trained on"):
        encoder.encode(frame([1e300]))
    with pytest.raises(DataError, match="too large to be scaled"):
        fit(numeric("standard"), [1e300, -1e300])
    assert np.isfinite(fit(numeric("log"), [1e300, -1e300]).encode(frame([1e308])).weights).all()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(2, 8))
def test_buckets_contain_the_values_between_their_edges(values: list[float], buckets: int) -> None:
    encoder = fit(numeric("buckets", buckets=buckets), list(values))
    assert isinstance(encoder, BucketEncoder)
    edges = [-math.inf, *encoder.edges.tolist(), math.inf]
    assert len(edges) <= buckets + 1
    assert encoder.size == 2 + len(edges) - 1
    for value, row in zip(values, as_sets(encoder.encode(frame(list(values)))), strict=True):
        (feature,) = row
        assert edges[feature - 2] <= value < edges[feature - 1]


def test_buckets_are_quantiles_and_none_is_empty() -> None:
    encoder = fit(numeric("buckets", buckets=4), [float(value) for value in range(8)])
    assert encoder.encode(frame([float(value) for value in range(8)])).indices.tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    skewed = fit(numeric("buckets", buckets=4), [0.0] * 7 + [5.0])
    assert skewed.encode(frame([0.0, 5.0, -1.0, 6.0])).indices.tolist() == [2, 2, 2, 2]
    assert fit(numeric("buckets"), [None]).size == 3
