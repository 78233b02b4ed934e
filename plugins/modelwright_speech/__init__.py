"""Speech recognition for modelwright. Cheap to import: torch, sound readers and models come in when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.hookspecs import TaskEntry, hookimpl
from modelwright_speech.config import SpeechConfig

if TYPE_CHECKING:
    from modelwright_speech.task import SpeechTask


def build(config: SpeechConfig) -> SpeechTask:
    """The task; imports torch."""
    from modelwright_speech.task import SpeechTask

    return SpeechTask(config)


@hookimpl
def modelwright_tasks() -> Iterator[TaskEntry]:
    """Speech recognition."""
    yield TaskEntry(
        "speech-recognition",
        "turn speech into text",
        config=SpeechConfig,
        build=build,
        extra="speech",
        requires=("torchaudio", "soundfile", "soxr", "jiwer", "tokenizers"),
        recipes=Path(__file__).parent / "recipes",
    )
