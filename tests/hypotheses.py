"""How many examples property tests draw: few while developing, many where it is asked for.

    HYPOTHESIS_PROFILE=thorough make test

`.ci/run` runs the slow tests with that profile.
"""

import os

from hypothesis import HealthCheck, settings

_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
_QUICK_SHARE = 5
"""A quick run draws one of so many of the examples of a thorough one: each test still draws tens of them."""


def examples(count: int) -> int:
    """Return how many examples a test draws whose thorough run draws `count`."""
    return count if _PROFILE == "thorough" else max(10, count // _QUICK_SHARE)


def load_profile() -> None:
    """Make the profile that HYPOTHESIS_PROFILE names the default of all tests."""
    checks = [HealthCheck.too_slow]  # a busy machine
    for name in ("quick", "thorough"):
        settings.register_profile(name, deadline=None, suppress_health_check=checks, max_examples=examples(100))
    settings.load_profile(_PROFILE)
