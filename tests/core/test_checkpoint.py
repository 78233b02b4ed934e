"""Checkpoints: complete or not there, checked when read, and exact."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelwright.errors import CheckpointError
from modelwright.training import checkpoint as checkpoints
from modelwright.training.checkpoint import (
    Checkpoint,
    exists,
    load,
    load_module,
    load_optimizer,
    module_state,
    newest,
    optimizer_state,
    save,
)


def simple(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"model": {"weight": torch.full((2, 3), value)}}, {"step": 1, "loss": math.nan, "best": None})


def silent(message: str) -> None:
    raise AssertionError(f"nothing should be said: {message}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Round trip ---------------------------------------------------------------------------------------------------------


def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    tensors = {
        "bf16": torch.randn(3).bfloat16(),
        "half": torch.randn(3).half(),
        "double": torch.randn(3, dtype=torch.float64),
        "int": torch.tensor([-(2**62), 7]),
        "bool": torch.tensor([True, False]),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "scalar": torch.tensor(3.5),
        "nothing": torch.empty(0, 5),
        "special": torch.tensor([math.nan, math.inf, -0.0]),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 2).T,
        "part": torch.randn(10)[3:7],
        "expanded": torch.ones(1).expand(4),
        "tied": shared,
        "tied again": shared,
        "row of tied": shared[1],
        "parameter": nn.Parameter(torch.randn(2)),
    }
    path = save(tmp_path, "step", 3, Checkpoint({"model": tensors, "empty": {}}, {"a": [1, None, "é"], "b": math.inf}))
    assert path.name == "step-00000003"
    found = load(path)
    assert found.state == {"a": [1, None, "é"], "b": math.inf}
    assert set(found.tensors) == {"model", "empty"}
    assert found.tensors["model"].keys() == tensors.keys()
    for name, value in found.tensors["model"].items():
        wanted = tensors[name].detach()
        assert value.dtype == wanted.dtype, name
        assert value.shape == wanted.shape, name
        assert value.contiguous().view(-1).view(torch.uint8).equal(wanted.contiguous().view(-1).view(torch.uint8)), name


def test_state_may_hold_numbers_that_are_none(tmp_path: Path) -> None:
    state = load(save(tmp_path, "step", 1, simple())).state
    assert math.isnan(state["loss"])
    assert state["best"] is None


def test_a_copy_has_memory_of_its_own() -> None:
    first = simple()
    second = first.copy()
    first.tensors["model"]["weight"].zero_()
    first.state["step"] = 9
    assert second.tensors["model"]["weight"].sum() == 6
    assert second.state["step"] == 1


def test_nothing_is_pickled(tmp_path: Path) -> None:
    path = save(tmp_path, "step", 1, simple())
    assert names(path) == ["manifest.json", "model.safetensors", "state.json"]


# Keeping ------------------------------------------------------------------------------------------------------------


def test_the_newest_are_kept_by_kind(tmp_path: Path) -> None:
    save(tmp_path, "best", 1, simple(), keep=1)
    for step in (5, 10, 200):
        save(tmp_path, "step", step, simple(step))
    assert names(tmp_path) == ["best-00000001", "step-00000010", "step-00000200"]
    assert newest(tmp_path, "step", warn=silent).tensors["model"]["weight"][0, 0] == 200
    assert exists(tmp_path, "best")
    assert not exists(tmp_path, "last")


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, "step", 5, simple(1))
    save(tmp_path, "step", 5, simple(2))
    assert names(tmp_path) == ["step-00000005"]
    assert load(tmp_path / "step-00000005").tensors["model"]["weight"][0, 0] == 2


def test_going_back_behind_damaged_ones_keeps_what_is_written_then(tmp_path: Path) -> None:
    for step in (80, 95, 96):
        save(tmp_path, "step", step, simple(step), keep=3)
    for step in (95, 96):
        (tmp_path / f"step-000000{step}" / "state.json").write_text("{")
    said: list[str] = []
    assert newest(tmp_path, "step", warn=said.append).tensors["model"]["weight"][0, 0] == 80
    assert len(said) == 2
    assert all("going on from step-00000080" in line for line in said)
    save(tmp_path, "step", 90, simple(90))
    assert names(tmp_path) == ["step-00000080", "step-00000090"]
    assert newest(tmp_path, "step", warn=silent).tensors["model"]["weight"][0, 0] == 90


def test_what_a_killed_process_left_is_ignored_and_cleaned(tmp_path: Path) -> None:
    save(tmp_path, "step", 5, simple())
    left = tmp_path / ".step-00000010.4711"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    other = tmp_path / ".best-00000010.4711"
    other.mkdir()
    assert newest(tmp_path, "step", warn=silent).state["step"] == 1
    save(tmp_path, "step", 6, simple())
    assert names(tmp_path) == [".best-00000010.4711", "step-00000005", "step-00000006"]


# What goes wrong ----------------------------------------------------------------------------------------------------


def cut_json(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text[: len(text) // 2])


def cut_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def flip_a_bit(path: Path) -> None:
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "model.safetensors").write_bytes(weights)


def garbage_with_a_digest(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"not tensors")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["model.safetensors"] = checkpoints._sha256(path / "model.safetensors")
    (path / "manifest.json").write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut state": (cut_json, "state.json does not match its digest"),
    "cut manifest": (cut_manifest, "cannot be read"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "cannot be read: .*No such file"),
    "another manifest": (
        lambda path: (path / "manifest.json").write_text("[]"),
        "manifest.json is no list of its files",
    ),
    "empty manifest": (lambda path: (path / "manifest.json").write_text("{}"), "manifest.json is no list of its files"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "cannot be read: .*No such file"),
    "a flipped bit": (flip_a_bit, "model.safetensors does not match its digest"),
    "no tensors": (garbage_with_a_digest, "cannot be read"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, how: str) -> None:
    damage, message = DAMAGE[how]
    save(tmp_path, "step", 1, simple(1))
    path = save(tmp_path, "step", 2, simple(2))
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        load(path)
    said: list[str] = []
    assert newest(tmp_path, "step", warn=said.append).tensors["model"]["weight"][0, 0] == 1
    assert len(said) == 1
    assert "going on from step-00000001" in said[0]
    damage(tmp_path / "step-00000001")
    with pytest.raises(CheckpointError, match=r"no good checkpoint is left in .*; train again"):
        newest(tmp_path, "step", warn=silent)


def test_none_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="holds no best checkpoint: it was never trained that far; train it first"
    ):
        newest(tmp_path / "checkpoints", "best", warn=silent)


@pytest.mark.parametrize("stage", ["save_file", "_write_json", "_sync"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    save(tmp_path, "step", 1, simple())

    def full(*unused: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, stage, full)
    with pytest.raises(
        CheckpointError, match=r"step-00000002 could not be written: .*No space left.*; free some space"
    ):
        save(tmp_path, "step", 2, simple())
    assert names(tmp_path) == ["step-00000001"]
    assert load(tmp_path / "step-00000001").state["step"] == 1


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        save(tmp_path / "file", "step", 1, simple())


# Modules ------------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    """Has a weight, a buffer, and a counter that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2))
        self.register_buffer("mean", torch.zeros(2))
        self.seen = 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_extra_state_goes_into_json_and_back(tmp_path: Path) -> None:
    model, other = nn.Sequential(Counting(), nn.Linear(2, 2)), nn.Sequential(Counting(), nn.Linear(2, 2))
    model[0].seen = 41  # type: ignore[assignment]
    tensors, extra = module_state(model)
    assert extra == {"0._extra_state": {"seen": 41}}
    found = load(save(tmp_path, "step", 1, Checkpoint({"model": tensors}, {"extra": extra})))
    load_module(other, found.tensors["model"], found.state["extra"], what="it")
    assert other[0].seen == 41
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    found = load(save(tmp_path, "step", 1, Checkpoint({"model": module_state(model)[0]})))
    load_module(other, found.tensors["model"], {}, what="it")
    assert other[0].weight is other[1].weight
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize("other", [nn.Linear(2, 3), nn.Linear(2, 2, bias=False), nn.Conv2d(1, 1, 1), Counting()])
def test_a_state_of_another_module_is_an_error(other: nn.Module) -> None:
    tensors, extra = module_state(nn.Linear(2, 2))
    with pytest.raises(
        CheckpointError, match=r"my checkpoint belongs to another model: .*; use the run's own"
    ) as error:
        load_module(other, tensors, extra, what="my checkpoint")
    assert "\n" not in str(error.value)


