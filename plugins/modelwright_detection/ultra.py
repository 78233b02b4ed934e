"""The door to ultralytics: imports it without its side effects, builds networks, reads checkpoints. Knows no training.

Importing ultralytics changes the process it is imported into: it sets OMP_NUM_THREADS and other variables, replaces
torch.save and PIL.Image.open (on Windows also functions of cv2), switches cv2's threads off, changes how tensors and
arrays are printed, adds filters of warnings, logs to standard output, looks whether the machine is online, writes a
settings file into the user's home and reports usage. Here it is imported late and all of that is undone or prevented.

ultralytics is AGPL-3.0; it is used as it is installed, and nothing of it is copied.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import os
import pathlib
import pickle
import tempfile
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from modelwright.errors import ConfigError, PluginError

NAMES = tuple(f"yolo{version}{scale}" for version in ("26", "11") for scale in "nsm")
"""Networks that are offered: YOLO26 and YOLO11, each nano, small and medium."""
INSTALL = 'pip install "modelwright[detection]"'


@dataclass(frozen=True)
class Library:
    """What is used of ultralytics.

    Attributes:
        folder: where it is installed.
        network: makes a network of its plan (`DetectionModel`).
        one_head: the loss of a network with one head (`v8DetectionLoss`).
        two_heads: of one with a second, end-to-end head (`E2ELoss`).
    """

    folder: Path
    network: type[nn.Module]
    one_head: type[Any]
    two_heads: type[Any]


@functools.cache
def library() -> Library:
    """Imports ultralytics, once.

    Raises:
        PluginError: it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("ultralytics") is None:
        raise PluginError(
            f"the YOLO models need ultralytics (AGPL-3.0), which is not installed: {INSTALL}, "
            "or choose model.name=d-fine, rt-detr or ssdlite320"
        )
    try:
        with undone():
            tasks = importlib.import_module("ultralytics.nn.tasks")
            losses = importlib.import_module("ultralytics.utils.loss")
            common = importlib.import_module("ultralytics.utils")
    except ImportError as error:
        raise PluginError(f"ultralytics could not be imported ({error}): {INSTALL}") from error
    _silence(common)
    return Library(Path(common.ROOT), tasks.DetectionModel, losses.v8DetectionLoss, losses.E2ELoss)


@contextlib.contextmanager
def undone() -> Generator[None]:
    """Puts back what an import of ultralytics changes, and keeps it from the network and the user's home.

    Its settings go into a temporary folder that is gone afterwards.
    """
    variables = dict(os.environ)  # before cv2 comes in, which changes where programs look for libraries
    owners = [torch, importlib.import_module("PIL.Image"), importlib.import_module("cv2")]
    cv2: Any = owners[-1]
    functions = [
        (owner, name, getattr(owner, name))
        for owner, names in zip(owners, [("save", "load"), ("open",), ("imread", "imwrite", "imshow")], strict=True)
        for name in names
    ]
    threads = cv2.getNumThreads()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="modelwright-") as folder,
            np.printoptions(),
            torch._tensor_str.printoptions(),  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage, reportAttributeAccessIssue]
            warnings.catch_warnings(),
        ):
            os.environ.update(
                YOLO_CONFIG_DIR=folder,
                YOLO_OFFLINE="true",  # asks no name server, and sends nothing later on
                YOLO_AUTOINSTALL="false",
                YOLO_VERBOSE="false",
            )
            yield
    finally:
        for owner, name, function in functions:
            setattr(owner, name, function)
        cv2.setNumThreads(threads)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)


def _silence(common: Any) -> None:
    """Nothing is reported, stored or printed by ultralytics from now on."""
    settings = common.SETTINGS
    settings._save = lambda: None
    dict.update(settings, dict.fromkeys(("sync", "clearml", "comet", "dvc", "mlflow", "raytune"), False))
    logger = logging.getLogger("ultralytics")
    logger.handlers.clear()  # standard output belongs to the command line
    logger.propagate = True


