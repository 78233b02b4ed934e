"""The laws of Columns, and what a codec gets without writing it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.codec import Codec, Columns, Context, Sample


@st.composite
def tables(draw: st.DrawFn, *, at_least: int = 0) -> Columns:
    """A table with a vector, a matrix and a list column, under ids that may repeat."""
    count = draw(st.integers(at_least, 6))
    numbers = draw(st.lists(st.integers(-5, 5), min_size=count, max_size=count))
    ragged = draw(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=count, max_size=count))
    ids = draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))
    matrix = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return Columns({"number": np.array(numbers, dtype=np.int64), "pair": matrix, "boxes": ragged}, np.array(ids))


def rows_of(table: Columns) -> list[tuple[Any, ...]]:
    """Each row as plain values, its id first."""
    columns = [[np.asarray(value).tolist() for value in table[name]] for name in sorted(table)]
    return list(zip(table.ids.tolist(), *columns, strict=True))


@given(tables())
def test_selecting_all_rows_changes_nothing(table: Columns) -> None:
    assert rows_of(table.select(list(range(table.rows)))) == rows_of(table)


@given(tables(at_least=1), st.data())
def test_selecting_gives_the_rows_that_were_asked_for_in_that_order(table: Columns, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.integers(0, table.rows - 1)))
    rows = rows_of(table)
    for index in (asked, np.array(asked, dtype=np.int64)):
        assert rows_of(table.select(index)) == [rows[i] for i in asked]


@given(tables(), st.data())
def test_a_mask_selects_the_rows_where_it_is_true(table: Columns, data: st.DataObject) -> None:
    mask = data.draw(st.lists(st.booleans(), min_size=table.rows, max_size=table.rows))
    kept = [row for row, keep in zip(rows_of(table), mask, strict=True) if keep]
    assert rows_of(table.select(np.array(mask, dtype=bool))) == kept


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 2 entries does not fit 3 rows"):
        Columns({"a": np.arange(3)}).select(np.array([True, False]))


@given(tables())
def test_sorting_orders_the_ids_and_keeps_the_order_of_equal_ones(table: Columns) -> None:
    assert rows_of(table.sorted()) == sorted(rows_of(table), key=lambda row: row[0])
    assert rows_of(table.sorted().sorted()) == rows_of(table.sorted())


@given(st.lists(tables(), min_size=1, max_size=4))
def test_joining_puts_the_rows_below_each_other(parts: list[Columns]) -> None:
    joined = Columns.join(parts)
    assert rows_of(joined) == [row for part in parts for row in rows_of(part)]
    assert isinstance(joined["boxes"], list)
    assert isinstance(joined["pair"], np.ndarray)


@given(tables(at_least=2), st.data())
def test_a_table_cut_in_two_is_whole_again_when_joined(table: Columns, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, table.rows))
    halves = [table.select(range(cut)), table.select(range(cut, table.rows))]
    assert rows_of(Columns.join(halves)) == rows_of(table)


def test_a_part_of_no_rows_does_not_fix_the_shape() -> None:
    empty = Columns({"pair": np.zeros((0,), dtype=np.float64)})
    full = Columns({"pair": np.ones((2, 3), dtype=np.float32)})
    joined = Columns.join([empty, full])["pair"]
    assert isinstance(joined, np.ndarray)
    assert joined.shape == (2, 3)
    assert joined.dtype == np.float32


def test_a_column_that_is_once_an_array_and_once_a_list_becomes_a_list() -> None:
    joined = Columns.join([Columns({"a": np.array([1, 2])}), Columns({"a": [[3]]})])
    assert joined["a"] == [1, 2, [3]]


def test_joining_refuses_nothing_and_parts_of_other_columns() -> None:
    with pytest.raises(ValueError, match="there is nothing to join"):
        Columns.join([])
    with pytest.raises(ValueError, match="different columns"):
        Columns.join([Columns({"a": [1]}), Columns({"b": [1]})])


@given(tables())
def test_side_by_side_holds_the_columns_of_both(table: Columns) -> None:
    other = Columns({"twice": table.array("number") * 2}, table.ids)
    both = table.beside(other)
    assert set(both) == {"number", "pair", "boxes", "twice"}
    assert both.ids.tolist() == table.ids.tolist()
    assert both.array("twice").tolist() == (2 * table.array("number")).tolist()


def test_side_by_side_refuses_other_samples_and_a_name_twice() -> None:
    table = Columns({"a": [1, 2]}, np.array([4, 5]))
    with pytest.raises(ValueError, match="different samples"):
        table.beside(Columns({"b": [1, 2]}, np.array([5, 4])))
    with pytest.raises(ValueError, match=r"both sides have a column \['a'\]"):
        table.beside(Columns({"a": [1, 2]}, np.array([4, 5])))


def test_ids_count_from_zero_when_left_out() -> None:
    table = Columns({"a": [7, 8, 9]})
    assert table.ids.tolist() == [0, 1, 2]
    assert table.ids.dtype == np.int64
    assert table.with_ids(np.array([3, 1, 2])).sorted()["a"] == [8, 9, 7]


def test_the_length_of_a_table_is_its_number_of_columns() -> None:
    table = Columns({"a": [1, 2, 3]})
    assert (len(table), table.rows) == (1, 3)
    assert (len(Columns({})), Columns({}).rows) == (0, 0)


@pytest.mark.parametrize("ids", [None, np.array([0, 1, 2])])
def test_columns_of_other_lengths_are_refused(ids: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="columns differ in length"):
        Columns({"a": [1, 2, 3], "b": [1]}, ids)


@pytest.mark.parametrize("column", [[[1, 2], [3, 4]], [[1], []], [np.zeros(2), np.ones(2)], ["a", "bc"], []])
def test_a_list_as_an_array_holds_one_object_per_row(column: list[Any]) -> None:
    boxed = Columns({"a": column}).array("a")
    assert boxed.shape == (len(column),)
    assert boxed.dtype == object
    assert all(got is given for got, given in zip(boxed, column, strict=True))


# Codec


@dataclass(frozen=True)
class Words(Codec):
    """Each raw text as one sample per word; the only codec here that splits."""

    width: int = 3
    letters: tuple[str, ...] = ("a", "b")
    joined: bool = False

    def prepare(self, raws: Sequence[Any]) -> list[Sample]:
        return [
            Sample({"codes": np.array([ord(letter) for letter in word])}, row, {"word": word})
            for row, raw in enumerate(raws)
            for word in raw.split()
        ]

    def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
        return Columns({"sum": outputs["sum"]})


def test_collating_stacks_the_samples_and_remembers_where_they_came_from() -> None:
    codec = Words()
    arrays, context = codec.collate(codec.prepare(["abc abd", "abe"]))
    assert arrays["codes"].tolist() == [[97, 98, 99], [97, 98, 100], [97, 98, 101]]
    assert context.rows.tolist() == [0, 0, 1]
    assert context.rows.dtype == np.int64
    assert [each["word"] for each in context.samples] == ["abc", "abd", "abe"]
    assert context.columns == {}


def test_a_codec_of_tables_hands_whole_columns_to_decode() -> None:
    @dataclass(frozen=True)
    class Doubled(Words):
        def batches(self, raws: Sequence[Any], *, size: int) -> Iterator[tuple[dict[str, np.ndarray], Context]]:
            yield {"sum": np.asarray(raws)}, Context(np.arange(len(raws)), columns={"name": np.asarray(raws) * 2})

        def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
            assert context is not None
            return Columns({**context.columns, "sum": outputs["sum"]})

    codec = Doubled()
    ((arrays, context),) = codec.batches([1, 2, 3], size=3)
    assert codec.decode(arrays, context).array("name").tolist() == [2, 4, 6]


def test_collating_samples_of_other_shapes_is_refused() -> None:
    codec = Words()
    with pytest.raises(ValueError, match="same shape"):
        codec.collate(codec.prepare(["ab abc"]))


def test_collating_nothing_gives_nothing() -> None:
    arrays, context = Words().collate([])
    assert arrays == {}
    assert context.rows.tolist() == []


def test_one_part_is_the_prediction_itself_and_several_need_a_merge() -> None:
    part = Columns({"sum": np.array([1.0])})
    assert Words().merge([part]) is part
    for parts in ([], [part, part]):
        with pytest.raises(ValueError, match="Words splits raw things but does not define merge"):
            Words().merge(parts)


@given(width=st.integers(), joined=st.booleans())
def test_a_codec_is_made_again_from_its_settings(width: int, joined: bool) -> None:
    codec = Words(width=width, joined=joined)
    assert Words(**codec.settings()) == codec
    assert json.loads(json.dumps(codec.settings())) == {"width": width, "letters": ["a", "b"], "joined": joined}


def test_a_codec_that_is_no_dataclass_must_say_its_settings() -> None:
    class Plain(Codec):
        def prepare(self, raws: Sequence[Any]) -> list[Sample]:
            return []

        def decode(self, outputs: Mapping[str, np.ndarray], context: Context | None) -> Columns:
            return Columns({})

    with pytest.raises(TypeError, match=r"Plain is no dataclass: define settings\(\)"):
        Plain().settings()


def test_a_codec_needs_numpy_alone() -> None:
    code = "import sys, modelwright.codec; print(*{'torch', 'yaml', 'pydantic'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
