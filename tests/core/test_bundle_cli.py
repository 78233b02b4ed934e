"""The commands of bundles as a user and a script meet them: export, predict, benchmark, evaluate."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright import cli_bundle
from modelwright.bundle import writing
from modelwright.bundle.runtime import sha256
from tests.core.installed import install
from tests.core.test_cli import Command

TOY_PLUGIN = """
from dataclasses import dataclass

from modelwright.codec import Collection, Format
from modelwright.hookspecs import hookimpl
from modelwright.testing.toy_codec import ToyCodec


@dataclass(frozen=True)
class Writes(ToyCodec):
    def formats(self):
        return {"best": Format("the likeliest", self.best), "counted": Collection("how many", self.counted)}

    def counted(self, predictions):
        return " ".join(name for name, row in predictions if row.rows == 1)

    def best(self, name, raw, row):
        return f"../{raw[0]}.txt", str(row.array("probabilities").argmax()).encode()


@dataclass(frozen=True)
class Says(ToyCodec):
    def records(self, predictions):
        return [{"label": "a", "share": 0.123456, "all": {"a": 1, "b": [2]}} for _ in range(predictions.rows)]


@hookimpl
def modelwright_tasks():
    from modelwright.testing.toy import TOY  # imports torch, which predict must not

    yield TOY
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("installed") / "site"
    install(site, "paintbox", TOY_PLUGIN)
    return site


@pytest.fixture
def command(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_bundle, "SECONDS", 0.01)
    yield Command(monkeypatch, capsys)
    sys.modules.pop("modelwright_paintbox", None)


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    """A copy in the present folder, to be changed; beside it some files of points."""
    (tmp_path / "points" / "more").mkdir(parents=True)
    (tmp_path / "points" / "a.csv").write_text("0.1,0.2\n0.5,-0.3\n")
    (tmp_path / "points" / "more" / "B.CSV").write_text("0.9,0\n")
    (tmp_path / "points" / ".hidden.csv").write_text("1,1\n")
    (tmp_path / "points" / "notes.txt").write_text("no points")
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def speak(bundle: Path, kind: str) -> None:
    """Puts another codec into a bundle."""
    (bundle / "codec.json").write_text(json.dumps({"codec": f"modelwright_paintbox:{kind}", "settings": {}}))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["codec.json"] = sha256(bundle / "codec.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest))


# Predict --------------------------------------------------------------------------------------------------------------


def test_files_folders_and_patterns_are_answered_line_by_line(command, bundle):
    told = command("predict", "bundle", "points", "points/*.csv", "--format", "jsonl")
    assert (told.code, told.err) == (0, "")
    rows = [json.loads(line) for line in told.out.splitlines()]
    names = ["points/a.csv:1", "points/a.csv:2", "points/more/B.CSV:1", "points/a.csv:1", "points/a.csv:2"]
    assert [row["name"] for row in rows] == names
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in rows)


def test_a_list_of_paths_is_read_from_stdin(command, bundle, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("points/a.csv\n\npoints/more\n"))
    assert len(command("predict", "bundle", "-", "--format", "jsonl").out.splitlines()) == 3


def test_what_is_bad_is_marked_and_told_and_the_others_are_answered(command, bundle):
    Path("points/a.csv").write_text("0.1,0.2\nx,1\n0.5,-0.3\n")
    Path("points/bad.csv").write_bytes(b"\xff\xfe\xff")
    paths = ["points/a.csv", "nowhere.csv", "points/bad.csv", "no*.csv", "empty"]
    Path("empty").mkdir()
    told = command("predict", "bundle", *paths, "--format", "jsonl")
    assert told.code == 1
    rows = [json.loads(line) for line in told.out.splitlines()]
    assert [row["name"] for row in rows if "probabilities" in row] == ["points/a.csv:1", "points/a.csv:3"]
    bad = {row["name"]: row["error"] for row in rows if "error" in row}
    assert set(bad) == {"points/a.csv:2", *paths[1:]}
    lines = told.err.splitlines()
    assert lines[0] == "modelwright: points/a.csv:2: ['x', '1'] is no point: give two numbers"
    assert lines[1:] == [f"modelwright: {bad[path]}" for path in paths[1:]]
    for path, said in zip(
        paths[1:], ["no file nowhere", "cannot be read", "no file is called", "holds no"], strict=True
    ):
        assert said in bad[path]


def test_a_table_shows_what_fits_and_says_what_failed(command, bundle):
    speak(bundle, "Says")
    told = command("predict", "bundle", "points/more", "gone.csv")
    words = told.out.split()
    assert words[:3] == ["name", "label", "share"]
    assert "0.1235" in words
    assert "failed: there is no file gone.csv: check the path" in told.out
    assert "{" not in told.out


def test_a_csv_has_a_column_for_each_value(command, bundle):
    speak(bundle, "Says")
    told = command("predict", "bundle", "gone.csv", "points/more", "--format", "csv")
    rows = list(csv.reader(io.StringIO(told.out)))
    assert rows == [
        ["name", "label", "share", "all.a", "all.b", "error"],
        ["gone.csv", "", "", "", "", "there is no file gone.csv: check the path"],
        ["points/more/B.CSV:1", "a", "0.123456", "1", "[2]", ""],
    ]


def test_predictions_go_to_a_file_that_is_not_overwritten_unasked(command, bundle):
    line = ("predict", "bundle", "points/more", "--format", "csv", "--out", "said.csv")
    told = command(*line)
    assert (told.code, told.out, told.err) == (0, "", "")
    assert Path("said.csv").read_text().startswith("name,probabilities,error\npoints/more/B.CSV:1,")
    assert command.fails(*line).startswith("said.csv exists already; choose another --out")
    assert command(*line, "--overwrite").code == 0
    assert command.fails(*line[:-1], "points").startswith("points exists already")
    assert command.fails(*line[:-1], "nowhere/said.csv").startswith("there is no folder nowhere")


