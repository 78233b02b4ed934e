"""docs/how-do-i.md: every block is a module that runs, and does what its section says, beside the guide's plugin."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.authors.blocks import blocks_of
from tests.authors.test_guide import DOCS, files
from tests.core.conftest import Point
from tests.third_party.outside import Outside

import modelwright as mw
from modelwright.errors import BundleError, ConfigError, DataError
from modelwright.events import StepDone
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import discover
from modelwright.testing.kit import all_checks, check_task

BLOCKS = {block.heading: block.text for block in blocks_of(DOCS / "how-do-i.md") if block.kind == "python"}
SIZES = "Give samples targets of different sizes"
INPUTS = "Feed a model several inputs"
LOSS = "Keep state in a loss"
FIGURES = "Put figures of my own into the report"
TASKS = "Offer several tasks in one distribution"
TRACKER = "Send the numbers of a run to a tracker"
SCHEDULE = "Use a schedule of my own"
GROUPS = "Train parts of a model at rates of their own"
LARGE = "Read data that are too large for memory"
RESIDENT = "Read data that fit into memory faster"
PRETRAINED = "Start from pretrained weights"
WINDOWS = "Split a long raw thing into windows"
TAUGHT = "Offer distillation and say what may be pruned"
CAREFUL = "Find a threshold after training and say why"
STAGE = "Add a stage of compression"
RUNTIME = "Write graphs for another runtime"
SPOKEN = "Read files and say predictions in my own words"
EMPTY = "Say what a sample with nothing in it is"
EXPECTED = "Expect a check to fail"
CLASSES = {
    SIZES: "MixedTask",
    INPUTS: "TaskWithLength",
    LOSS: "TemperedTask",
    FIGURES: "IllustratedTask",
    SCHEDULE: "ScheduledTask",
    GROUPS: "GentleTask",
    LARGE: "LinesTask",
    RESIDENT: "ResidentTask",
    PRETRAINED: "PretrainedTask",
    WINDOWS: "WindowTask",
    TAUGHT: "TaughtTask",
    CAREFUL: "CarefulTask",
    SPOKEN: "SpokenTask",
    EMPTY: "TaskWithEmpty",
}
ELSEWHERE = ("entry_imports_no_torch", "codec_round_trips", "ranks_agree")
"""Checks that start processes or ask who is installed: a module in a test's folder is not. test_guide runs them."""


