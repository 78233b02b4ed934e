"""Accumulation and ranks do not change what is learned or measured.

Two ranks are started by torchrun, once; three are forked, so that each need not import torch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import modelwright as mw
from modelwright.errors import ConfigError, ModelwrightError
from modelwright.plugins import Catalog
from tests.core.test_distributed import on_ranks
from tests.core.test_resume import final_weights

# 309 samples in batches of 28: the last batch has one sample, fewer than ranks or micro-batches; the others have 103.
ODD = {"data.samples": 309, "train.batch_size": 28, "train.epochs": 2, "model.dropout": 0.0, "train.ema.decay": 0.9}
SGD = {**ODD, "train.optimizer.name": "SGD", "train.optimizer.lr": 0.05, "evaluate.resamples": 100, "observers": []}
forked = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="ranks are forked")


def assert_close(a: Path, b: Path) -> None:
    first, second = final_weights(a), final_weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-5, msg=name)


def test_accumulation_does_not_change_the_weights(train_toy: Callable[..., mw.Run], tmp_path: Path) -> None:
    for parts in (1, 2, 4):
        train_toy(f"parts-{parts}", {**ODD, "train.accumulate": parts, "train.optimizer.name": "SGD"})
    assert_close(tmp_path / "parts-1", tmp_path / "parts-2")
    assert_close(tmp_path / "parts-1", tmp_path / "parts-4")


SCRIPT = """
import sys, modelwright as mw
from modelwright.plugins import Catalog, Provider
from modelwright.testing.toy import TOY
catalog = Catalog(tasks={"toy": TOY}, providers={"toy": Provider("toy", "toy")})
mw.train("toy", out=sys.argv[1], catalog=catalog, settings=eval(sys.argv[2]))
"""


def torchrun(ranks: int, folder: Path, settings: dict[str, object]) -> subprocess.CompletedProcess[str]:
    script = folder.parent / "ranks.py"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), str(script), str(folder), repr(settings)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.once
@forked
def test_one_two_and_three_ranks_agree(train_toy: Callable[..., mw.Run], toys: Catalog, tmp_path: Path) -> None:
    train_toy("1", SGD)
    done = torchrun(2, tmp_path / "2", SGD)
    assert done.returncode == 0, done.stderr[-3000:]

    def work(rank: int) -> int:
        mw.train("toy", out=tmp_path / "3", catalog=toys, settings=SGD)
        return rank

    assert on_ranks(3, tmp_path, work) == [0, 1, 2]
    for ranks in ("2", "3"):
        assert_close(tmp_path / "1", tmp_path / ranks)
        one, more = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("1", ranks))
        for a, b in zip(one["evaluations"], more["evaluations"], strict=True):
            assert a["samples"] == b["samples"] == 103
            assert a["metrics"] == b["metrics"]


@forked
def test_an_error_on_the_first_rank_ends_all(toys: Catalog, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")

    def work(rank: int) -> str:
        with pytest.raises(ModelwrightError) as raised:
            mw.train("toy", out=tmp_path / "taken", catalog=toys, settings=SGD)
        return str(raised.value)

    found = on_ranks(2, tmp_path, work)
    assert len(found) == 2
    assert all("exists already; choose another --out" in said for said in found)
    assert (tmp_path / "taken" / "file").read_text() == "mine"


def test_sync_batch_norm_on_a_cpu_is_refused(train_toy: Callable[..., mw.Run]) -> None:
    with pytest.raises(ConfigError, match="works on a GPU only"):
        train_toy("run", {"train.sync_batch_norm": True, "train.device": "cpu"})