def test_a_format_of_the_codec_makes_a_file_for_each_thing(command, bundle):
    speak(bundle, "Writes")
    line = ("predict", "bundle", "points", "--format", "best")
    assert command.fails(*line) == "the format 'best' makes files: give their folder with --out DIR"
    told = command(*line, "--out", "said/here")
    assert (told.code, told.err) == (0, "")
    written = sorted(path.name for path in Path("said/here").iterdir())
    assert written == ["0.1.txt", "0.5.txt", "0.9.txt"]  # never outside the folder, whatever a codec says
    assert told.out.splitlines() == [f"said/here/{name}" for name in written]
    told = command(*line, "--out", "said/here")
    assert (told.code, told.out, len(told.err.splitlines())) == (1, "", 3)
    assert "0.1.txt is not written: it exists already, add --overwrite" in told.err
    told = command("predict", "bundle", "points/a.csv", "points/a.csv", *line[3:], "--out", "said/here", "--overwrite")
    assert told.code == 1
    assert "0.1.txt is not written: two things have that name" in told.err
    assert command.fails(*line, "--out", "points/a.csv").startswith("points/a.csv cannot be made")


def test_a_collection_of_the_codec_makes_one_text_of_all(command, bundle):
    speak(bundle, "Writes")
    line = ("predict", "bundle", "points/more", "gone.csv", "points/more", "--format", "counted")
    told = command(*line)
    assert (told.code, told.out) == (1, "points/more/B.CSV:1 points/more/B.CSV:1\n")
    assert "there is no file gone.csv" in told.err
    assert command(*line, "--out", "all.txt").out == ""
    assert Path("all.txt").read_text() == told.out
    assert command.fails(*line, "--out", "all.txt").startswith("all.txt exists already")


def test_a_format_that_is_not_there_is_refused(command, bundle):
    said = command.fails("predict", "bundle", "points", "--format", "cvs")
    assert said == "there is no format 'cvs' (did you mean 'csv'?); there are: table, jsonl, csv"


def test_what_is_no_bundle_is_refused(command, tmp_path):
    assert command.fails("predict", "nowhere", "x").startswith("nowhere is no bundle: it has no manifest.json")
    assert command.fails("benchmark", "nowhere").startswith("nowhere is no bundle")
    assert "Missing argument 'PATHS...'" in command.refuses("predict", "nowhere")


@pytest.mark.parametrize("line", [["predict", "bundle", "points"], ["benchmark", "bundle"]])
def test_no_torch_comes_in(bundle, tmp_path, line):
    code = (
        "import sys; from modelwright import cli, cli_bundle; cli_bundle.SECONDS = 0.01\n"
        f"sys.argv = ['modelwright', *{line}]\n"
        "try: cli.main()\n"
        "except SystemExit as left: print(left.code)\n"
        "print(*sorted({'torch', 'pandas', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.endswith("\n0\n\n"), done


# Benchmark ------------------------------------------------------------------------------------------------------------


def test_a_benchmark_says_what_was_measured_where(command, bundle):
    found = command("benchmark", "bundle", "--threads", "1", "--json").object
    assert (found["task"], found["variant"], found["threads"]) == ("toy", "original", 1)
    assert found["processor"]
    assert found["runtime"].startswith("ONNX Runtime ")
    assert [row["batch"] for row in found["latency"]] == [1, 32]
    for row in found["latency"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["samples_per_second"] == pytest.approx(1000 * row["batch"] / row["p50_ms"])
        assert row["runs"] >= 20
    told = command("benchmark", "bundle")
    assert "samples/s" in told.out
    assert "threads" in told.out.splitlines()[-1]
    assert "--threads" in command.refuses("benchmark", "bundle", "--threads", "0")


# Export and evaluate --------------------------------------------------------------------------------------------------


def test_export_writes_into_the_run_and_says_where(command, toy_run, toy_bundle, tmp_path, monkeypatch):
    def copy(task: object, model: object, dataset: object, target: Path, **further: object) -> None:
        shutil.copyfile(toy_bundle / "model.onnx", target)

    monkeypatch.setattr(writing, "write_graph", copy)
    shutil.copytree(toy_run, tmp_path / "run")
    told = command("export", "run")
    assert (told.code, told.out, told.err) == (0, "run/bundle\n", "")
    assert command.fails("export", "run").startswith("run/bundle exists already")
    assert command("export", "run", "--overwrite").code == 0
    assert command("export", "run", "--out", "other").out == "other\n"
    assert "has no variant 'tiny'" in command.fails("export", "run", "--variant", "tiny")
    assert command.fails("export", "nowhere").startswith("there is no run folder nowhere")


def test_a_bundle_a_variant_and_a_run_score_alike(command, toy_run, bundle, tmp_path):
    shutil.copytree(toy_run, tmp_path / "run")
    found = [
        command("evaluate", *line, "--split", "valid", "--json").object
        for line in (["run"], ["bundle"], ["run", "--variant", "original"])
    ]
    assert found[0]["task"] == "toy"
    assert found[0]["metrics"]["accuracy"]["low"] is not None
    assert found[1] == found[2] == found[0]
    assert "accuracy" in command("evaluate", "bundle").out
    assert "has no variants" in command.fails("evaluate", "bundle", "--variant", "original")
    assert "has no variant 'tiny'" in command.fails("evaluate", "run", "--variant", "tiny")
