"""The number of examples of property tests: few by default, many on request.

    HYPOTHESIS_PROFILE=thorough make test

`.ci/run` runs the slow tests with that profile.
"""

import os

from hypothesis import HealthCheck, settings

_PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
_QUICK_SHARE = 10
"""Ratio of examples between a thorough and a quick run; each test still draws at least ten."""


def examples(count: int) -> int:
    """Return the number of examples of a test, given its number in a thorough run."""
    return count if _PROFILE == "thorough" else max(10, count // _QUICK_SHARE)


def load_profile() -> None:
    """Load the profile named by HYPOTHESIS_PROFILE for all tests."""
    checks = [HealthCheck.too_slow]  # a busy machine
    for name in ("quick", "thorough"):
        settings.register_profile(name, deadline=None, suppress_health_check=checks, max_examples=examples(100))
    settings.load_profile(_PROFILE)
