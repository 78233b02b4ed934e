"""Finds utterances in the layout of LibriSpeech: SPEAKER/CHAPTER/*.trans.txt and *.flac.

Panayotov et al., ICASSP 2015. Folders called train-*, dev-* and test-* are splits. Opens no sound.
"""

from __future__ import annotations

import posixpath

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_speech.folder import decoded, split_of
from modelwright_speech.sounds import SUFFIXES
from modelwright_speech.utterances import Found, Layout, Tree, Utterance

TRANSCRIPTS = ".trans.txt"


def find(tree: Tree, *, split: Split | None, notes: list[str]) -> Layout:
    """The utterances of a folder or an archive.

    Args:
        split: of all of them, where folders do not say otherwise.
        notes: receives what a user should know.

    Raises:
        DataError: there are no transcripts.
    """
    listings = tree.with_suffix(TRANSCRIPTS)
    if not listings:
        raise DataError(
            f"{tree.store.path} has no *{TRANSCRIPTS}: the layout of LibriSpeech is SPEAKER/CHAPTER/SPEAKER-CHAPTER"
            f"{TRANSCRIPTS} beside its flac files; check data.path"
        )
    sounds = {posixpath.splitext(name)[0]: name for name in tree.with_suffix(*SUFFIXES)}
    made: Layout = {}
    for listing, data in sorted(tree.texts(listings)):
        found = made.setdefault(split_of(listing, split), Found(wanted=f"files *{TRANSCRIPTS} beside the sound"))
        where = tree.store.where(listing)
        text = decoded(data)
        if text is None:
            found.bad.append((where, "it is no UTF-8 text that can be read"))
            continue
        folder = posixpath.dirname(listing)
        for number, line in enumerate(text.splitlines(), 1):
            name, _, said = line.strip().partition(" ")
            if not name:
                continue
            source = f"{where} line {number}"
            sound = sounds.pop(posixpath.join(folder, name), None)
            if sound is None:
                found.bad.append((source, f"no sound {name} is beside it, or it is listed twice"))
            else:
                found.utterances.append(Utterance(tree.store, sound, said, name.partition("-")[0], source=source))
    if sounds:
        notes.append(f"{tree.store.path}: {len(sounds):,} sounds are in no transcript and are left out")
    return made
