"""The search for targets: met, out of reach at once, or missed in the end and said with how near the nearest came."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelwright as mw
from modelwright.bundle.runtime import Graph
from modelwright.compression import receipt
from modelwright.compression import search as searching
from modelwright.compression.search import largest
from modelwright.compression.targets import Targets
from modelwright.errors import CompressionError
from modelwright.evaluation.bootstrap import Interval
from modelwright.plugins import Catalog

pytestmark = pytest.mark.once

QUICK = [
    {"stage": "prune", "train": None},
    {"stage": "distill", "train": {"steps": 20}},
    {"stage": "quantize", "calibrate": 64},
]


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    """What times say is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(receipt, "SECONDS", 0.05)
        yield


@pytest.fixture
def search(toy_run: Path, toys: Catalog, tmp_path: Path) -> Callable[..., mw.Compressed]:
    shutil.copytree(toy_run, tmp_path / "run")

    def find(**targets: Any) -> mw.Compressed:
        said = targets.pop("warn", lambda line: None)
        return mw.compress(tmp_path / "run", recipe=QUICK, catalog=toys, warn=said, **targets)

    return find


def test_excess_is_the_share_by_which_a_target_is_missed():
    targets = Targets(max_drop=0.1, max_bytes=1000)
    assert targets.excess(drop=0.2, size=500, latency_ms=9.0) == [pytest.approx(1.0), -0.5, 0.0]
    assert str(targets) == "max-drop 0.1, max-bytes 1000"
    assert targets
    assert not Targets()


def test_the_smallest_within_the_drop_is_chosen(search: Callable[..., mw.Compressed]):
    found = search(max_drop=1.0, minutes=0.02)
    chosen = json.loads((found.run_folder / "variants" / "chosen.json").read_text())
    assert chosen["variant"] == found.chosen
    assert chosen["targets"] == {"max_drop": 1.0, "max_bytes": None, "max_latency_ms": None}
    tried = {each["name"]: each for each in chosen["tried"]}
    assert found.chosen in tried
    assert found.chosen == min(tried.values(), key=lambda each: each["size"] * each["latency_ms"])["name"]


def test_what_nothing_can_meet_is_said_at_once_and_nothing_is_trained(search: Callable[..., mw.Compressed]):
    with pytest.raises(
        CompressionError, match=r"max-bytes 10 cannot be met: the smallest variant, \d+% of the channels"
    ):
        search(max_bytes=10)
    with pytest.raises(CompressionError, match=r"max-latency-ms 1e-06 cannot be met: the quickest variant, \d+% of"):
        search(max_latency_ms=1e-6)


def test_a_drop_that_is_missed_is_said_with_the_nearest(search: Callable[..., mw.Compressed]):
    with pytest.raises(CompressionError, match=r"no variant met max-drop -1 within .* the nearest misses max-drop: "):
        search(max_drop=-1.0, minutes=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, unique=True).map(sorted), st.floats(0, 1))
def test_the_largest_that_fits_is_found(values: list[float], most: float):
    fitting = [value for value in values if value <= most]
    assert largest(values, lambda value: value <= most) == (fitting[-1] if fitting else values[0])


def test_a_choice_that_loses_more_on_other_data_is_told(
    search: Callable[..., mw.Compressed], monkeypatch: pytest.MonkeyPatch
):
    def flattering(task: Any, predictor: Any, *rest: Any) -> Any:
        """On validation graphs are better than torch by one."""
        found = real(task, predictor, *rest)
        gain = int(isinstance(predictor, Graph))
        return replace(found, metrics={name: Interval(each.value + gain) for name, each in found.metrics.items()})

    real = searching.score
    monkeypatch.setattr(searching, "score", flattering)
    said: list[str] = []
    search(max_drop=-0.5, minutes=0.01, warn=said.append)
    assert re.search(
        r"loses \S+ on test, more than max-drop -0.5, and -\S+ on valid, by which it was chosen", str(said)
    )
