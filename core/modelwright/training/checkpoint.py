"""Checkpoints: folders of safetensors and JSON, written aside and renamed. Knows no trainer and no task; no pickle.

A checkpoint `step-00000100/` or `best-00000100/` holds::

    model.safetensors       weights and buffers (of the step, or of the kept model)
    ema.safetensors         the average, where one is kept
    optimizer.safetensors   the optimizer's tensors
    state.json              everything that is no tensor
    manifest.json           sha256 of each of the above
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modelwright.errors import CheckpointError

KEPT = 2
"""Checkpoints kept of a kind: the newest, and one to fall back to."""


@dataclass
class Checkpoint:
    """What a checkpoint holds. `tensors`: file stem -> name -> tensor; `state`: JSON values."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any] = field(default_factory=dict[str, Any])

    def copy(self) -> Checkpoint:
        """The same values in memory of their own."""
        tensors = {stem: {k: v.detach().clone() for k, v in each.items()} for stem, each in self.tensors.items()}
        return Checkpoint(tensors, copy.deepcopy(self.state))


def save(folder: Path, kind: str, step: int, checkpoint: Checkpoint, *, keep: int = KEPT) -> Path:
    """Writes ``folder/kind-step`` and deletes all others of its kind but the `keep` - 1 before it.

    The folder appears complete or not at all, whenever the process is killed.

    Raises:
        CheckpointError: the disk is full or not writable; what was there stays.
    """
    target = folder / f"{kind}-{step:08d}"
    aside = folder / f".{target.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for stem, tensors in checkpoint.tensors.items():
            write_tensors(aside / f"{stem}.safetensors", tensors)
        _write_json(aside / "state.json", checkpoint.state)
        _write_json(aside / "manifest.json", {path.name: _sha256(path) for path in sorted(aside.iterdir())})
        if target.exists():  # the same step again, after a resume
            shutil.rmtree(target)
        aside.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {target} could not be written: {error}; free some space, then resume"
        ) from error
    # Later ones are of a future that was given up: this run went back behind them because they were damaged.
    kept = [path for path in _all(folder, kind) if path.name <= target.name][-keep:]
    for old in _all(folder, kind):
        if old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    for left in folder.glob(f".{kind}-*"):  # of a process that was killed while writing
        shutil.rmtree(left, ignore_errors=True)
    return target


def load(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads one checkpoint after checking every digest.

    Raises:
        CheckpointError: it is missing, incomplete or damaged.
    """
    try:
        manifest = cast("dict[str, str]", json.loads((path / "manifest.json").read_text()))
        if not isinstance(manifest, dict) or "state.json" not in manifest:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CheckpointError(f"checkpoint {path} is damaged: manifest.json is no list of its files")
        for name, digest in manifest.items():
            if _sha256(path / name) != digest:
                raise CheckpointError(f"checkpoint {path} is damaged: {name} does not match its digest")
        state = cast("dict[str, Any]", json.loads((path / "state.json").read_text()))
        files = [path / name for name in manifest if name.endswith(".safetensors")]
        return Checkpoint({file.stem: load_file(file, device=str(device)) for file in files}, state)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}") from error


def newest(folder: Path, kind: str, *, warn: Callable[[str], None], device: torch.device | str = "cpu") -> Checkpoint:
    """The newest good checkpoint of a kind; says so when a newer one had to be passed over.

    Raises:
        CheckpointError: there is none, or none is good.
    """
    paths = _all(folder, kind)
    if not paths:
        raise CheckpointError(
            f"{folder.parent} holds no {kind} checkpoint: it was never trained that far; train it first"
        )
    problems: list[str] = []
    for path in reversed(paths):
        try:
            found = load(path, device=device)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"{problem}; going on from {path.name}")
        return found
    raise CheckpointError(f"no good checkpoint is left in {folder}: {'; '.join(problems)}; train again")


def exists(folder: Path, kind: str) -> bool:
    """Whether there is any checkpoint of that kind."""
    return bool(_all(folder, kind))


def _all(folder: Path, kind: str) -> list[Path]:
    """Oldest first; the names sort by step."""
    return sorted(path for path in folder.glob(f"{kind}-*") if path.is_dir())


# Modules and optimizers as tensors and JSON ---------------------------------------------------------------------------


def module_state(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A module's state: its tensors, and what `get_extra_state` gives beside them (JSON values)."""
    state = module.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in state.items() if not isinstance(value, Tensor)}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], *, what: str) -> None:
    """Puts a saved state into a module; memory formats and devices stay the module's own.

    Raises:
        CheckpointError: other names or shapes.
    """
    try:
        module.load_state_dict({**tensors, **extra}, strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{what} belongs to another model: {first}; use the run's own settings") from error


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors (``"3.momentum_buffer"``) and JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else plain)[f"{index}.{name}"] = value
    return tensors, {"name": type(optimizer).__name__, "state": plain, "groups": state["param_groups"]}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Puts a saved state into an optimizer over the same parameters.

    Raises:
        CheckpointError: it is the state of another optimizer or of other parameters.
    """
    own = type(optimizer).__name__
    if plain["name"] != own:
        raise CheckpointError(f"the optimizer's state is of {plain['name']}, not {own}; use the run's own settings")
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **plain["state"]}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    try:
        optimizer.load_state_dict({"state": state, "param_groups": plain["groups"]})
    except ValueError as error:
        raise CheckpointError(f"the optimizer's state does not fit: {error}; use the run's own settings") from error
    for parameter, entries in cast("dict[Tensor, dict[str, Any]]", optimizer.state).items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # safetensors stores row-major; the optimizer works in the parameter's own layout.
                entries[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


# Files ----------------------------------------------------------------------------------------------------------------


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, on the CPU.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; make it again") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Row-major and each by itself: of tensors that share memory (tied weights), all but the first are copied."""
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if memory in seen else own
        seen.add(memory)
    save_file(plain, path)
    _sync(path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=True))
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
