"""A shop of two tastes: even users take even items, odd users take odd items."""

import numpy as np
import polars as pl
import pytest

from recall import Model, fit

USERS, ITEMS, TAKEN = 40, 24, 8
CONFIG = {"model": {"k": 2}, "train": {"objective": "square", "sweeps": 4}}


def interactions(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    taken = [2 * rng.permutation(ITEMS // 2)[:TAKEN] + user % 2 for user in range(USERS)]
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS, dtype=np.int32), TAKEN),
            "item_id": np.concatenate(taken),
        }
    )


def items() -> pl.DataFrame:
    return pl.DataFrame({"item_id": range(ITEMS), "title": [f"The Film {item}" for item in range(ITEMS)]})


@pytest.fixture(scope="package")
def taken() -> pl.DataFrame:
    """Interactions that models are fitted on."""
    return interactions()


@pytest.fixture(scope="package")
def model(taken: pl.DataFrame) -> Model:
    """Fitted on them, with titles."""
    return fit(taken, items=items(), config=CONFIG, progress=False)
