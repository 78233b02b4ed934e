"""What a search is asked for: a loss, a size, a time. Knows numbers only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Targets:
    """What is asked for; None: no matter."""

    max_drop: float | None = None
    max_bytes: int | None = None
    max_latency_ms: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.max_drop, self.max_bytes, self.max_latency_ms))

    def excess(self, *, drop: float | None, size: int, latency_ms: float) -> list[float]:
        """By which share each target is missed, in the order of the attributes; 0 and less: met."""
        pairs = ((drop, self.max_drop), (size, self.max_bytes), (latency_ms, self.max_latency_ms))
        return [
            0.0 if found is None or most is None else (found - most) / max(abs(most), 1e-6) for found, most in pairs
        ]

    def __str__(self) -> str:
        parts = (
            ("max-drop", self.max_drop, ""),
            ("max-bytes", self.max_bytes, ""),
            ("max-latency-ms", self.max_latency_ms, ""),
        )
        return ", ".join(f"{name} {value:g}" for name, value, _ in parts if value is not None)
