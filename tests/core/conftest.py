"""What the core's tests share: a catalog that holds the toy task and nothing installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import modelwright as mw
from modelwright.hookspecs import TaskEntry, hookimpl
from modelwright.plugins import Catalog, discover
from modelwright.testing.toy import TOY


class Point:
    """An entry point that gives a module offering `entries`."""

    def __init__(self, name: str, *entries: TaskEntry) -> None:
        self.name = name
        self._entries = entries

    def load(self) -> Any:
        module = ModuleType(self.name)
        entries = self._entries

        @hookimpl
        def modelwright_tasks() -> Any:
            yield from entries

        module.modelwright_tasks = modelwright_tasks  # type: ignore[attr-defined]
        return module


@pytest.fixture(scope="session")
def toys() -> Catalog:
    return discover([Point("toy", TOY)])


@pytest.fixture
def train_toy(toys: Catalog, tmp_path: Path) -> Callable[..., mw.Run]:
    """Trains the toy task into `tmp_path/name` with given settings; quiet, no intervals, no TensorBoard."""

    def train(name: str, settings: Mapping[str, Any] | None = None, **further: Any) -> mw.Run:
        base = {"observers": [], "evaluate.resamples": 0, "train.epochs": 3, "train.optimizer.lr": 0.01}
        return mw.train(
            "toy",
            out=tmp_path / name,
            catalog=further.pop("catalog", toys),
            settings={**base, **(settings or {})},
            warn=further.pop("warn", lambda message: None),
            **further,
        )

    return train


@pytest.fixture(scope="session")
def toy_run(toys: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the toy task; not to be changed."""
    settings = {"observers": [], "evaluate.resamples": 20, "train.epochs": 8, "train.optimizer.lr": 0.01}
    out = tmp_path_factory.mktemp("finished") / "run"
    return mw.train("toy", out=out, catalog=toys, settings=settings, warn=lambda message: None).folder


@pytest.fixture(scope="session")
def toy_bundle(toys: Catalog, toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle; not to be changed. Writing one takes seconds."""
    from modelwright.bundle.writing import export

    return export(toy_run, out=tmp_path_factory.mktemp("exported") / "bundle", catalog=toys)
