"""Cuts splits from training utterances where the data have none: whole speakers, where known. Opens no sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from modelwright.data import Split
from modelwright.errors import DataError
from modelwright.training.randomness import generator
from modelwright_speech.utterances import SPLITS, Layout


def with_cuts(layout: Layout, wanted: Mapping[Split, float], *, seed: int, notes: list[str]) -> Layout:
    """`layout` with the splits that it lacks cut from its training utterances.

    Args:
        wanted: the share of each split that may be lacking; 0: none is cut.
        seed: of the cuts.
        notes: receives what was cut.

    Raises:
        DataError: too few utterances for so many splits.
    """
    lacking: dict[Split, float] = {split: share for split, share in wanted.items() if split not in layout and share > 0}
    if not lacking:
        return layout
    whole = layout["train"]
    speakers = [utterance.speaker or "" for utterance in whole.utterances]
    # Parts of one recording sound alike: they stay together too.
    files = [utterance.where.partition(" from ")[0] for utterance in whole.utterances]
    own = {utterance.speaker for split in layout if split != "train" for utterance in layout[split].utterances}
    shared = bool((own - {None}) & set(speakers))  # then the data are about known voices, and so is what is cut
    named = len(set(speakers)) > len(lacking) and all(speakers) and not shared
    groups = speakers if named else files
    if len(set(groups)) <= len(lacking):
        groups = [str(row) for row in range(len(groups))]
    rows = cut(groups, lacking, seed=seed)
    counts = ", ".join(f"{split} {len(rows[split])}" for split in SPLITS if split in rows)
    why = "whom the data's own splits share" if shared else "who are not known or too few"
    how = "by whole speakers" if named else f"without regard to speakers, {why}"
    notes.append(f"splits cut from the training utterances by seed {seed}, {how}: {counts}")
    made: Layout = dict(layout)
    for split, mine in rows.items():
        # What is no utterance belongs to no split in particular: told once.
        bad = whole.bad if split == "train" else []
        made[split] = replace(whole, utterances=[whole.utterances[row] for row in mine.tolist()], bad=bad)
    return {split: made[split] for split in SPLITS if split in made}


def cut(groups: Sequence[str], shares: Mapping[Split, float], *, seed: int) -> dict[Split, np.ndarray]:
    """Rows as a train split and one split per share; no group is in two of them.

    Groups are shuffled; a split takes one after another where that brings it nearer to its share, and at least one.

    Args:
        groups: of each row.
        shares: of all rows.
        seed: of the shuffle; with the other arguments it decides everything.

    Raises:
        DataError: fewer groups than splits.
    """
    names, member = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(member, minlength=len(names))
    order = generator(seed, "cut").permutation(len(names)).tolist()
    home = np.full(len(names), "train", dtype=object)
    left = list(order)
    for place, (split, share) in enumerate(shares.items()):
        wanted, have = share * len(member), 0
        spare = len(shares) - place  # the splits that come, and train, need a group each
        if len(left) <= spare:
            settings = " and ".join(f"data.{each}={value:g}" for each, value in shares.items())
            raise DataError(
                f"{len(member)} utterances of {len(names)} speakers or recordings are too few for {settings}: add "
                "some, name the splits with data.split, or set these shares to 0"
            )
        for group in list(left):
            size = int(sizes[group])
            if len(left) > spare and abs(have + size - wanted) < abs(have - wanted):
                home[group], have = split, have + size
                left.remove(group)
        if not have:  # each group alone is more than twice what is wanted
            group = min(left, key=lambda each: (int(sizes[each]), order.index(each)))
            home[group] = split
            left.remove(group)
    rows = home[member]
    return {split: np.flatnonzero(rows == split) for split in ("train", *shares)}
