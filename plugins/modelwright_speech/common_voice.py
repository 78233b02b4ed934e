"""Finds utterances in the layout of Common Voice (Ardila et al., LREC 2020): train.tsv, dev.tsv, test.tsv and clips/.

Opens no sound.
"""

from __future__ import annotations

import posixpath

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright_speech.manifest import PATH, SPEAKER, TEXT, rows
from modelwright_speech.utterances import Found, Layout, Tree, Utterance

LISTINGS: tuple[tuple[str, Split], ...] = (("train.tsv", "train"), ("dev.tsv", "valid"), ("test.tsv", "test"))


def find(tree: Tree, *, split: Split | None, notes: list[str]) -> Layout:
    """The utterances of a folder or an archive; of validated.tsv where there is no train.tsv.

    Args:
        split: of all of them, where no listing is for a split.
        notes: receives what a user should know.

    Raises:
        DataError: there is no such listing, or it lacks a column.
    """
    listings: list[tuple[str, Split]] = [(names[0], mine) for base, mine in LISTINGS if (names := tree.called(base))]
    if not any(mine == "train" for _, mine in listings) and (names := tree.called("validated.tsv")):
        listings: list[tuple[str, Split]] = [(names[0], split or "train")]
    if not listings:
        raise DataError(f"{tree.store.path} has no train.tsv, dev.tsv, test.tsv or validated.tsv: check data.path")
    read = dict(tree.texts([name for name, _ in listings]))
    made: Layout = {}
    for listing, mine in listings:
        data, where = read[listing], tree.store.where(listing)
        if isinstance(data, str):
            raise DataError(f"{where} could not be read ({data}): check data.path")
        found = made.setdefault(mine, Found(wanted=f"the column sentence of {where}"))
        clips = posixpath.join(posixpath.dirname(listing), "clips")
        # Sentences hold quotation marks, which are not the table's.
        for row in rows(data, where=where, quoted=False):
            source, path = f"{where} line {row.line}", row.get(PATH)
            base = path if not path or "." in posixpath.basename(path) else f"{path}.mp3"
            name = tree.resolve(posixpath.join(clips, base)) if base else None
            if name is None:
                found.bad.append((source, f"{base or 'its sound'} is not in {clips}"))
            else:
                text, speaker = row.get(TEXT) or None, row.get(SPEAKER) or None
                found.utterances.append(Utterance(tree.store, name, text, speaker, source=source))
    return made
