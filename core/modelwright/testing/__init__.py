"""What plugin authors test with: the contract kit and a toy task. Each name is imported when first used; no torch here.

>>> import modelwright.testing
>>> "check_task" in dir(modelwright.testing)
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelwright.testing.kit import CheckResult, Failed, NotOffered, check_task
    from modelwright.testing.suite import parametrize_with_checks

_HOME_OF = {
    "CheckResult": "kit",
    "Failed": "kit",
    "NotOffered": "kit",
    "check_task": "kit",
    "parametrize_with_checks": "suite",  # the only one that needs pytest
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll] - imported lazily
    "CheckResult",
    "Failed",
    "NotOffered",
    "check_task",
    "parametrize_with_checks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'modelwright.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"modelwright.testing.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
