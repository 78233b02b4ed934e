"""The run folder: made where nothing is lost, written whole, read back, and damage told in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright import folder
from modelwright.config import to_yaml
from modelwright.data import Facts
from modelwright.errors import ConfigError, RunError, UnknownTask
from modelwright.files import write_bytes, write_json, write_text
from modelwright.plugins import Catalog
from modelwright.testing.toy import ToyConfig, ToyData

Write = Callable[[Path], None]


def a_run(where: Path, config: ToyConfig | None = None) -> Path:
    """A folder with settings and environment, as training begins with."""
    folder.create(where, overwrite=False)
    folder.write_config(where, config or ToyConfig(), task="toy")
    write_json(where / folder.ENVIRONMENT, {"task": "toy"})
    return where


# Making it


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_made_with_those_above_it_and_an_empty_one_is_taken(tmp_path: Path, overwrite: bool) -> None:
    where = tmp_path / "deep" / "run"
    folder.create(where, overwrite=overwrite)
    folder.create(where, overwrite=overwrite)
    assert list(where.iterdir()) == []


def test_a_run_that_lies_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    where = a_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"run exists already; choose another --out, or add --overwrite"):
        folder.create(where, overwrite=False)
    assert (where / folder.CONFIG).exists()
    aside = folder.create(where, overwrite=True)
    assert aside is not None
    assert list(where.iterdir()) == []
    assert (aside / folder.CONFIG).exists()


@pytest.mark.parametrize("inside", [".", "checkpoints"])
def test_the_folder_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    run = a_run(tmp_path / "run")
    (run / "checkpoints").mkdir()
    monkeypatch.chdir(run / inside)
    for where in (Path("." if inside == "." else ".."), run):
        with pytest.raises(RunError, match="is the folder you are in; choose another --out, or go elsewhere first"):
            folder.create(where, overwrite=True)
    assert (run / folder.CONFIG).exists()


def test_a_run_with_a_checkpoint_stays_and_what_it_replaced_goes(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (run / "old").touch()
    aside = folder.create(run, overwrite=True)
    (run / "checkpoints").mkdir()
    folder.settle(run, aside)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


def test_a_run_that_failed_before_gives_back_what_it_replaced(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (run / "old").touch()
    aside = folder.create(run, overwrite=True)
    (run / "new").touch()
    folder.settle(run, aside)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (run / "old").exists()
    assert not (run / "new").exists()
    folder.settle(tmp_path / "never", None)
    folder.settle(run, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_run_is_never_deleted(tmp_path: Path, overwrite: bool) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "a.jpg").write_text("mine")
    for where in (precious, precious / "a.jpg"):
        with pytest.raises(RunError, match="choose another --out"):
            folder.create(where, overwrite=overwrite)
    assert (precious / "a.jpg").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made: Not a directory; choose another --out"):
        folder.create(tmp_path / "file" / "run", overwrite=False)


def test_default_folders_are_free_and_named_by_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []
    for _ in range(4):
        made.append(folder.default_folder("toy"))
        folder.create(made[-1], overwrite=False)
    assert len(set(made)) == 4
    assert all(each.parent == Path("runs") and each.name.startswith("toy-20") for each in made)


# Settings


def test_settings_are_read_back(tmp_path: Path, toys: Catalog) -> None:
    config = ToyConfig(seed=5, data=ToyData(path="a: b", noise=1e-3))
    task, entry, again = folder.read_config(a_run(tmp_path / "run", config), toys)
    assert (task, entry.name, again) == ("toy", "toy", config)


def test_settings_say_how_to_repeat_the_run(tmp_path: Path) -> None:
    text = (a_run(tmp_path / "run") / folder.CONFIG).read_text()
    assert text.startswith("# toy; repeat with: modelwright train toy -c config.yaml\n")
    assert to_yaml(ToyConfig()) in text


def test_what_is_no_run_folder_is_told(tmp_path: Path, toys: Catalog) -> None:
    with pytest.raises(RunError, match=r"there is no run folder .*gone; train makes one: modelwright train TASK --out"):
        folder.read_task(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="there is no run folder"):
        folder.read_task(tmp_path / "file")
    with pytest.raises(RunError, match=r"is no run folder: its environment\.json is missing or damaged"):
        folder.read_config(tmp_path, toys)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", "\ud800"])
def test_a_damaged_environment_is_told(tmp_path: Path, content: str) -> None:
    run = a_run(tmp_path / "run")
    (run / folder.ENVIRONMENT).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunError, match=r"its environment\.json is missing or damaged"):
        folder.read_task(run)


def test_damaged_settings_and_a_task_that_is_not_installed_are_told(tmp_path: Path, toys: Catalog) -> None:
    run = a_run(tmp_path / "run")
    with pytest.raises(UnknownTask, match="no task 'toy' is installed"):
        folder.read_config(run, Catalog())
    (run / folder.CONFIG).write_text("train: {epoch: 3}")
    with pytest.raises(ConfigError, match=r"unknown setting train\.epoch"):
        folder.read_config(run, toys)
    (run / folder.CONFIG).unlink()
    with pytest.raises(ConfigError, match=r"config\.yaml could not be read"):
        folder.read_config(run, toys)


# Facts and results


def test_facts_are_read_back(tmp_path: Path) -> None:
    arrays = {"transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T, "none": np.zeros((0, 2))}
    arrays |= {"strided": np.arange(6)[::2], "number": np.array(3.0)}
    facts = Facts({"classes": ["é", "b"], "size": 3, "rate": 0.1, "nothing": None}, arrays)
    assert folder.read_facts(tmp_path) is None
    folder.write_facts(tmp_path, facts)
    again = folder.read_facts(tmp_path)
    assert again is not None
    assert again.values == facts.values
    assert again.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays[name], array)


@pytest.mark.parametrize(("file", "content"), [("facts.json", b"{"), ("facts.safetensors", b"short")])
def test_damaged_facts_are_told(tmp_path: Path, file: str, content: bytes) -> None:
    folder.write_facts(tmp_path, Facts({"a": 1}, {"b": np.zeros(2)}))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(RunError, match=r"the facts in .* are damaged: .*; train again"):
        folder.read_facts(tmp_path)
    (tmp_path / file).unlink()


def test_facts_without_their_arrays_are_damaged(tmp_path: Path) -> None:
    folder.write_facts(tmp_path, Facts())
    (tmp_path / "facts.safetensors").unlink()
    with pytest.raises(RunError, match=r"the facts in .* are damaged"):
        folder.read_facts(tmp_path)


def test_results_are_read_back_and_their_damage_is_told(tmp_path: Path) -> None:
    assert folder.read_results(tmp_path) == {}
    write_json(tmp_path / folder.RESULTS, {"evaluations": []})
    assert folder.read_results(tmp_path) == {"evaluations": []}
    (tmp_path / folder.RESULTS).write_text("{")
    with pytest.raises(RunError, match=r"results\.json is damaged: .*; make it again: modelwright evaluate"):
        folder.read_results(tmp_path)


# Writing files


def write_new_text(path: Path) -> None:
    write_text(path, "new")


def write_new_bytes(path: Path) -> None:
    write_bytes(path, b"new")


def write_new_json(path: Path) -> None:
    write_json(path, "new")


@pytest.mark.parametrize("write", [write_new_text, write_new_bytes, write_new_json])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fail)
        with pytest.raises(RunError, match=r"could not be written: No space left on device; what was there is kept"):
            write(path)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "old")]
    write(path)
    assert "new" in path.read_text()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_new_file_has_the_rights_that_others_have(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_text(tmp_path / "file", "")
    assert os.stat(tmp_path / "file").st_mode == os.stat(tmp_path / "other").st_mode


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(value=values)
def test_json_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_a_text_that_is_no_unicode_is_written_as_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    write_json(tmp_path / "a.json", name)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == name
    write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "\\udcff.png"


def test_a_run_that_never_got_to_a_checkpoint_gives_the_replaced_one_back(tmp_path: Path) -> None:
    old = tmp_path / "run"
    old.mkdir()
    (old / folder.CONFIG).write_text("seed: 3\n")
    aside = folder.create(old, overwrite=True)
    assert list(old.iterdir()) == []
    folder.settle(old, aside)
    assert (old / folder.CONFIG).read_text() == "seed: 3\n"
    aside = folder.create(old, overwrite=True)
    (old / "checkpoints").mkdir()
    folder.settle(old, aside)
    assert [path.name for path in old.iterdir()] == ["checkpoints"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_new_run_that_failed_leaves_nothing(tmp_path: Path) -> None:
    folder.settle(tmp_path / "run", folder.create(tmp_path / "run", overwrite=False))
    assert list(tmp_path.iterdir()) == []
