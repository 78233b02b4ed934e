"""Opens every sound once: to check it, to learn its length, and to keep it where memory allows."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_speech.checks import Heard, Problems, heard, text_reason
from modelwright_speech.datasets import Budget, Clip, Kept
from modelwright_speech.tokens import normalised
from modelwright_speech.utterances import Found, Problem, Utterance

WORKERS = 4
"""Threads that decode at most: soundfile and soxr work outside of Python's lock."""


@dataclass
class Reading:
    """What was found in a split.

    Attributes:
        clips: the utterances that can be used as far as is known yet, in their order.
        slots: the number that each is kept under.
        told: each as problems name it.
        heard: what is in each.
        kept: those in memory, by slot.
    """

    kept: Kept
    clips: list[Clip] = field(default_factory=list[Clip])
    slots: list[int] = field(default_factory=list[int])
    told: list[str] = field(default_factory=list[str])
    heard: list[Heard] = field(default_factory=list[Heard])

    def without(self, rows: Sequence[int]) -> Reading:
        """What is left when some of the clips cannot be used after all; closed."""
        gone = set(rows)
        left = [row for row in range(len(self.clips)) if row not in gone]
        return Reading(
            self.kept.close([self.slots[row] for row in left]),
            [self.clips[row] for row in left],
            list(range(len(left))),
            [self.told[row] for row in left],
            [self.heard[row] for row in left],
        )


def read(
    layout: Mapping[Split, Found], rate: int, budget: Budget, problems: Problems, *, longest: float
) -> dict[Split, Reading]:
    """Opens every sound of some splits once; an archive in one pass, whatever splits lie in it.

    Args:
        rate: samples per second.
        budget: memory for decoded sound; when it is used up, sound is only checked.
        problems: receives what cannot be used.
        longest: seconds that an utterance may last in training.

    Raises:
        DataError: an archive breaks off.
    """
    utterances = [utterance for found in layout.values() for utterance in found.utterances]
    splits: list[Split] = [split for split, found in layout.items() for _ in found.utterances]
    readings: dict[Split, Reading] = {split: Reading(Kept(budget)) for split in layout}
    bad: dict[int, Problem] = {}
    known: dict[int, Heard] = {}
    sayable: list[int] = []
    for slot, utterance in enumerate(utterances):
        if reason := text_reason(utterance.text):
            bad[slot] = (utterance.told, reason)
        else:
            sayable.append(slot)
    limits = [longest if split == "train" else None for split in splits]
    for slot, samples, what in _heard(utterances, sayable, rate, limits):
        if what.reason:
            bad[slot] = (utterances[slot].told, what.reason)
            continue
        known[slot] = what
        if samples is not None:
            readings[splits[slot]].kept.add(slot, samples)
    problems.looked_at += len(utterances)
    for found in layout.values():
        problems.bad += found.bad
        problems.looked_at += len(found.bad)
    problems.bad += [bad[slot] for slot in sorted(bad)]  # an archive is read in its own order
    for slot in sorted(known):
        utterance, reading = utterances[slot], readings[splits[slot]]
        clip = Clip(
            utterance.where,
            normalised(utterance.text or ""),
            utterance.speaker or "",
            known[slot].seconds,
            functools.partial(utterance.samples, rate),
        )
        reading.clips.append(clip)
        reading.slots.append(slot)
        reading.told.append(utterance.told)
        reading.heard.append(known[slot])
    if budget.full:
        for store in {id(utterance.store): utterance.store for utterance in utterances}.values():
            store.ready()
    return readings


def _heard(
    utterances: Sequence[Utterance], slots: Sequence[int], rate: int, longest: Sequence[float | None]
) -> Iterator[tuple[int, np.ndarray | None, Heard]]:
    """Each slot with its sound (None: it cannot be read) and what is in it; always in the same order."""
    workers = min(WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    waiting: deque[tuple[int, Future[tuple[np.ndarray | None, Heard]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for slot, data in _files(utterances, slots):
            waiting.append((slot, pool.submit(_listen, utterances[slot], data, rate, longest[slot])))
            if len(waiting) > 2 * workers:  # sound that waits takes memory
                first, future = waiting.popleft()
                yield first, *future.result()
        for slot, future in waiting:
            yield slot, *future.result()


def _files(utterances: Sequence[Utterance], slots: Sequence[int]) -> Iterator[tuple[int, bytes | str | None]]:
    """Each slot with its file's bytes, the reason why there are none, or None: the file is on disk."""
    inside: dict[int, dict[str, list[int]]] = {}
    for slot in slots:
        utterance = utterances[slot]
        if utterance.path is not None:
            yield slot, None
        else:
            inside.setdefault(id(utterance.store), {}).setdefault(utterance.name, []).append(slot)
    stores = {id(utterance.store): utterance.store for utterance in utterances}
    for key, names in inside.items():
        for name, data in stores[key].stream(list(names)):
            for slot in names[name]:
                yield slot, data


def _listen(
    utterance: Utterance, data: bytes | str | None, rate: int, longest: float | None
) -> tuple[np.ndarray | None, Heard]:
    """An utterance's sound and what is in it."""
    try:
        if isinstance(data, str):
            raise DataError(f"{utterance.where} cannot be read ({data})")
        samples = utterance.samples(rate, data)
    except (DataError, OSError) as error:
        # The message names the sound, as the list of problems does.
        return None, Heard(0.0, b"", False, str(error).removeprefix(f"{utterance.where} ").removeprefix("is "))
    return samples, heard(samples, utterance, rate, longest=longest)
