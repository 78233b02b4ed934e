"""What environment.json says of where a run happened."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime, timedelta

import pytest

import modelwright
from modelwright import environment


def describe() -> dict[str, object]:
    return environment.describe(task="toy", command="modelwright train toy", device="cpu", threads=3, ranks=2)


def test_it_holds_what_it_was_told_and_the_versions() -> None:
    found = describe()
    assert {key: found[key] for key in ("task", "command", "device", "threads", "ranks")} == {
        "task": "toy",
        "command": "modelwright train toy",
        "device": "cpu",
        "threads": 3,
        "ranks": 2,
    }
    assert found["modelwright"] == modelwright.__version__
    assert found["python"] == platform.python_version()
    assert {"torch", "numpy", "pydantic"} <= set(found["packages"])  # type: ignore[call-overload]


def test_it_is_json_and_timed_in_utc() -> None:
    found = json.loads(json.dumps(describe()))
    began = datetime.fromisoformat(found["started"])
    assert began.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - began) < timedelta(minutes=1)
    assert found["cores"] >= 1
    assert found["processor"]


def test_extras_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=2.0", "surely-not-installed-here>=1; extra == 'image'"]
    monkeypatch.setattr(environment.metadata, "requires", lambda name: needs)
    assert list(describe()["packages"]) == ["numpy"]  # type: ignore[call-overload]


def test_without_metadata_no_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.metadata, "requires", lambda name: None)
    assert describe()["packages"] == {}
