"""Weights that torchvision offers for its classifiers. Fetches them; puts them into no network."""

from __future__ import annotations

from typing import Any, cast
from urllib.error import URLError

import torchvision.models
from torch import Tensor

from modelwright.errors import ConfigError


def download(name: str) -> dict[str, Tensor]:
    """The weights that torchvision offers for one of its classifiers.

    Raises:
        ConfigError: there are none, or they cannot be fetched.
    """
    default = cast("Any", torchvision.models.get_model_weights(name)).DEFAULT
    try:
        return cast("dict[str, Tensor]", default.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"model.pretrained=default: {default.url} could not be fetched ({type(error).__name__}): "
            "fetch it on a machine with a network and give the file as model.pretrained"
        ) from error
