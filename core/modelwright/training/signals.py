"""Ctrl-C and SIGTERM as a wish to stop, honoured at the end of a step. Knows nothing of training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class StopSignal:
    """While entered, the first SIGINT or SIGTERM sets `asked`; a second one interrupts at once.

    Outside the main thread signals cannot be caught; then nothing changes.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.asked = False
        self._warn = warn
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - what signal.signal gave back

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._warn("stopping after this step; press Ctrl-C again to stop at once")
