"""Finds sounds with their transcripts beside them: x.wav and x.txt, or x.lab. Opens no sound.

Folders called train, valid (dev) and test are splits.
"""

from __future__ import annotations

import posixpath

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.listings import some
from modelwright_speech.sounds import SUFFIXES
from modelwright_speech.utterances import Found, Layout, Tree, Utterance, split_called

TEXTS = (".txt", ".lab", ".text")
"""Endings of transcripts, the first that is there counts."""


def find(tree: Tree, *, split: Split | None, notes: list[str]) -> Layout:
    """The utterances of a folder or an archive.

    Args:
        split: of all of them, where folders do not say otherwise.
        notes: receives what a user should know.

    Raises:
        DataError: there is no sound, or no transcript.
    """
    sounds = tree.with_suffix(*SUFFIXES)
    texts = {name: _beside(tree, name) for name in sounds}
    root = tree.store.path
    if not sounds:
        raise DataError(f"{root} holds no sound ({some(SUFFIXES)}): check data.path")
    if not any(texts.values()):
        raise DataError(f"{root} has no transcript beside its {len(sounds)} sounds: write x.txt beside x.wav")
    read = dict(tree.texts(list(dict.fromkeys(text for text in texts.values() if text))))
    made: Layout = {}
    for name in sounds:
        found = made.setdefault(split_of(name, split), Found(wanted="a file x.txt beside x.wav"))
        text = texts[name]
        where = tree.store.where(name)
        if text is None:
            found.bad.append((where, "no transcript is beside it (.txt or .lab)"))
            continue
        said = decoded(read[text])
        if said is None:
            found.bad.append((tree.store.where(text), "it is no UTF-8 text that can be read"))
        else:
            found.utterances.append(Utterance(tree.store, name, said, source=tree.store.where(text)))
    return made


def split_of(name: str, usual: Split | None = None) -> Split:
    """The split that a folder of a path names; else the usual one, else train."""
    for part in posixpath.dirname(name).split("/"):
        if found := split_called(part):
            return found
    return usual or "train"


def decoded(data: bytes | str) -> str | None:
    """The text of a file; None: it cannot be read, or is no UTF-8."""
    if isinstance(data, str):
        return None
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return None


def _beside(tree: Tree, name: str) -> str | None:
    stem = posixpath.splitext(name)[0]
    return next((stem + suffix for suffix in TEXTS if stem + suffix in tree), None)
