"""The search for targets: met, out of reach at once, or missed in the end and said with how near the nearest came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelwright as mw
from modelwright.compression import receipt
from modelwright.compression.targets import Targets
from modelwright.errors import CompressionError
from modelwright.plugins import Catalog

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
    found = search(max_drop=1.0, minutes=0.1)
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
        search(max_drop=-1.0, minutes=0.05)


def test_no_more_is_pruned_than_a_size_asks_for(search: Callable[..., mw.Compressed]):
    whole = json.loads((search(max_drop=1.0, minutes=0.02).run_folder / "variants" / "chosen.json").read_text())
    size = max(each["size"] for each in whole["tried"])
    found = search(max_bytes=int(0.8 * size), minutes=0.4)
    tried = json.loads((found.run_folder / "variants" / "chosen.json").read_text())["tried"]
    keeps = [each["keep"] for each in tried if each["kind"] == "float" and each["size"] <= 0.8 * size]
    assert max(keeps) > 0.5
    assert all(each["size"] <= 0.8 * size for each in tried if each["name"] == found.chosen)
