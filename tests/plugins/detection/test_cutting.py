"""Splits cut from training pictures: a partition, of the shares asked for, fair to rare classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from modelwright.errors import DataError
from modelwright.stores import Folder
from modelwright_detection.cutting import cut, rarest
from modelwright_detection.entries import Entry, Marks


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6), st.floats(0.05, 0.4), st.floats(0.05, 0.4),
    st.integers(0, 2**40),
)  # fmt: skip
def test_a_cut_is_a_partition(counts, test, valid, seed):
    groups = np.repeat(np.arange(-1, len(counts) - 1), counts)
    try:
        rows = cut(groups, {"test": test, "valid": valid}, seed=seed)
    except DataError:  # few rows
        reject()
    assert list(rows) == ["train", "valid", "test"]
    assert sorted(np.concatenate(list(rows.values())).tolist()) == list(range(len(groups)))
    again = cut(groups, {"test": test, "valid": valid}, seed=seed)
    assert all(np.array_equal(rows[split], again[split]) for split in rows)
    for split, share in (("valid", valid), ("test", test)):
        assert abs(len(rows[split]) - share * len(groups)) < 1 + 1e-9
        for group, count in enumerate(counts, start=-1):
            assert abs((groups[rows[split]] == group).sum() - share * count) < 2.5


def test_the_seed_decides():
    groups = np.zeros(100, np.int64)
    cuts = [cut(groups, {"valid": 0.2}, seed=seed)["valid"] for seed in (0, 0, 1)]
    assert np.array_equal(cuts[0], cuts[1])
    assert not np.array_equal(cuts[0], cuts[2])


@pytest.mark.parametrize(
    ("count", "shares"), [(3, {"test": 0.1}), (4, {"test": 0.9, "valid": 0.1}), (1, {"test": 0.5})]
)
def test_too_few_pictures(count, shares):
    with pytest.raises(DataError, match=rf"^{count} pictures are too few for data.test=0.\d.*: add pictures"):
        cut(np.zeros(count, np.int64), shares, seed=3)


def test_the_rarest_class_of_a_picture(tmp_path):
    def entry(labels):
        boxes = np.zeros((len(labels or ()), 4))
        return Entry(Folder(tmp_path), "x", None if labels is None else Marks.of(boxes, labels, source="x"))

    entries = [entry(labels) for labels in ([0, 0, 1], [0], [], None, [0, 2], [1, 0])]
    assert rarest(entries).tolist() == [1, 0, -1, -1, 2, 1]
    assert rarest([]).tolist() == []
