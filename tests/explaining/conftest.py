"""The catalogues of the tests of shaping, each as published and changed since, with an index of each kind."""

from tests.shaping.conftest import shaped_root, shop

__all__ = ["shaped_root", "shop"]
