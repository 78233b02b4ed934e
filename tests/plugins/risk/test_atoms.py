from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright_risk.atoms import Atoms


def test_pieces_are_edges_and_what_lies_between() -> None:
    atoms = Atoms.of(np.array([0, 0, 2, 5]))
    assert atoms.edges.tolist() == [0, 2, 5]
    assert atoms.cells == [-0.5, 0, 1, 2, 3.5, 5, 8]


def test_special_codes_stand_for_no_piece() -> None:
    atoms = Atoms.of(np.array([94.0, 96, 98]), avoid=(96, 97))
    assert not {96.0, 97.0} & set(atoms.cells)


@pytest.mark.parametrize(
    ("worth", "words"),
    [
        ([1, 1, 2, 2, 3], ["up to 0", "above 0 to 2", "above 2"]),
        ([1, 2, 2, 3, 3], ["below 0", "0 to below 2", "2 and more"]),
        ([1, 2, 2, 2, 3], ["below 0", "0 to 2", "above 2"]),
        ([1, 1, 2, 3, 3], ["up to 0", "between 0 and 2", "2 and more"]),
        ([1, 2, 3, 3, 3], ["below 0", "0", "above 0"]),
        ([1, 1, 1, 1, 1], ["any"]),
    ],
)
def test_neighbours_of_equal_worth_are_one_bin(worth: list[float], words: list[str]) -> None:
    atoms = Atoms.of(np.array([0, 2]))
    groups = atoms.grouped(np.array(worth, dtype=np.float64))
    assert [atoms.words(group) for group in groups] == words


def test_values_find_their_bin() -> None:
    atoms = Atoms.of(np.array([0, 2]))
    groups = [[0, 1], [2], [3, 4]]
    values = np.array([-7, 0, 1, 2, 3, np.nan], dtype=np.float32)
    assert atoms.place(values, groups)[:-1].tolist() == [0, 0, 1, 2, 2]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=12))
def test_each_cell_is_out_of_its_own_piece(edges: list[float]) -> None:
    atoms = Atoms.of(np.array(edges, dtype=np.float32))
    single = [[piece] for piece in range(len(atoms.cells))]
    assert len(single) == 2 * len(atoms.edges) + 1
    found = atoms.place(np.array(atoms.cells, dtype=np.float32), single).tolist()
    for piece, place in enumerate(found):
        # Between neighbouring floats there is nothing; the piece before stands for it.
        assert place == piece or (place == piece - 1 and piece % 2 == 0)
    assert all(one <= two for one, two in itertools.pairwise(atoms.cells))
