"""Opens every picture of a split once: to check it, to count its objects, and to keep it where memory allows."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelwright_detection.checks import Oddities, Problems, usable
from modelwright_detection.datasets import Kept
from modelwright_detection.entries import Entry, Found, Problem
from modelwright_detection.labels import Objects, Scene
from modelwright_detection.pictures import Unreadable, decode, flatten, read_picture


@dataclass(frozen=True)
class Order:
    """How a split is to be read.

    Attributes:
        number: int64: what each label of the split becomes.
        fitted: gives a picture's pixels as they are kept.
    """

    number: np.ndarray
    fitted: Callable[[np.ndarray], np.ndarray]


@dataclass
class Reading:
    """What was found in a split.

    Attributes:
        scenes: the pictures that can be used, in their order.
        kept: those of them in memory.
        prints: a digest of each picture's file.
        odd: what was put right.
    """

    scenes: list[Scene]
    kept: Kept
    prints: list[bytes] = field(default_factory=list[bytes])
    odd: Oddities = field(default_factory=Oddities)


def read(found: Found, order: Order, kept: Kept, problems: Problems) -> Reading:
    """Opens every picture of a split once.

    Args:
        kept: receives decoded pictures until it is full; from then on pictures are only checked.
        problems: receives what cannot be used.

    Raises:
        DataError: an archive breaks off.
    """
    problems.bad += found.bad
    problems.looked_at += len(found.bad) + len(found.entries)
    odd = Oddities()
    good: dict[int, tuple[Scene, bytes]] = {}
    bad: dict[int, list[Problem]] = {}
    for slot, data in _files(found.entries):
        entry = found.entries[slot]
        bad[slot] = []
        try:
            if isinstance(data, str):
                raise Unreadable(data)
            image = decode(data, check_only=kept.full)
            size: tuple[int, int] = image.info["size"]
            pixels = flatten(image)
            objects = _objects(entry, size, order.number, bad[slot], odd)
        except Unreadable as error:
            bad[slot].append((entry.where, str(error)))
            continue
        if not kept.full:
            kept.add(slot, order.fitted(pixels))
        opened = functools.partial(read_picture, entry.store, entry.name)
        good[slot] = Scene(entry.where, opened, objects, size), digest(data)
    slots = sorted(good)
    for slot in sorted(bad):  # an archive is read in its own order
        problems.bad += bad[slot]
    problems.looked_at += sum(len(entry.marks.labels) for entry in found.entries if entry.marks)
    odd.unlabelled = [found.entries[slot].where for slot in slots if found.entries[slot].marks is None]
    kept.close(slots)
    if len(kept) < len(slots):
        for store in {id(entry.store): entry.store for entry in found.entries}.values():
            store.ready()
    return Reading([good[slot][0] for slot in slots], kept, [good[slot][1] for slot in slots], odd)


def _files(entries: Sequence[Entry]) -> Iterator[tuple[int, bytes | str]]:
    """Each picture's place with its file's bytes, or with the reason why there are none; store by store."""
    slots: dict[int, dict[str, int]] = {}
    for slot, entry in enumerate(entries):
        slots.setdefault(id(entry.store), {})[entry.name] = slot
    stores = {id(entry.store): entry.store for entry in entries}
    for key, store in stores.items():
        for name, data in store.stream(list(slots[key])):
            yield slots[key][name], data


def _objects(entry: Entry, size: tuple[int, int], number: np.ndarray, bad: list[Problem], odd: Oddities) -> Objects:
    """What of an entry's labels can be used; the others join `bad`.

    Raises:
        Unreadable: they are for a picture of another size.
    """
    if entry.size is not None and entry.size != size:
        raise Unreadable(f"its labels are for {entry.size[0]} x {entry.size[1]} pixels, it has {size[0]} x {size[1]}")
    if entry.marks is None:
        return Objects.none()
    return usable(entry.marks, size=size, number=number, bad=bad, odd=odd)


def digest(data: bytes) -> bytes:
    """16 bytes that differ where the data differ."""
    return hashlib.blake2b(data, digest_size=16).digest()
