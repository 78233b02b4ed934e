"""Tide forecasting keeps modelwright's contract, and its own promises."""

import numpy as np
import pytest
from modelwright_toy.codec import TideCodec
from modelwright_toy.harbour import record

from modelwright.testing.suite import *  # noqa: F403


@pytest.fixture
def task():
    return "tide-forecasting"


def test_a_record_of_another_length_is_refused():
    with pytest.raises(ValueError, match="record 0 has 3 levels and 12 pressures, not 48 and 12"):
        TideCodec().prepare([{"level": [0.0] * 3, "pressure": [1013.0] * 12}])


def test_low_pressure_lifts_the_water():
    level, pressure = record(200, noise=0.0, seed=0)
    assert np.corrcoef(level, pressure)[0, 1] < -0.02
