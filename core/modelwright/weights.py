"""Weights from files, folders and runs into a network. Knows state dicts only: no settings, no data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from modelwright.errors import ConfigError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SHOWN = 4
"""Names of tensors that a line lists."""


@dataclass(frozen=True)
class Loaded:
    """What was taken over. `total`: tensors of the network; `skipped`: names of those without a match."""

    matched: int
    total: int
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        missing = f"; left as they were: {', '.join(self.skipped[:SHOWN])}" if self.skipped else ""
        more = f" and {len(self.skipped) - SHOWN} more" if len(self.skipped) > SHOWN else ""
        return f"{self.matched} of {self.total} tensors taken over{missing}{more}"


def load_matching(
    network: nn.Module, weights: Mapping[str, Tensor], *, source: str, head: str = "", least: float = 0.0
) -> Loaded:
    """Copies every tensor whose name and shape fit; the prefix of the names that fits best is taken off first.

    Args:
        network: gets the weights.
        weights: name -> tensor, from a run, a wrapper (``module.``) or a plain state dict.
        source: as the user named it, for errors.
        head: name of the layer that gives the logits, where it is one; taken over only with as many classes, and not
            counted as a match.
        least: share of the network's tensors that must fit: fewer are those of another network that fit by chance.

    Raises:
        ConfigError: nothing below the head fits, or too little.
    """
    own = network.state_dict()

    def fitting(prefix: str) -> dict[str, Tensor]:
        found = {name: weights.get(prefix + name) for name in own}
        return {name: t for name, t in found.items() if t is not None and t.shape == own[name].shape}

    parts = {tuple(name.split(".")[:depth]) for name in weights for depth in range(4)}
    prefixes = {"".join(f"{part}." for part in some) for some in parts}
    # Of equally good prefixes the shortest, so that the choice is always the same.
    best = max((fitting(prefix) for prefix in sorted(prefixes, key=lambda text: (len(text), text))), key=len)
    heads = {f"{head}.weight", f"{head}.bias"} if head else set[str]()
    # Half a head would be worse than a new one.
    if not heads & own.keys() <= best.keys():
        best = {name: tensor for name, tensor in best.items() if name not in heads}
    below = any(tensor.ndim for name, tensor in best.items() if name not in heads)
    if not below or len(best) < least * len(own):
        what = f"only {len(best)} of {len(own)} tensors of {source} fit" if below else f"no tensor of {source} fits"
        raise ConfigError(
            f"model.pretrained: {what} the network; it holds {_some(weights)}, wanted are {_some(own)}: "
            "set model.name to the network it was made with"
        )
    network.load_state_dict({**own, **best})
    return Loaded(len(best), len(own), tuple(name for name in own if name not in best))


def load_torch(path: Path) -> Any:
    """What torch.save wrote, read without running any code from it."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_weights(source: str, *, load: Callable[[Path], Any] = load_torch) -> dict[str, Tensor]:
    """The tensors of a file, of a folder that holds one, or of a run's best checkpoint.

    Args:
        source: as the user named it.
        load: reads a file that is not of safetensors: a library may have a format of its own.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it holds no weights.
    """
    path = find_weights(Path(source).expanduser())
    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else load(path)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"model.pretrained: {path} could not be read ({type(error).__name__}): "
            "give a .safetensors file or a state dict saved by torch.save"
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
        raise ConfigError(f"model.pretrained: there is no {path}: give a file, a folder or a run")
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
