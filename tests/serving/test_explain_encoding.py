"""Items encoded one by one equal items encoded in bulk, for all column types."""

import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from recall.config.schema import CategoricalField
from recall.features.categorical import CategoricalEncoder
from recall.features.column import FieldSource
from recall.features.values import to_request_values
from recall.serving import explain
from recall.serving.recommender import Recommender, Request
from tests.serving.test_explain import golden

__all__ = ["golden"]
DAY = datetime.date(2026, 1, 31)
MOMENT = datetime.datetime(2026, 1, 31, 18, 30, 0, 123456)
COLUMNS = [
    pl.Series("x", ["a", "", None, "a"]),
    pl.Series("x", [1, -7, None, 1 << 40]),
    pl.Series("x", [0.1, -0.0, None, float("nan")]),
    pl.Series("x", [0.1, 16777217.0, None, 3.0], dtype=pl.Float32),
    pl.Series("x", [True, False, None, True]),
    pl.Series("x", [DAY, None, DAY + datetime.timedelta(days=1), DAY]),
    pl.Series("x", [MOMENT, None, MOMENT.replace(microsecond=0), MOMENT]),
    pl.Series("x", [MOMENT, None], dtype=pl.Datetime("ms")),
    pl.Series("x", [MOMENT.replace(tzinfo=ZoneInfo("UTC")), None]).dt.convert_time_zone("Europe/Berlin"),
    pl.Series("x", [Decimal("1.50"), None, Decimal("0.00")]),
    pl.Series("x", ["a", None, "b"], dtype=pl.Enum(["a", "b"])),
    pl.Series("x", ["a", None, "b"], dtype=pl.Categorical),
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.dtype))
def test_a_value_is_equal_in_a_row_and_in_a_column(column: pl.Series) -> None:
    frame = column.to_frame()
    encoder = CategoricalEncoder.fit(
        CategoricalField(side="item", kind="categorical"), FieldSource("x"), frame, np.ones(len(frame), int)
    )
    together = encoder.encode(frame).indices.tolist()
    alone = [encoder.encode_one(row)[0][0] for row in to_request_values(frame).iter_rows(named=True)]
    assert alone == together
    assert max(together) >= 2  # the vocabulary is not empty


def test_many_items_are_explained_like_few(golden: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Request("ada", context={"hour": 9}, n=100, exclude_seen=False, explain=True)
    few = golden.recommend(asked).contributions
    monkeypatch.setattr(explain, "_FEW", 0)
    many = golden.recommend(asked).contributions
    assert len(few) > 3
    for one, other in zip(few, many, strict=True):
        assert {part[:2]: part.value for part in one} == {part[:2]: pytest.approx(part.value, abs=1e-5) for part in other}
