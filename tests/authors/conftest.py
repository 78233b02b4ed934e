"""What the tests for authors share with those of the core: the catalog that holds the toy task alone."""

from tests.core.conftest import toys

__all__ = ["toys"]
