"""Where real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def real_data():
    """The folder of a real data set; skips where there is none."""

    def find(name):
        folder = Path(os.environ.get("MODELWRIGHT_DATA") or ROOT.parent / "shared" / "data") / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set MODELWRIGHT_DATA to the folder of real data")
        return folder

    return find
