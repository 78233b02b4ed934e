"""The bad value of a target is found where that is unmistakable, and asked for where it is not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from modelwright.errors import ConfigError, DataError
from modelwright_risk.targets import outcome


def read(cells: list[Any], **options: Any) -> tuple[list[bool], tuple[str, str]]:
    found = outcome(pa.chunked_array([pa.array(cells)]), "ended", bad=options.pop("bad", None), **options)
    assert found.known.tolist() == [cell not in (None, "", "NA") for cell in cells]
    return found.bad.tolist(), found.names


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        ([0, 1, None], ("1", "0")),
        ([0.0, 1.0, None], ("1", "0")),
        (["0", "1", ""], ("1", "0")),
        (["0.0", "1.0", "NA"], ("1.0", "0.0")),
        ([False, True, None], ("true", "false")),
        (["No", "Yes", None], ("Yes", "No")),
        (["good", "BAD", ""], ("BAD", "good")),
        (["paid", "default", ""], ("default", "paid")),
    ],
)
def test_unmistakable_targets(cells: list[Any], names: tuple[str, str]) -> None:
    assert read(cells) == ([False, True, False], names)


@pytest.mark.parametrize(
    ("cells", "bad", "names"),
    [
        (["1", "2"], 2, ("2", "1")),
        (["1", "2"], "2", ("2", "1")),
        (["1", "2"], 2.0, ("2", "1")),
        (["1.0", "2.0"], "2", ("2.0", "1.0")),
        (["+", "-"], "-", ("-", "+")),
        (["no", "yes"], True, ("yes", "no")),
        (["yes", "no"], False, ("no", "yes")),
        (["Fully Paid", "charged off"], "Charged Off", ("charged off", "Fully Paid")),
        ([1, 0], "0", ("0", "1")),
    ],
)
def test_the_bad_value_as_people_write_it(cells: list[Any], bad: Any, names: tuple[str, str]) -> None:
    assert read(cells, bad=bad) == ([False, True], names)


@pytest.mark.parametrize(
    ("cells", "bad", "kind", "told"),
    [
        (["1", "1"], None, DataError, r"ended has one value only \(1\) in 2 rows: both outcomes are needed"),
        (["1", "2", "3"], None, DataError, r"ended has 3 values \(1, 2, 3\): two are needed; check data.target"),
        (["", "NA"], None, DataError, "ended has no value in any of 2 rows"),
        (["1", "2"], None, ConfigError, "ended is 1 or 2: say which means default, data.bad=2"),
        (["a", "b"], "c", ConfigError, "data.bad=c is no value of the target ended, which is a or b"),
    ],
)
def test_targets_that_cannot_be_used(cells: list[Any], bad: Any, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        read(cells, bad=bad)


def test_a_known_target_may_have_one_value_but_no_third() -> None:
    assert read(["1"], names=("1", "0")) == ([True], ("1", "0"))
    with pytest.raises(DataError, match=r"ended is '2' in a row, and 0 \(good\) or 1 \(bad\) else: mend it"):
        read(["1", "2"], names=("1", "0"))
