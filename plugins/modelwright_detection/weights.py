"""Weights from files, folders and runs into a network. Knows state dicts and checkpoints only: no settings, no data."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modelwright.errors import ConfigError
from modelwright_detection import ultra

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
ENOUGH = 0.5
"""Share of a network's tensors that must fit: fewer are those of another network that fit by chance."""


@dataclass(frozen=True)
class Loaded:
    """What was taken over. `total`: tensors of the network; `skipped`: names of those without a match."""

    matched: int
    total: int
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        missing = f"; left as they were: {', '.join(self.skipped[:3])}" if self.skipped else ""
        more = f" and {len(self.skipped) - 3} more" if len(self.skipped) > 3 else ""
        return f"{self.matched} of {self.total} tensors taken over{missing}{more}"


def load_matching(network: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> Loaded:
    """Copies every tensor whose name and shape fit, so all but the classes' where these are others in number.

    Args:
        network: gets the weights.
        weights: name -> tensor, from a run, a wrapper (``module.``) or a plain state dict; the prefix of the names that
            fits best is taken off first.
        source: as the user named it, for errors.

    Raises:
        ConfigError: too little fits.
    """
    own = network.state_dict()

    def fitting(prefix: str) -> dict[str, Tensor]:
        found = {name: weights.get(prefix + name) for name in own}
        return {name: t for name, t in found.items() if t is not None and t.shape == own[name].shape}

    parts = {tuple(name.split(".")[:depth]) for name in weights for depth in range(4)}
    prefixes = {"".join(f"{part}." for part in some) for some in parts}
    # Of equally good prefixes the shortest, so that the choice is always the same.
    best = max((fitting(prefix) for prefix in sorted(prefixes, key=lambda text: (len(text), text))), key=len)
    if len(best) < ENOUGH * len(own):
        raise ConfigError(
            f"model.pretrained: only {len(best)} of {len(own)} tensors of {source} fit the network; it holds "
            f"{_some(weights)}, wanted are {_some(own)}: set model.name to the network it was made with"
        )
    network.load_state_dict({**own, **best})
    return Loaded(len(best), len(own), tuple(name for name in own if name not in best))


def read_weights(source: str) -> dict[str, Tensor]:
    """The tensors of a file, of a folder that holds one, or of a run's best checkpoint.

    Files of torch are read without running any code from them, checkpoints of ultralytics among them.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no weights.
        PluginError: it is a checkpoint of ultralytics, which is not installed.
    """
    path = find_weights(Path(source).expanduser())
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if ultra.is_checkpoint(path):
            return ultra.read_checkpoint(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"model.pretrained: {path} could not be read ({type(error).__name__}): "
            "give a .safetensors file, a checkpoint of ultralytics or a state dict saved by torch.save"
        ) from error
    tensors = _tensors(loaded)
    if not tensors:
        raise ConfigError(f"model.pretrained: {path} holds no weights: save model.state_dict() and give that")
    return tensors


def find_weights(path: Path) -> Path:
    """The file with the weights: `path` itself, the best (else the last) checkpoint of a run, or a folder's only one.

    Raises:
        ConfigError: there is none, or there are several to choose from.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise ConfigError(f"model.pretrained: there is no {path}: give a local file, a folder or a run")
    for folder in ("checkpoints/best-*/", "checkpoints/last-*/", "checkpoints/step-*/", ""):
        # Names end with the step, filled with zeros: the last is the newest.
        found = sorted(path.glob(f"{folder}model.safetensors"), key=lambda file: file.parent.name)
        if found:
            return found[-1]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    what = f"several files with weights ({', '.join(file.name for file in found[:4])})" if found else "no weights"
    raise ConfigError(f"model.pretrained: {path} holds {what}: name the file")


def _tensors(loaded: Any, depth: int = 0) -> dict[str, Tensor]:
    """The state dict in what was loaded: itself, or the fullest one a level or two below ("state_dict", "model")."""
    if not isinstance(loaded, Mapping):
        return {}
    items = cast("Mapping[Any, Any]", loaded)
    own = {str(key): value for key, value in items.items() if isinstance(value, Tensor)}
    below = [_tensors(value, depth + 1) for value in items.values()] if depth < 2 else []
    return max([own, *below], key=len)


def _some(names: Mapping[str, Tensor]) -> str:
    return ", ".join(list(names)[:3])
