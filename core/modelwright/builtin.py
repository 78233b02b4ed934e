"""What the core offers through its own hooks. Imports no torch."""

from modelwright.bundle.exporters import modelwright_exporters
from modelwright.compression.compressors import modelwright_compressors
from modelwright.observers import modelwright_observers

__all__ = ["modelwright_compressors", "modelwright_exporters", "modelwright_observers"]
