"""Speech recognition keeps every promise of the contract, with nothing excused."""

from __future__ import annotations

import pytest

from modelwright.testing.suite import *  # noqa: F403

pytestmark = pytest.mark.once


@pytest.fixture
def task() -> str:
    return "speech-recognition"