# Networks -------------------------------------------------------------------------------------------------------------


def build_network(name: str, *, classes: int) -> nn.Module:
    """A network of ultralytics with fresh weights (drawn from torch's global generator, as there).

    Args:
        name: one of `NAMES`.

    Raises:
        PluginError: ultralytics is not installed, or is a version that does not know the network.
    """
    found = library()
    kind, scale = name[:-1], name[-1]
    path = found.folder / "cfg" / "models" / kind.removeprefix("yolo") / f"{kind}.yaml"
    if not path.is_file():
        raise PluginError(f"the ultralytics that is installed does not know {name}: {INSTALL} --upgrade")
    # Read here: ultralytics would prefer a file of that name in the current folder.
    plan = {**yaml.safe_load(path.read_text(encoding="utf-8")), "scale": scale, "yaml_file": f"{name}.yaml"}
    network = cast("Any", found.network)(plan, ch=3, nc=classes, verbose=False)
    # A second reference to the head's tensor, which would stay behind when the network moves to a device.
    network.stride = tuple(float(stride) for stride in network.stride)
    return cast("nn.Module", network)


# Checkpoints ----------------------------------------------------------------------------------------------------------

_PLAIN: Mapping[str, Any] = {
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray.scalar": np.float64(0).__reduce__()[0],
    "numpy._core.multiarray.scalar": np.float64(0).__reduce__()[0],
    "pathlib.PosixPath": pathlib.PurePosixPath,
    "pathlib.WindowsPath": pathlib.PureWindowsPath,
    "pathlib._local.PosixPath": pathlib.PurePosixPath,
    "pathlib._local.WindowsPath": pathlib.PureWindowsPath,
}
"""What checkpoints hold besides layers: numbers of numpy and paths."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of ultralytics, which is a pickled network.

    Only layers of torch and ultralytics, numbers and paths are unpickled; a file that asks for anything else is
    refused, so none of its code is run. Of average and raw weights the average is taken.

    Args:
        path: a .pt file; reading it is left to torch, which raises where it is damaged.

    Raises:
        ConfigError: it asks for more than that, or holds no network.
        PluginError: ultralytics is not installed.
    """
    library()
    needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    allowed = [(_known(name, path), name) for name in needed]
    if "numpy.dtype" in needed:  # made on the fly, so the file does not name it
        allowed.append((type(np.dtype(np.float64)), "numpy.dtypes.Float64DType"))
    with undone(), torch.serialization.safe_globals(cast("Any", allowed)):
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    found = [loaded.get(key) for key in ("ema", "model")] if isinstance(loaded, dict) else [loaded]
    network = next((each for each in found if isinstance(each, nn.Module)), None)
    if network is None:
        raise ConfigError(f"model.pretrained: {path} holds no network: give a .pt file that ultralytics saved")
    return {name: tensor for name, tensor in network.float().state_dict().items() if isinstance(tensor, Tensor)}


def is_checkpoint(path: Path) -> bool:
    """Whether a file of torch asks for classes of ultralytics; looks at names only and runs nothing."""
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return False
    return any(name.startswith("ultralytics.") for name in needed)


def _known(name: str, path: Path) -> Any:
    """The class of that name, if it does nothing but hold numbers or layers."""
    if name in _PLAIN:
        return _PLAIN[name]
    module, _, attribute = name.rpartition(".")
    found: Any = None
    if f"{module}.".startswith(("torch.nn.modules.", "ultralytics.nn.", "ultralytics.utils.")):
        with contextlib.suppress(ImportError), undone():
            found = getattr(importlib.import_module(module), attribute, None)
    layer = isinstance(found, type) and issubclass(found, nn.Module)
    if layer or name == "ultralytics.utils.IterableSimpleNamespace":
        return found
    raise ConfigError(
        f"model.pretrained: {path} asks for {name}, which is no layer, so it is not opened: "
        "save its model.state_dict() with torch.save where you trust it, and give that"
    )