class Page:
    """The guide's plugin on the import path, and the blocks as modules beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    def module(self, heading: str) -> ModuleType:
        name = re.sub(r"\W+", "_", f"how do i {heading}".lower())
        (self.folder / f"{name}.py").write_text(BLOCKS[heading], encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def entry(self, heading: str) -> TaskEntry:
        """The task of a section, as a plugin would offer it."""
        config = importlib.import_module("modelwright_language.config").LanguageConfig
        kind = getattr(self.module(heading), CLASSES[heading])
        recipes = self.folder / "modelwright_language" / "recipes"
        return TaskEntry("text-language", "of the guide", config=config, build=kind, recipes=recipes)

    def train(self, heading: str, **further: Any) -> mw.Run:
        settings = {"train.epochs": 1, "evaluate.resamples": 0, "observers": [], **further.pop("settings", {})}
        return mw.train(
            "text-language",
            recipe="kit",
            settings=settings,
            out=further.pop("out", self.folder / "run"),
            catalog=discover([Point("language", self.entry(heading)), *further.pop("beside", [])]),
            warn=further.pop("warn", lambda line: None),
            **further,
        )

    def lines(self, *, train: str = "") -> Path:
        """A folder of lines for the section on large data. `train`: the training file, if not the usual one."""
        data = importlib.import_module("modelwright_language.data")
        pairs = data.make_sentences(120, seed=0)
        written = [f"{data.LANGUAGES[label]}\t{text}\n" for text, label in pairs]
        folder = self.folder / "lines"
        folder.mkdir()
        (folder / "train.tsv").write_text(train or "".join(written[:80]), encoding="utf-8")
        (folder / "valid.tsv").write_text("".join(written[80:]), encoding="utf-8")
        return folder


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Page(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(("modelwright_language", "how_do_i")):
            del sys.modules[name]


def test_every_section_has_a_block_and_a_test():
    text = (DOCS / "how-do-i.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == list(BLOCKS)
    assert set(headings) == {*CLASSES, TASKS, TRACKER, STAGE, RUNTIME, EXPECTED}
    listed = re.findall(r"^- \[(.*)\]", text, flags=re.MULTILINE)
    assert [heading.lower() for heading in headings] == listed


@pytest.mark.parametrize("heading", CLASSES)
def test_the_task_of_a_section_keeps_the_contract(page: Page, heading: str):
    settings = {"data.path": str(page.lines())} if heading == LARGE else {}
    only = [check for check in all_checks() if check not in ELSEWHERE]
    results = check_task(page.entry(heading), only=only, settings=settings)
    assert [result for result in results if not result.good] == []
    empty = {result.check: result.outcome for result in results}["nothing_to_find_is_a_sample"]
    assert empty == ("passed" if heading == EMPTY else "not offered")


def test_targets_of_different_sizes_are_scored(page: Page):
    run = page.train(SIZES, settings={"train.epochs": 25})
    assert run.metrics["exact"].value > 0.5


def test_several_inputs_reach_the_model_and_are_learned_from(page: Page):
    run = page.train(INPUTS)
    (last,) = (run.folder / "checkpoints").glob("last-*")
    assert load_file(last / "model.safetensors")["by_length.weight"].shape == (4, 1)


def test_a_threshold_is_found_and_kept_and_the_lead_is_told(page: Page):
    run = page.train(CAREFUL)
    settled = json.loads((run.folder / "facts.json").read_text())["settled"]
    assert 0 < settled["least"] < 1
    careful = page.module(CAREFUL)
    codec = careful.CarefulCodec(("german", "english"), **settled)
    said = codec.explain({"logits": np.array([[9.0, 0.0], [0.1, 0.0]]), "ahead": np.array([9.0, 0.1])}, None)
    assert said["ahead"].tolist() == [9.0, 0.1]
    assert said["sure"].tolist() == [True, settled["least"] <= 0.525]


def test_a_loss_keeps_its_count_and_its_temperature(page: Page):
    run = page.train(LOSS)
    newest = max((run.folder / "checkpoints").glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    assert '"calls": 6' in json.dumps(state)  # 84 texts, 16 at a time
    assert float(load_file(newest / "model.safetensors")["criterion.temperature"]) != 1.0


def test_own_figures_are_in_the_report(page: Page):
    run = page.train(FIGURES)
    assert (run.folder / "figures" / "test-confidence.svg").is_file()
    assert "How sure it is" in run.report.read_text(encoding="utf-8")


def test_several_tasks_come_from_one_distribution(page: Page):
    (page.folder / "modelwright_language" / "mixed.py").write_text(BLOCKS[SIZES], encoding="utf-8")
    (page.folder / "modelwright_language" / "__init__.py").write_text(BLOCKS[TASKS], encoding="utf-8")

    class Two:
        name = "language"

        def load(self) -> Any:
            return importlib.import_module("modelwright_language")

    catalog = discover([Two()])
    assert catalog.failures == []
    assert sorted(catalog.tasks) == ["text-language", "text-languages"]
    built = {name: type(entry.build(entry.config())).__name__ for name, entry in catalog.tasks.items()}
    assert built == {"text-language": "LanguageTask", "text-languages": "MixedTask"}


def test_a_tracker_is_told_of_each_evaluation(page: Page):
    tracker = page.module(TRACKER)

    class Tracker:
        name = "tracker"

        def load(self) -> Any:
            return tracker

    run = page.train(FIGURES, settings={"observers": ["csv"], "train.epochs": 2}, beside=[Tracker()])
    with (run.folder / "scores.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["6", "12"]


def test_an_own_schedule_sets_the_rate(page: Page):
    rates: list[float] = []

    def observe(event: Any) -> None:
        if isinstance(event, StepDone):
            rates.append(event.lr)

    chosen = {"train.schedule.name": "triangle", "train.log_every": 1, "train.steps": 8}
    page.train(SCHEDULE, settings=chosen, observer=observe)
    assert len(rates) == 8
    assert max(rates) == pytest.approx(0.01)
    assert rates[0] < rates[2] < rates[4] > rates[6]


def test_embeddings_learn_at_a_tenth_of_the_rate(page: Page):
    entry = page.entry(GROUPS)
    task = entry.build(entry.config())
    task.facts = task.find_facts(task.datasets())
    model = task.model()
    *others, gentle = task.groups(model)
    assert gentle["lr"] == pytest.approx(1e-4)
    parameters = [p for group in [*others, gentle] for p in group["params"]]
    assert {id(p) for p in parameters} == {id(p) for p in model.parameters()}
    assert len(parameters) == len(list(model.parameters()))
    page.train(GROUPS)


def test_data_on_disk_are_read_by_workers_and_a_bad_line_is_named(page: Page):
    folder = page.lines()
    run = page.train(LARGE, settings={"data.path": str(folder), "train.workers": 1})
    assert run.results["data"]["train"] == 80
    shutil.rmtree(folder)
    bad = page.lines(train="german\tund das\nklingon\tnuqneH\n")
    with pytest.raises(DataError, match=r"train.tsv, line 2: unknown language 'klingon'"):
        page.train(LARGE, settings={"data.path": str(bad)}, out=page.folder / "bad")


def weights(run: mw.Run) -> dict[str, torch.Tensor]:
    (last,) = (run.folder / "checkpoints").glob("last-*")
    return load_file(last / "model.safetensors")


def test_whole_batches_give_the_same_weights_as_single_samples(page: Page):
    fast = weights(page.train(RESIDENT))
    slow = weights(page.train(FIGURES, out=page.folder / "slow"))
    assert all(torch.equal(value, slow[name]) for name, value in fast.items())


def test_a_run_starts_from_pretrained_weights_and_says_so(page: Page, said: Callable[[str], None]):
    first = page.train(PRETRAINED)
    (last,) = (first.folder / "checkpoints").glob("last-*")
    source = {"model.pretrained": str(last / "model.safetensors")}
    page.train(PRETRAINED, settings=source, out=page.folder / "second", warn=said)
    assert any("5 of 5 tensors taken over" in line for line in said.lines)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.safetensors"):
        page.train(PRETRAINED, settings={"model.pretrained": "nowhere.safetensors"}, out=page.folder / "third")


@pytest.fixture
def said() -> Callable[[str], None]:
    """Something to warn; keeps the lines."""

    def keep(line: str) -> None:
        keep.lines.append(line)  # type: ignore[attr-defined]

    keep.lines = []  # type: ignore[attr-defined]
    return keep


def test_windows_count_as_one_text(page: Page):
    run = page.train(WINDOWS)
    (tested,) = [each for each in run.results["evaluations"] if each["split"] == "test"]
    assert tested["samples"] == 18
    codec = page.module(WINDOWS).WindowCodec(("a", "b"))
    assert [sample.row for sample in codec.prepare(["0123456789abc", "x"])] == [0, 0, 1]


def test_an_own_stage_is_measured_like_any_other(page: Page):
    stage = page.module(STAGE)

    class Rounding:
        name = "rounding"

        def load(self) -> Any:
            return stage

    run = page.train(TAUGHT)
    catalog = discover([Point("language", page.entry(TAUGHT)), Rounding()])
    recipe = [
        {"stage": "prune", "keep": 0.5, "train": None},
        {"stage": "distill", "train": {"steps": 2}},
        {"stage": "round", "digits": 1},
    ]
    with pytest.raises(ConfigError, match=r"stage round: unknown setting digit \(did you mean 'digits'\?\)"):
        mw.compress(run, recipe=[{"stage": "round", "digit": 1}], catalog=catalog)
    found = mw.compress(run, recipe=recipe, catalog=catalog, warn=lambda line: None)
    assert found.names == ["custom-1-prune", "custom-2-distill", "custom-3-round"]
    assert found.receipt["notes"]["digits"] == 1
    assert found.receipt["parameters"]["ratio"] < 0.9
    kept = load_file(run.folder / "variants" / "custom-3-round" / "model.safetensors")["triples.weight"]
    assert kept.shape[0] == 16
    assert torch.equal(kept, torch.round(kept, decimals=1))


def test_an_own_runtime_says_what_the_model_says(page: Page):
    runtime = page.module(RUNTIME)

    class Reference:
        name = "reference"

        def load(self) -> Any:
            return runtime

    run = page.train(TAUGHT)
    catalog = discover([Point("language", page.entry(TAUGHT)), Reference()])
    bundle = mw.export(run, runtime="reference", catalog=catalog, warn=lambda line: None)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["runtime"] == "ONNX reference on the CPU"
    assert manifest["agreement"]["gap"] < 1e-3
    plugins = [SimpleNamespace(value=name) for name in ("modelwright_language", runtime.__name__)]
    opened = mw.Bundle.load(bundle, plugins=plugins)
    assert isinstance(opened.graph, runtime.ReferenceGraph)
    assert opened.predict("und das")["confidence"] > 0
    with pytest.raises(
        BundleError, match=r"the reader how_do_i.* belongs to 'how_do_i.*', which is no installed plugin"
    ):
        mw.Bundle.load(bundle, plugins=plugins[:1])


def test_predictions_are_said_in_own_words(page: Page, tmp_path: Path):
    codec = page.module(SPOKEN).SpokenCodec(("english", "german"))
    (tmp_path / "two.txt").write_text("und das\nthe end\n", encoding="utf-8")
    read = list(codec.read(tmp_path / "two.txt"))
    assert [text for _, text in read] == ["und das", "the end"]
    assert read[1][0].endswith("two.txt:2")
    said = codec.decode({"logits": np.array([[0.0, 3.0], [9.0, 0.0]])}, None)
    assert codec.records(said)[0] == {"language": "german", "confidence": 0.953}
    name, content = codec.formats()["marked"].write("two", "und das", said.select([0]))
    assert (name, content) == ("two.txt", b"und das (95%)")


def test_a_check_that_is_expected_to_fail_is_shown_as_such(tmp_path: Path):
    project = tmp_path / "project"
    for name, text in files().items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text.replace('reduction="sum"), len(batch)', 'reduction="mean"), 1.0'))
    (project / "tests" / "test_contract.py").write_text(BLOCKS[EXPECTED])
    outside = Outside(tmp_path / "site")
    outside.build_and_install(project)
    chosen = "losses_add_up or name_is_valid"
    done = outside.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "tests", cwd=project)
    assert re.search(r"1 passed, \d+ deselected, 1 xfailed", done.stdout), done.stdout