# Optimizers ---------------------------------------------------------------------------------------------------------

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.9), "amsgrad": True},
    "Adagrad": {"lr": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "NAdam": {"lr": 0.01},
    "Adafactor": {"lr": 0.01},
    "Rprop": {"lr": 0.01},
    "ASGD": {"lr": 0.01},
}


class Net(nn.Module):
    """Pictures, channels-last; with a parameter of no axes, whose shape is also that of a step counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.scale


def built(name: str, *, fused: bool) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    options = {**OPTIMIZERS[name], **({"fused": True} if fused else {})}
    return model, getattr(torch.optim, name)(model.parameters(), **options)


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


CASES = [(name, False) for name in OPTIMIZERS] + [(name, True) for name in ("SGD", "AdamW", "Adagrad")]


@pytest.mark.parametrize(("name", "fused"), CASES)
def test_an_optimizer_goes_on_exactly(tmp_path: Path, name: str, fused: bool) -> None:
    model, optimizer = built(name, fused=fused)
    advance(model, optimizer, range(3))
    tensors, plain = optimizer_state(optimizer)
    weights, extra = module_state(model)
    path = save(tmp_path, "step", 3, Checkpoint({"model": weights, "optimizer": tensors}, {"optimizer": plain}))
    advance(model, optimizer, range(3, 6))

    other, again = built(name, fused=fused)
    found = load(path)
    load_module(other, found.tensors["model"], extra, what="it")
    load_optimizer(again, found.tensors["optimizer"], found.state["optimizer"])
    for parameter, entries in again.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                assert value.stride() == parameter.stride(), key
    advance(other, again, range(3, 6))
    for (key, value), wanted in zip(other.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(value, wanted), key


def test_an_optimizers_state_of_something_else_is_an_error() -> None:
    model, optimizer = built("AdamW", fused=True)
    advance(model, optimizer, range(1))
    tensors, plain = optimizer_state(optimizer)
    with pytest.raises(CheckpointError, match="state is of AdamW, not SGD; use the run's own settings"):
        load_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), tensors, plain)
    with pytest.raises(CheckpointError, match=r"state does not fit: .*; use the run's own settings"):
        load_optimizer(torch.optim.AdamW(nn.Linear(2, 2).parameters()), tensors, plain)
