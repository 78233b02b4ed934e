"""CSV of any usual kind and Parquet are read cell by cell, and what is broken is said with its line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import DataError
from modelwright_risk.files import Piece, find, split_in
from modelwright_risk.tables import Part, blocks, layout_of, read, records_of, rows_of

TEXT = "id,job\n1,clerk\n2,nurse\n"
ROWS = {"id": ["1", "2"], "job": ["clerk", "nurse"]}


def only(path: Path) -> Piece:
    ((_, (piece,)),) = find(str(path)).items()
    return piece


def part(tmp_path: Path, content: str | bytes, name: str = "a.csv") -> Part:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(only(path))


# Text ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace(",", "|"),
        TEXT.replace(",", "  "),
        TEXT.rstrip("\n"),
        "\ufeff" + TEXT,
        '"id","job"\n"1","clerk"\n"2","nurse"\n',
        "id, job\n1,clerk\n2,nurse\n",
        "\n\n" + TEXT,
    ],
)
def test_every_usual_kind_of_csv(tmp_path: Path, content: str) -> None:
    found = part(tmp_path, content)
    assert found.table.to_pydict() == ROWS
    assert found.records.tolist() == [0, 1]
    first = 4 if content.startswith("\n") else 2
    assert [found.where(record) for record in (0, 1)] == [f"{tmp_path}/a.csv:{first}", f"{tmp_path}/a.csv:{first + 1}"]


def test_cells_stay_as_they_are_written(tmp_path: Path) -> None:
    found = part(tmp_path, 'code;text;number\n007; a;1,5\n;"x;y";NA\n')
    assert found.table.to_pydict() == {"code": ["007", ""], "text": [" a", "x;y"], "number": ["1,5", "NA"]}


def test_a_column_without_a_name_is_called_as_pandas_does(tmp_path: Path) -> None:
    assert part(tmp_path, ",a\n0,1\n").table.column_names == ["Unnamed: 0", "a"]


def test_a_table_of_one_column(tmp_path: Path) -> None:
    assert part(tmp_path, "a\n1\n2\n").table.to_pydict() == {"a": ["1", "2"]}


def test_lines_are_right_below_quoted_ends_of_lines_and_empty_lines(tmp_path: Path) -> None:
    found = part(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\n')
    assert found.table.to_pydict() == {"a": ["1", "2"], "b": ["x\ny", "z"]}
    assert [found.where(record) for record in (0, 1)] == [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:5"]


def test_lines_of_too_many_or_too_few_cells_are_counted_and_left_out(tmp_path: Path) -> None:
    found = part(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert found.table.to_pydict() == {"a": ["1", "7"], "b": ["2", "8"]}
    assert found.records.tolist() == [0, 3]
    assert found.bad == ((1, "1 cells instead of 2"), (2, "3 cells instead of 2"))
    assert (found.size, found.where(3)) == (4, f"{tmp_path}/a.csv:5")


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=4)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from([",", ";", "\t"]))
def test_what_was_written_is_read(tmp_path_factory: Any, rows: list[tuple[str, str]], separator: str) -> None:
    text = "".join(
        separator.join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n" for row in [("a", "b"), *rows]
    )
    found = part(tmp_path_factory.mktemp("written"), text)
    assert list(zip(*found.table.to_pydict().values(), strict=True)) == rows


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "a.csv is empty: check data.path"),
        (b"\n \n", "a.csv is empty: check data.path"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "a.csv line 3: a quote is never closed; mend the line"),
        (b"a,b\n\xff,1\n", "a.csv line 2 is no UTF-8 text: save the file as CSV in UTF-8"),
        (b"a,b\n" + b"1,2\n" * 300_000 + b"\xff,1\n", "a.csv is no UTF-8 text: save the file as CSV in UTF-8"),
        (b"a,b,a\n1,2,3\n", "a.csv: its first line must name the columns, and 'a' stands there twice"),
        (b'a,b\n1,"2\n"x\n3,4\n', "a.csv line 2: .* expected after"),
    ],
)
def test_broken_text(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        part(tmp_path, content)


def test_rows_of_a_file_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a  b\n 1 2\n\n3   4\n", encoding="utf-8")
    assert list(rows_of(tmp_path / "a.csv")) == [
        (f"{tmp_path}/a.csv:2", {"a": "1", "b": "2"}),
        (f"{tmp_path}/a.csv:4", {"a": "3", "b": "4"}),
    ]


# Blocks of files that are too large ---------------------------------------------------------------------------------


def test_a_file_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TEXT, encoding="utf-8")
    assert pa.concat_tables(blocks(only(tmp_path / "a.csv"))).to_pydict() == ROWS
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "b.parquet")
    assert pa.concat_tables(blocks(only(tmp_path / "b.parquet"))).to_pydict() == {"a": list(range(10))}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n1,2\n3\n", "a.csv line 3 has 1 cells instead of 2"),
        ('a,b\n1,2\n3,"4\n5,6\n', "a.csv line 3: a quote is never closed"),
        ("a  b\n1 2\n", "a.csv is too large for cells separated by blanks: save it as CSV or Parquet"),
    ],
)
def test_broken_blocks(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        list(blocks(only(tmp_path / "a.csv")))


def test_an_end_of_line_in_the_last_cell_is_no_broken_quote(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b\n1,"x\ny"\n', encoding="utf-8")
    assert pa.concat_tables(blocks(only(tmp_path / "a.csv"))).to_pydict() == {"a": ["1"], "b": ["x\ny"]}


# Parquet, archives, folders -----------------------------------------------------------------------------------------


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, None], "b": ["x", "y"]}), tmp_path / "a.parquet")
    found = read(only(tmp_path / "a.parquet"))
    assert found.table.to_pydict() == {"a": [1, None], "b": ["x", "y"]}
    assert found.where(1) == f"{tmp_path}/a.parquet row 1"
    (tmp_path / "b.parquet").write_text("no", encoding="utf-8")
    with pytest.raises(DataError, match=r"b.parquet is no Parquet file \(.*\): check data.path"):
        read(only(tmp_path / "b.parquet"))


ARCHIVES = ("a.zip", "a.csv.zip", "a.tar", "a.tar.gz", "a.tar.xz")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "text") for name in ("a.csv.gz", "a.csv.xz", "a.csv.bz2", *ARCHIVES)),
        *((name, "parquet") for name in ARCHIVES),
    ],
)
def test_packed(tmp_path: Path, name: str, kind: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table(ROWS), buffer)
    data = TEXT.encode() if kind == "text" else buffer.getvalue()
    member = "sub/loans.csv" if kind == "text" else "loans.parquet"
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, data)
            archive.writestr("__MACOSX/._loans.csv", b"junk")
            archive.writestr("README.md", b"about")
    elif ".tar" in name:
        with tarfile.open(path, {"tar": "w", "gz": "w:gz", "xz": "w:xz"}[name.rpartition(".")[2]]) as tar:  # type: ignore[call-overload]
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    else:
        packer: Any = {"gz": gzip, "xz": lzma, "bz2": bz2}[name.rpartition(".")[2]]
        path.write_bytes(packer.compress(data))
    piece = only(path)
    assert read(piece).table.to_pydict() == ROWS
    assert piece.size() > 0
    if kind == "text":
        assert [line for line, _ in records_of(piece, layout_of(piece))] == [2, 3]


def test_files_of_a_folder_are_read_one_after_another(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", ".hidden.csv", "README.md", "split.csv"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    found = find(str(tmp_path), beside=str(tmp_path / "split.csv"))
    assert {split: [piece.path.name for piece in pieces] for split, pieces in found.items()} == {
        None: ["a.csv", "b.csv"]
    }


def test_files_named_after_splits_are_these(tmp_path: Path) -> None:
    for name in ("train-1.csv", "train-2.csv", "test.csv", "loans_val.csv"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
    for paths in (
        str(tmp_path),
        [str(tmp_path / name) for name in ("test.csv", "loans_val.csv", "train-1.csv", "train-2.csv")],
    ):
        found = find(paths)
        assert {split: [piece.path.name for piece in pieces] for split, pieces in found.items()} == {
            "train": ["train-1.csv", "train-2.csv"],
            "test": ["test.csv"],
            "valid": ["loans_val.csv"],
        }


@pytest.mark.parametrize(
    ("name", "split"), [("train.csv", "train"), ("Test.csv.gz", "test"), ("train-test.csv", None), ("latest.csv", None)]
)
def test_the_split_in_a_name(name: str, split: str | None) -> None:
    assert split_in(name) == split


def test_what_is_not_there_or_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv does not exist: check data.path"):
        find(str(tmp_path / "none.csv"))
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a.xlsx is a spreadsheet: save it as CSV"):
        find(str(tmp_path / "a.xlsx"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no table \(.csv, "):
        find(str(tmp_path / "empty"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt.png", b"")
    with pytest.raises(DataError, match=r"a.zip holds no table"):
        find(str(tmp_path / "a.zip"))
    (tmp_path / "b.zip").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"b.zip is a damaged archive \(.*\): get it again"):
        find(str(tmp_path / "b.zip"))
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(TEXT.encode())[:-12])
    with pytest.raises(DataError, match=r"c.csv.gz could not be read \(.*\): check the file"):
        read(only(tmp_path / "c.csv.gz"))
