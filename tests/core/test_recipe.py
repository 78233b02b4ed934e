"""Compression recipes: what is read, what is refused and how that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.cli_compress import parse_bytes
from modelwright.compression import recipe as recipes
from modelwright.compression.recipe import OWN, Recipe, read_recipe, recipes_for
from modelwright.compression.stages import DistillConfig, PruneConfig, QuantizeConfig
from modelwright.config import TaskConfig
from modelwright.errors import ConfigError, PluginError
from modelwright.hookspecs import TaskEntry
from modelwright.plugins import discover

ENTRY = TaskEntry("shape-finding", "a task", config=TaskConfig, build=lambda config: None)  # type: ignore[arg-type, return-value]
CATALOG = discover([])


def read(source, entry: TaskEntry = ENTRY) -> Recipe:
    return read_recipe(source, entry=entry, catalog=CATALOG)


@pytest.mark.parametrize("name", sorted(path.stem for path in OWN.glob("*.yaml")))
def test_each_recipe_of_the_core_can_be_read_and_says_how_to_use_it(name, monkeypatch):
    monkeypatch.setattr(recipes, "missing_modules", lambda names: [])
    recipe = read(name)
    assert recipe.name == name
    assert recipe.stages
    assert "modelwright compress RUN" in (OWN / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_default_recipe_composes_all_three_stages():
    assert [type(stage.settings) for stage in read("small").stages] == [PruneConfig, DistillConfig, QuantizeConfig]


def test_a_list_of_stages_is_a_recipe_with_defaults_filled_in():
    recipe = read([{"stage": "prune", "keep": 0.25}, {"stage": "quantize"}])
    assert [stage.as_json()["stage"] for stage in recipe.stages] == ["prune", "quantize"]
    assert recipe.stages[0].as_json()["keep"] == 0.25
    assert recipe.stages[1].as_json()["kind"] == "static"
    assert read([stage.as_json() for stage in recipe.stages]) == recipe


def test_a_file_is_a_recipe_named_after_it(tmp_path):
    (tmp_path / "tiny.yaml").write_text("- stage: quantize\n  kind: weights\n", encoding="utf-8")
    recipe = read(tmp_path / "tiny.yaml")
    assert (recipe.name, recipe.stages[0].as_json()["kind"]) == ("tiny", "weights")


def test_a_tasks_own_recipe_stands_before_the_cores(tmp_path):
    (tmp_path / "compress").mkdir()
    (tmp_path / "compress" / "small.yaml").write_text("- stage: quantize\n", encoding="utf-8")
    entry = TaskEntry("own", "a task", config=TaskConfig, build=ENTRY.build, recipes=tmp_path)
    assert len(read("small", entry).stages) == 1
    assert set(recipes_for(entry)) == set(recipes_for(ENTRY))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("smal", "there is no compression recipe 'smal' (did you mean 'small'?); known: aware, "),
        ([], "the recipe must be a list of stages"),
        ([{"keep": 0.5}], "the recipe: each stage is written as settings with its name, - stage: prune; found"),
        ([{"stage": "prune", "kep": 0.5}], "the recipe, stage prune: unknown setting kep (did you mean 'keep'?)"),
        ([{"stage": "prune", "keep": 1.5}], "the recipe, stage prune: keep: input should be less than 1, got 1.5"),
        ([{"stage": "distill", "mix": 2}], "the recipe, stage distill: mix: input should be less than or equal to 1"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(source, said):
    with pytest.raises(ConfigError) as caught:
        read(source)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stage_that_nobody_offers_names_the_near_one():
    with pytest.raises(PluginError, match=r"no compressor 'quantise' is installed \(did you mean 'quantize'\?\)"):
        read([{"stage": "quantise"}])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage: prune", "recipe 'x' must be a list of stages"),
        ("- prune", "recipe 'x': each stage is written as settings with its name"),
        ("- stage: [", "is no YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, said):
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "x.yaml")
    assert said in str(caught.value)


def test_a_missing_file_and_an_unfit_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="could not be read: No such file"):
        read(tmp_path / "absent.yaml")
    path = Path(tmp_path / "My Recipe.yaml")
    path.write_text("- stage: quantize\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="the recipe's name 'My Recipe' must be lowercase letters"):
        read(path)


def test_sizes_are_read_as_people_write_them():
    assert parse_bytes("500kB") == 500_000
    assert parse_bytes("2 MiB") == 2 * 1024**2
    assert parse_bytes("42") == 42
    for wrong in ("", "kB", "5 apples", "-3", "1e3"):
        with pytest.raises(ConfigError, match="is no size; write 500kB"):
            parse_bytes(wrong)


def test_a_stage_that_lacks_modules_says_so_before_any_work_is_done(monkeypatch):
    monkeypatch.setattr(recipes, "missing_modules", list)
    with pytest.raises(PluginError) as caught:
        read([{"stage": "prune"}, {"stage": "quantize", "runtime": "openvino"}])
    assert str(caught.value) == (
        'the recipe, stage quantize needs the module openvino: pip install "modelwright[openvino]"'
    )
    read([{"stage": "quantize", "runtime": "onnxruntime"}])


@pytest.mark.parametrize("kind", ["dynamic", "weights"])
def test_what_a_runtime_does_not_offer_is_refused(kind):
    with pytest.raises(ConfigError, match=f"openvino has the kinds static and aware; {kind} has runtime onnxruntime"):
        read([{"stage": "quantize", "kind": kind, "runtime": "openvino"}])
