"""Splits are cut by whole speakers, near the share that is wanted, by the seed alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import DataError
from modelwright.stores import Folder
from modelwright_speech.cutting import cut, with_cuts
from modelwright_speech.utterances import Found, Utterance

SHARES = {"test": 0.1, "valid": 0.1}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=40),
    seed=st.integers(0, 2**32 - 1),
    shares=st.fixed_dictionaries({"test": st.floats(0.01, 0.6), "valid": st.floats(0.01, 0.6)}),
)
def test_each_row_is_in_one_split_and_each_group_too(sizes, seed, shares):
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    rows = cut(groups, shares, seed=seed)
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(groups)))
    homes = [{groups[row] for row in part.tolist()} for part in rows.values()]
    assert all(homes)
    assert sum(map(len, homes)) == len(set(groups))
    again = cut(groups, shares, seed=seed)
    assert all(np.array_equal(rows[split], again[split]) for split in rows)


@given(seed=st.integers(0, 999))
def test_a_share_is_met_to_within_a_group(seed):
    groups = [f"g{number % 50}" for number in range(500)]
    rows = cut(groups, SHARES, seed=seed)
    assert [len(rows[split]) for split in ("train", "test", "valid")] == [400, 50, 50]


def test_another_seed_cuts_otherwise():
    groups = [str(number) for number in range(100)]
    assert not np.array_equal(cut(groups, SHARES, seed=0)["test"], cut(groups, SHARES, seed=1)["test"])


def test_too_few():
    with pytest.raises(DataError, match=r"2 utterances of 2 speakers.*data\.test=0\.1 and data\.valid=0\.1"):
        cut(["a", "b"], SHARES, seed=0)


def found(speakers, *, files=None):
    store = Folder(Path("/nowhere"))
    names = files or [f"{number}.wav" for number in range(len(speakers))]
    return Found(
        [
            Utterance(store, name, "a", who, offset=float(i))
            for i, (name, who) in enumerate(zip(names, speakers, strict=True))
        ]
    )


def who(layout):
    return {split: {each.speaker for each in part.utterances} for split, part in layout.items()}


def test_whole_speakers_where_they_are_known():
    notes = []
    layout = with_cuts({"train": found([f"s{n % 10}" for n in range(100)])}, SHARES, seed=0, notes=notes)
    assert list(layout) == ["train", "valid", "test"]
    assert sum(map(len, who(layout).values())) == 10
    assert "by whole speakers: train 80, valid 10, test 10" in notes[0]


def test_a_split_that_is_there_stays():
    notes = []
    given_ = found(["z"] * 5)
    layout = with_cuts({"train": found([f"s{n}" for n in range(20)]), "test": given_}, SHARES, seed=0, notes=notes)
    assert layout["test"] is given_
    assert [len(part.utterances) for part in layout.values()] == [18, 2, 5]


def test_speakers_are_cut_through_where_the_own_splits_do_too():
    notes = []
    speakers = [f"s{n % 4}" for n in range(40)]
    layout = with_cuts({"train": found(speakers), "test": found(speakers)}, SHARES, seed=0, notes=notes)
    assert len(layout["valid"].utterances) == 4
    assert "the data's own splits share" in notes[0]


def test_unknown_speakers():
    notes = []
    layout = with_cuts({"train": found([None] * 50)}, SHARES, seed=0, notes=notes)
    assert Counter({split: len(part.utterances) for split, part in layout.items()}) == Counter(
        train=40, valid=5, test=5
    )
    assert "not known" in notes[0]


def test_parts_of_one_recording_stay_together():
    files = [f"{number // 5}.wav" for number in range(50)]
    layout = with_cuts({"train": found([None] * 50, files=files)}, SHARES, seed=0, notes=[])
    homes = [{each.name for each in part.utterances} for part in layout.values()]
    assert sum(map(len, homes)) == 10


def test_nothing_to_cut():
    layout = {"train": found(["a"])}
    assert with_cuts(layout, {"test": 0.0, "valid": 0.0}, seed=0, notes=[]) is layout
