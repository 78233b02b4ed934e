"""What the core offers through its own hooks. Imports no torch."""

from modelwright.compression.compressors import modelwright_compressors
from modelwright.observers import modelwright_observers

__all__ = ["modelwright_compressors", "modelwright_observers"]
