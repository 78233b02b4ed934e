"""The report: what the page says of a run, whatever the run folder holds. Knows no trainer and no plugin."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as MatplotlibFigure

from modelwright.errors import RunError
from modelwright.report.curves import learning_curves
from modelwright.report.figures import save_figures
from modelwright.report.page import write_report
from modelwright.report.run_folder import read_run
from modelwright.task import Figure, Recording


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self._cell = False
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("th", "td", "li", "h1"):
            self._cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td", "li", "h1"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._cell:
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == "img"]


def score(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def results(**over: Any) -> dict[str, Any]:
    metrics = {
        "loss": score(0.7),
        "accuracy": score(0.7432, 0.7346, 0.7518),
        "f1/cat": score(0.61),
        "recall/cat": score(0.5),
    }
    return {
        "task": "toy",
        "objective": {"metric": "accuracy", "goal": "max"},
        "training": {
            "steps": 1200, "epochs": 4, "seconds": 350.0, "cpu_seconds": 371.2, "parameters": 62006,
            "reason": "completed",
        },
        "data": {"train": 45000, "valid": None, "test": 10000, "notes": ["2 samples were skipped"]},
        "evaluations": [{"split": "test", "samples": 10000, "weights": "best", "metrics": metrics}],
        **over,
    }  # fmt: skip


def events() -> list[dict[str, Any]]:
    start = {
        "event": "run_started",
        "step": 0,
        "task": "toy",
        "steps": 40,
        "epochs": 4,
        "objective": "accuracy",
        "goal": "max",
    }
    steps = [
        {"event": "step", "step": s, "epoch": s / 10, "loss": 1 / s, "parts": {"a": 0.1, "b": 0.2}, "lr": 0.1}
        for s in (5, 10, 20)
    ]
    scored = [
        {"event": "evaluation", "step": s, "epoch": s / 10, "split": "valid", "best": s == 10,
         "metrics": {"loss": 0.5, "accuracy": 0.9 - s / 100, "f1/cat": 0.5}} for s in (10, 20)
    ]  # fmt: skip
    return [start, *steps, *scored]


def write(
    folder: Path, *, results: Any = None, events: list[dict[str, Any]] | None = None, environment: Any = None
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(
        "# toy, modelwright 0.1.0\nseed: 0\nevaluate:\n  level: 0.9\n", encoding="utf-8"
    )
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if events is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    if environment is not None:
        (folder / "environment.json").write_text(json.dumps(environment), encoding="utf-8")
    return folder


ENVIRONMENT = {
    "modelwright": "0.1.0", "task": "toy", "command": "modelwright train toy", "python": "3.11.7", "device": "cpu",
    "packages": {"torch": "2.14.1"}, "started": "2026-11-23T17:00:00+01:00",
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "my run", results=results(), events=events(), environment=ENVIRONMENT)


def picture(name: str, *, caption: str = "", points: int = 2) -> Figure:
    figure = MatplotlibFigure(figsize=(2, 2))
    noise = np.random.default_rng(0).random(points)
    figure.add_subplot().scatter(noise, noise[::-1])
    return Figure(name, f"The {name}", caption, figure)


# What the page says


def test_the_page_says_what_a_reader_asks(run: Path) -> None:
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    assert "my run" in page.cells
    assert "Started 23 November 2026, 16:00 UTC" in page.text
    assert (
        "On 10,000 held-out test samples the model reaches accuracy 0.7432 (higher is better); from that many samples "
        "the true value is known only to lie about between 0.7346 and 0.7518 (90 % interval)." in page.text
    )
    assert "5 min 50 s" in page.text
    assert "62,006" in page.text
    assert "2 samples were skipped" in page.cells
    assert "seed: 0" in page.text
    assert "2.14.1" in page.cells
    for heading in ("Loss", "Accuracy", "Parts of the loss", "Learning rate"):
        assert heading in page.texts


def test_the_commands_that_repeat_it_stand_there(run: Path) -> None:
    page = Page(write_report(run))
    assert "modelwright train toy -c 'my run/config.yaml' --out 'my run-again'" in page.texts
    assert "modelwright evaluate 'my run' --split test" in page.texts
    assert not any("modelwright resume" in text for text in page.texts)


def test_a_folder_whose_name_looks_like_an_option_stays_a_folder(tmp_path: Path) -> None:
    page = Page(write_report(write(tmp_path / "-x", results=results())))
    assert "modelwright evaluate ./-x --split test" in page.texts


def test_the_page_asks_for_nothing_outside_itself(run: Path) -> None:
    save_figures([picture("dots")], run, split="test")
    page = Page(write_report(run))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    addresses = [
        value or "" for _, attributes in page.elements for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster")
    ]  # fmt: skip
    assert addresses
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not re.search(r"https?:|@import|url\(", page.html)
    assert all(image.get("alt") for image in page.images)


def test_details_are_a_table_of_classes_and_metrics(run: Path) -> None:
    cells = Page(write_report(run)).cells
    at = cells.index("cat")
    assert cells[at - 3 : at + 3] == ["", "f1", "recall", "cat", "0.6100", "0.5000"]


def test_intervals_are_explained_only_where_there_are_some(tmp_path: Path) -> None:
    one = [{"split": "test", "metrics": {"accuracy": score(0.5)}}]
    without = write(tmp_path / "without", results=results(evaluations=one))
    assert "Below each value: its 90 % interval" not in Page(write_report(without)).text
    assert "Below each value: its 90 % interval" in Page(write_report(write(tmp_path / "with", results=results()))).text


def test_the_test_split_stands_before_the_others(tmp_path: Path) -> None:
    both = [{"split": split, "metrics": {"accuracy": score(0.5)}} for split in ("valid", "test")]
    cells = Page(write_report(write(tmp_path / "run", results=results(evaluations=both)))).cells
    assert cells.index("test") < cells.index("valid")


@pytest.mark.parametrize(
    ("split", "weights", "says"),
    [
        ("valid", "best", "a score on samples that chose the weights is no proof for new data"),
        ("valid", "last", "a score on samples is no proof for new data"),
        ("train", "last", "the model has seen these samples"),
    ],
)
def test_a_score_from_other_splits_is_not_sold_as_proof(tmp_path: Path, split: str, weights: str, says: str) -> None:
    one = [{"split": split, "samples": 3, "weights": weights, "metrics": {"accuracy": score(0.5)}}]
    page = Page(write_report(write(tmp_path / "run", results=results(evaluations=one))))
    assert says in page.text


# What is missing or damaged


def test_an_interrupted_run_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    page = Page(write_report(write(tmp_path / "run", events=events(), environment=ENVIRONMENT)))
    assert "There is no results.json: the run still goes on or was interrupted after step 20 of 40." in page.text
    assert "The run has no final results; this is its best accuracy on validation so far, at step 10" in page.text
    assert "0.8000" in page.texts
    assert "modelwright resume run" in page.texts
    assert page.images


def test_a_folder_with_settings_alone_gives_a_page(tmp_path: Path) -> None:
    page = Page(write_report(write(tmp_path / "run")))
    for name in ("environment.json", "metrics.jsonl"):
        assert f"{name} is missing." in page.text
    assert "modelwright train TASK -c run/config.yaml" in page.text


def test_damaged_lines_are_skipped_and_counted(run: Path) -> None:
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('nonsense\n{"event": "step", "st')
    assert "In metrics.jsonl 2 lines are damaged and were skipped." in Page(write_report(run)).text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"task": "toy", ', "results.json is damaged (no JSON) and was left out."),
        ('{"evaluations": 3}', "results.json is not as expected and was left out (evaluations: "),
        ("[]", "results.json is not as expected and was left out ("),
    ],
)
def test_damaged_results_are_said(run: Path, content: str, says: str) -> None:
    (run / "results.json").write_text(content, encoding="utf-8")
    assert says in Page(write_report(run)).text


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = write(tmp_path / "run", results=results())
    (run / "environment.json").mkdir()
    assert "environment.json could not be read: Is a directory." in Page(write_report(run)).text


def test_a_start_that_is_no_date_and_settings_that_are_no_yaml_do_no_harm(tmp_path: Path) -> None:
    run = write(tmp_path / "run", results=results(), environment={"started": "yesterday"})
    (run / "config.yaml").write_text("a: [", encoding="utf-8")
    page = Page(write_report(run))
    assert "The start was not recorded" in page.text
    assert "(95 % interval)" in page.text


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such folder; give the one that train wrote"):
        read_run(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"it holds none of config\.yaml"):
        write_report(tmp_path)


# User data


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.text(min_size=1), note=st.text())
def test_any_text_survives_escaped(scratch: Path, name: str, note: str) -> None:
    data = {"notes": [note]}
    one = [{"split": "test", "metrics": {"accuracy": score(0.5), f"f1/{name}": score(0.25)}}]
    write(scratch / "run", results=results(data=data, evaluations=one))
    # A file read as text has its carriage returns turned into newlines, in a browser too.
    page = Page(write_report(scratch / "run"))
    readable = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in page.cells]
    assert name.replace("\r\n", "\n").replace("\r", "\n") in readable
    assert note.replace("\r\n", "\n").replace("\r", "\n") in readable


def test_markup_in_user_data_stays_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    one = [
        {
            "split": "test",
            "weights": evil,
            "metrics": {"accuracy": score(0.5), evil: score(1), f"{evil}/{evil}": score(1)},
        }
    ]
    log = [*events(), {"event": "evaluation", "step": 30, "epoch": 3, "metrics": {evil: 0.5}}]
    run = write(
        tmp_path / "<b>run",
        results=results(task=evil, data={"notes": [evil]}, evaluations=one),
        events=log,
        environment={"command": evil, "packages": {evil: evil}},
    )
    figure = picture("dots", caption=evil)
    save_figures([Figure("x", evil, evil, figure.figure)], run, split="test")
    page = Page(write_report(run))
    assert not [tag for tag, attributes in page.elements if tag == "script" or "onerror" in attributes]
    assert not [tag for tag, _ in page.elements if tag == "b"]
    assert evil in page.cells


def test_a_file_name_that_is_no_text_does_not_stop_the_page(tmp_path: Path) -> None:
    notes = {"notes": ["bad picture: caf\udce9.jpg"]}
    page = Page(write_report(write(tmp_path / "run", results=results(data=notes))))
    assert "bad picture: caf\\udce9.jpg" in page.cells


# Curves


def test_a_step_logged_twice_counts_once(tmp_path: Path) -> None:
    twice = [*events(), {"event": "step", "step": 20, "epoch": 2.0, "loss": 0.25, "lr": 0.1}]
    once = [event for event in events() if (event["event"], event["step"]) != ("step", 20)]
    shown = [
        learning_curves(read_run(write(tmp_path / "run", events=list_)))[0].svg for list_ in (twice, [*once, twice[-1]])
    ]
    assert shown[0] == shown[1]


def test_the_best_step_is_told(run: Path) -> None:
    notes = {curve.title: curve.note for curve in learning_curves(read_run(run))}
    assert notes["accuracy"] == "0.8 at the best step"
    assert "The dashed line marks the best step on validation: step 10, epoch 1." in Page(write_report(run)).text


def test_details_and_numbers_that_are_none_make_no_curve(tmp_path: Path) -> None:
    log = [{"event": "step", "step": 1, "epoch": 0.1, "loss": None, "lr": 0.1}, *events()[4:]]
    titles = [curve.title for curve in learning_curves(read_run(write(tmp_path / "run", events=log)))]
    assert titles == ["loss", "accuracy", "learning rate"]


def test_a_long_run_keeps_its_picture_small(tmp_path: Path) -> None:
    log = [{"event": "step", "step": s, "epoch": s / 10, "loss": s % 7, "lr": 0.1} for s in range(1, 20_000)]
    curves = learning_curves(read_run(write(tmp_path / "run", events=log)))
    assert sum(len(curve.svg) for curve in curves) < 200_000


# Figures


def test_figures_of_a_split_are_replaced_and_others_stay(run: Path) -> None:
    save_figures([picture("old"), picture("dots")], run, split="test")
    save_figures([picture("dots")], run, split="valid")
    save_figures([picture("dots", caption="newer")], run, split="test")
    index = json.loads((run / "figures" / "index.json").read_text(encoding="utf-8"))
    assert index == [
        {"file": "valid-dots.svg", "title": "The dots", "caption": "", "split": "valid", "sounds": []},
        {"file": "test-dots.svg", "title": "The dots", "caption": "newer", "split": "test", "sounds": []},
    ]
    assert {path.name for path in (run / "figures").iterdir()} == {"index.json", "valid-dots.svg", "test-dots.svg"}
    assert "newer (test split)" in Page(write_report(run)).text


def test_the_same_figure_gives_the_same_bytes(run: Path) -> None:
    save_figures([picture("dots")], run, split="test")
    before = (run / "figures" / "test-dots.svg").read_bytes()
    save_figures([picture("dots")], run, split="test")
    assert (run / "figures" / "test-dots.svg").read_bytes() == before


def test_a_figure_too_large_for_svg_becomes_png(run: Path) -> None:
    save_figures([picture("dots", points=15_000)], run, split="test")
    assert (run / "figures" / "test-dots.png").read_bytes().startswith(b"\x89PNG")
    assert any((image["src"] or "").startswith("data:image/png") for image in Page(write_report(run)).images)


def test_a_figure_stays_in_its_folder_whatever_it_is_called(run: Path) -> None:
    save_figures([picture("../../a b")], run, split="test")
    assert (run / "figures" / "test-..-..-a-b.svg").is_file()


def test_two_figures_of_one_name_are_an_error(run: Path) -> None:
    with pytest.raises(RunError, match="two figures of the test split are stored as test-dots: give each Figure"):
        save_figures([picture("dots"), picture("dots")], run, split="test")


def test_the_sounds_of_a_figure_can_be_played_in_the_page(run: Path) -> None:
    wav = b"RIFF....WAVEfmt "
    plain = picture("dots")
    heard = Figure(plain.name, plain.title, plain.caption, plain.figure, [Recording("a <b> word", wav)])
    save_figures([heard], run, split="test")
    assert (run / "figures" / "test-dots-0.wav").read_bytes() == wav
    html = write_report(run).read_text(encoding="utf-8")
    assert f'src="data:audio/wav;base64,{base64.b64encode(wav).decode()}"' in html
    assert "a &lt;b&gt; word" in html
    assert "media-src data:" in html
    (run / "figures" / "test-dots-0.wav").unlink()
    assert "The figure test-dots-0.wav is missing." in Page(write_report(run)).text
    save_figures([picture("dots")], run, split="test")  # those that were there go with their figure
    assert {path.name for path in (run / "figures").iterdir()} == {"index.json", "test-dots.svg"}


def test_an_index_cannot_show_files_from_elsewhere(run: Path) -> None:
    (run / "secret.svg").write_text("<svg/>", encoding="utf-8")
    (run / "figures").mkdir()
    files = ["../secret.svg", "gone.svg", "index.json"]
    (run / "figures" / "index.json").write_text(json.dumps([{"file": file} for file in files]), encoding="utf-8")
    page = Page(write_report(run))
    for file in files:
        assert f"The figure {file} is missing." in page.text
