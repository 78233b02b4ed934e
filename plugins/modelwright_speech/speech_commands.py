"""Finds utterances in the layout of Speech Commands (Warden, 2018): a folder per word, with lists of two splits.

Opens no sound.
"""

from __future__ import annotations

import posixpath

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_speech.folder import decoded
from modelwright_speech.utterances import Found, Layout, Tree, Utterance

NOISE = "_background_noise_"
LISTS: tuple[tuple[str, Split], ...] = (("validation_list.txt", "valid"), ("testing_list.txt", "test"))


def find(tree: Tree, *, split: Split | None, notes: list[str]) -> Layout:
    """The utterances of a folder or an archive; the word is its folder's name, the speaker what stands before _nohash_.

    Args:
        split: of those that no list names.
        notes: receives what a user should know.

    Raises:
        DataError: there are no folders with sound, or a list that cannot be read.
    """
    sounds = [name for name in tree.with_suffix(".wav", ".flac") if "/" in name]
    noises = [name for name in sounds if name.split("/")[-2] == NOISE]
    words = [name for name in sounds if name.split("/")[-2] != NOISE]
    if not words:
        raise DataError(f"{tree.store.path} has no folder of a word with wav files in it: check data.path")
    listed: dict[str, Split] = {}
    for base, mine in LISTS:
        for path in tree.called(base)[:1]:
            text = decoded(tree.one(path))
            if text is None:
                raise DataError(f"{tree.store.where(path)} could not be read: fetch the data again")
            root = posixpath.dirname(path)
            listed |= {posixpath.join(root, line.strip()): mine for line in text.splitlines() if line.strip()}
    made: Layout = {}
    for name in words:
        word, base = name.split("/")[-2:]
        mine = listed.get(name, split or "train")
        speaker = base.partition("_nohash_")[0] if "_nohash_" in base else None
        found = made.setdefault(mine, Found(wanted="the names of the folders"))
        found.utterances.append(Utterance(tree.store, name, word, speaker))
    if missing := set(listed) - set(words):
        notes.append(f"{tree.store.path}: {len(missing):,} sounds of its lists are not there")
    if noises:
        notes.append(
            f"{tree.store.path}: {len(noises)} sounds of {NOISE} are left out; augment.noise_path can mix them in"
        )
    return made
