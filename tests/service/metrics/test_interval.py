"""The interval against published values and random shares."""

import numpy as np
import pytest

from service.metrics import wilson


def test_known_values() -> None:
    # Agresti and Coull 1998; R: binom::binom.confint(x, n, methods = "wilson")
    for mean, count, expected in (
        (0.5, 10, (0.2366, 0.7634)),
        (0.0, 10, (0.0, 0.2775)),
        (1.0, 10, (0.7225, 1.0)),
        (0.9, 100, (0.8256, 0.9448)),
    ):
        assert wilson(mean, count) == pytest.approx(expected, abs=1e-4)


def test_it_holds_for_shares_of_lists() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.beta(18, 2, (2000, 50))
    held = [low <= 0.9 <= high for low, high in (wilson(float(mean), 50) for mean in drawn.mean(axis=1))]
    assert np.mean(held) >= 0.95
