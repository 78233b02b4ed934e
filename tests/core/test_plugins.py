"""Discovery: what is taken, what is set apart and why, and what asking for it then says."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelwright.bundle.runtime import Graph
from modelwright.compression.stages import StageConfig
from modelwright.config import TaskConfig
from modelwright.errors import BrokenPlugin, ConfigError, DuplicateTask, PluginError, UnknownTask
from modelwright.hookspecs import CompressorEntry, ExporterEntry, ObserverEntry, TaskEntry, hookimpl
from modelwright.plugins import Catalog, PluginFailure, Provider, discover, missing_modules, recipes_of, settings_of
from tests.core.installed import install


@dataclasses.dataclass
class Distribution:
    name: str
    version: str


@dataclasses.dataclass
class Point:
    """An entry point that gives what `make` gives."""

    name: str
    make: Callable[[], Any]
    dist: Distribution | None = None

    def load(self) -> Any:
        return self.make()


def entry(name: str = "shape-finding", **further: Any) -> TaskEntry:
    return TaskEntry(name, "a task", **{"config": TaskConfig, "build": lambda config: None, **further})


def module(**hooks: Any) -> Callable[[], ModuleType]:
    """A module of hooks, each given by what it yields."""
    found = ModuleType("plugin")
    for name, records in hooks.items():

        def hook(records: Any = records) -> Any:
            yield from records

        # pluggy takes a parameter with a default for no argument of the hook.
        hook.__name__ = name
        setattr(found, name, hookimpl(hook))
    return lambda: found


def good(name: str = "shapes", *entries: TaskEntry, distribution: str = "", version: str = "1.0") -> Point:
    dist = Distribution(distribution, version) if distribution else None
    return Point(name, module(modelwright_tasks=entries or (entry(),)), dist)


def failure_of(point: Point) -> PluginFailure:
    """The failure of a point that is found between two good ones, which stay usable."""
    catalog = discover([good("before", entry("before")), point, good("after", entry("after"))])
    assert sorted(catalog.tasks) == ["after", "before"]
    assert [provider.plugin for provider in catalog.plugins] == ["before", "after"]
    assert catalog.task("before").name == "before"
    (failure,) = catalog.failures
    assert "\n" not in failure.error
    return failure


# What is taken


def test_a_good_plugin_gives_its_tasks_and_its_observers() -> None:
    watcher = ObserverEntry("watcher", "watches", build=lambda folder: print)
    hooks = module(modelwright_tasks=[entry("one"), entry("two")], modelwright_observers=[watcher])
    catalog = discover([Point("mine", hooks, Distribution("my-dist", "2.0"))])
    assert list(catalog.tasks) == ["one", "two"]
    assert catalog.task("two").name == "two"
    assert catalog.observer("watcher") is watcher
    assert str(catalog.providers["one"]) == "my-dist 2.0"
    assert catalog.plugins == [Provider("mine", "my-dist", "2.0")]
    assert catalog.failures == []
    assert catalog.conflicts == {}


def test_the_core_offers_its_own_observers_and_no_task() -> None:
    catalog = discover([])
    assert catalog.observer("tensorboard").name == "tensorboard"
    assert catalog.tasks == {}
    assert catalog.plugins == []


def test_an_object_may_be_a_plugin_too() -> None:
    class Mine:
        @hookimpl
        def modelwright_tasks(self) -> list[TaskEntry]:
            return [entry("by-object")]

    assert discover([Point("mine", Mine)]).task("by-object")


@pytest.mark.usefixtures("clean_modules")
def test_installed_distributions_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from modelwright.config import TaskConfig\n"
        "from modelwright.hookspecs import TaskEntry, hookimpl\n"
        "@hookimpl\n"
        "def modelwright_tasks():\n"
        "    yield TaskEntry('{name}-finding', 'a task', config=TaskConfig, build=lambda config: None)\n"
    )
    install(tmp_path / "site", "found", code.format(name="found"))
    install(tmp_path / "site", "halfgone", code.format(name="half"), metadata=False)
    install(tmp_path / "site", "dead", "raise SystemExit('no licence')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    catalog = discover()
    assert str(catalog.providers["found-finding"]) == "modelwright-found 1.2"
    assert catalog.providers["half-finding"].distribution == "halfgone"  # all that is known of it
    assert PluginFailure("dead", "modelwright-dead", "SystemExit: no licence") in catalog.failures


@pytest.fixture
def clean_modules() -> Iterator[None]:
    yield
    for name in ("modelwright_found", "modelwright_halfgone", "modelwright_dead"):
        sys.modules.pop(name, None)


# What is set apart


def raising(error: BaseException) -> Callable[[], Any]:
    def make() -> Any:
        raise error

    return make


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("cannot import\n  name 'gone'"), "ImportError: cannot import name 'gone'"),
        (SystemExit("no licence"), "SystemExit: no licence"),
        (RuntimeError("half\nway"), "RuntimeError: half way"),
        (BrokenPlugin("said in its own words"), "said in its own words"),
    ],
)
def test_a_plugin_that_fails_at_import_is_set_apart(error: BaseException, reason: str) -> None:
    failure = failure_of(Point("bad", raising(error), Distribution("bad-dist", "1")))
    assert (failure.plugin, failure.distribution, failure.error) == ("bad", "bad-dist", reason)
    assert failure.mend == "mend or remove it: pip install --upgrade bad-dist, or pip uninstall bad-dist"


def test_ctrl_c_while_plugins_are_imported_is_no_failure_of_theirs() -> None:
    with pytest.raises(KeyboardInterrupt):
        discover([Point("slow", raising(KeyboardInterrupt()))])


def test_a_misspelt_hook_names_the_near_one() -> None:
    failure = failure_of(Point("bad", module(modelwright_task=[entry()])))
    assert failure.error == "there is no hook 'modelwright_task' (did you mean 'modelwright_tasks'?)"


def test_a_misspelt_hook_beside_a_good_one_is_not_passed_over() -> None:
    failure = failure_of(Point("bad", module(modelwright_tasks=[entry()], modelwright_observer=[])))
    assert "there is no hook 'modelwright_observer' (did you mean 'modelwright_observers'?)" in failure.error


def test_a_function_of_another_name_marked_for_a_hook_that_does_not_exist() -> None:
    class Bad:
        @hookimpl(specname="modelwright_taskz")
        def tasks(self) -> list[TaskEntry]:
            return []

    assert "unknown hook 'modelwright_taskz'" in failure_of(Point("bad", Bad)).error


def test_an_unmarked_hook_says_what_to_put_above_it() -> None:
    found = ModuleType("plugin")
    found.modelwright_tasks = lambda: [entry()]  # type: ignore[attr-defined]
    failure = failure_of(Point("bad", lambda: found))
    assert failure.error == "hook 'modelwright_tasks' is not marked: put @hookimpl above it"


def test_a_plugin_without_a_hook_is_none() -> None:
    failure = failure_of(Point("bad", lambda: ModuleType("plugin")))
    assert (
        failure.error == "it offers none of the hooks modelwright_tasks, modelwright_observers, "
        "modelwright_compressors, modelwright_exporters"
    )


def test_a_module_named_like_a_hook_is_no_hook() -> None:
    plugin = module(modelwright_tasks=[entry()])()
    plugin.modelwright_shapes = ModuleType("modelwright_shapes")  # type: ignore[attr-defined]
    assert discover([Point("mine", lambda: plugin)]).failures == []


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        ({"modelwright_tasks": ["toy"]}, "modelwright_tasks must yield TaskEntry records, not str"),
        ({"modelwright_observers": [print]}, "modelwright_observers must yield ObserverEntry records, not builtin"),
        (
            {"modelwright_compressors": [print]},
            "modelwright_compressors must yield CompressorEntry records, not builtin",
        ),
        (
            {"modelwright_compressors": [CompressorEntry("mine", "", config=TaskConfig, run=print)]},  # type: ignore[arg-type]
            "compressor 'mine': config must be a subclass of StageConfig",
        ),
        ({"modelwright_exporters": [print]}, "modelwright_exporters must yield ExporterEntry records, not builtin"),
        ({"modelwright_tasks": [entry("Toy")]}, "task name 'Toy' must be lowercase words joined by hyphens"),
        ({"modelwright_tasks": [entry("a_b")]}, "task name 'a_b' must be lowercase words joined by hyphens"),
        ({"modelwright_tasks": [entry("a-")]}, "task name 'a-' must be lowercase words joined by hyphens"),
        ({"modelwright_tasks": [entry("")]}, "task name '' must be lowercase words joined by hyphens"),
        ({"modelwright_tasks": [entry(config=dict)]}, "task 'shape-finding': config must be a subclass of"),
        ({"modelwright_tasks": [entry(config=TaskConfig())]}, "task 'shape-finding': config must be a subclass of"),
        ({"modelwright_tasks": [entry("good"), entry("Bad")]}, "task name 'Bad'"),
    ],
)
def test_a_hook_that_yields_something_else_is_set_apart_whole(hooks: dict[str, Any], reason: str) -> None:
    assert failure_of(Point("bad", module(**hooks))).error.startswith(reason)


def test_a_hook_that_fails_half_way_leaves_nothing_behind() -> None:
    class Bad:
        @hookimpl
        def modelwright_tasks(self) -> Iterator[TaskEntry]:
            yield entry("half")
            raise LookupError("the other half")

    assert failure_of(Point("bad", Bad)).error == "LookupError: the other half"


# Asking for a task


def test_an_unknown_task_names_the_near_one_and_what_is_installed() -> None:
    catalog = discover([good("a", entry("shape-finding")), good("b", entry("counting"))])
    with pytest.raises(UnknownTask) as caught:
        catalog.task("shape-findin")
    assert str(caught.value) == (
        "no task 'shape-findin' is installed (did you mean 'shape-finding'?); installed: counting, shape-finding"
    )
    with pytest.raises(UnknownTask, match="no task 'zzz' is installed; installed: none"):
        discover([]).task("zzz")


@pytest.mark.parametrize("name", ["shapes", "shapes-dist", "shapes-finding"])
def test_a_task_that_may_belong_to_a_broken_plugin_tells_of_it(name: str) -> None:
    catalog = discover([Point("shapes", raising(ImportError("gone")), Distribution("shapes-dist", "1"))])
    with pytest.raises(BrokenPlugin) as caught:
        catalog.task(name)
    assert str(caught.value) == (
        f"task '{name}' may belong to plugin 'shapes' of shapes-dist, which could not be loaded: ImportError: gone; "
        "mend or remove it: pip install --upgrade shapes-dist, or pip uninstall shapes-dist"
    )
    with pytest.raises(UnknownTask):
        catalog.task("other")


def test_a_task_offered_by_two_or_three_names_them_all() -> None:
    points = [good(f"p{n}", entry("twin"), entry(f"own-{n}"), distribution=f"dist-{n}") for n in (1, 2, 3)]
    for count, providers in ((2, "dist-1 1.0 and dist-2 1.0"), (3, "dist-1 1.0 and dist-2 1.0 and dist-3 1.0")):
        catalog = discover(points[:count])
        with pytest.raises(DuplicateTask) as caught:
            catalog.task("twin")
        assert str(caught.value) == f"task 'twin' is offered by {providers}; uninstall one of them"
        assert sorted(catalog.tasks) == [f"own-{n}" for n in range(1, count + 1)]
        assert catalog.failures == []


@pytest.mark.parametrize(("extra", "command"), [("img", 'pip install "shapes[img]"'), ("", 'pip install "shapes"')])
def test_missing_modules_come_with_the_command_that_installs_them(extra: str, command: str) -> None:
    needy = entry(extra=extra, requires=("json", "surely_not_here", "nor.this"))
    catalog = discover([good("shapes", needy, distribution="shapes")])
    with pytest.raises(BrokenPlugin) as caught:
        catalog.task("shape-finding")
    assert str(caught.value) == f"shape-finding could not load: no module named surely_not_here. Install it: {command}"


def test_missing_modules_are_found_without_importing() -> None:
    assert missing_modules(["json", "surely_not_here", "surely.not.here", "json.nothing"]) == [
        "surely_not_here",
        "surely.not.here",
        "json.nothing",
    ]
    code = (
        "import sys; from modelwright.plugins import missing_modules as m; "
        "print(m(['torch', 'matplotlib']), 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["[]", "False"]


def test_a_module_that_cannot_be_looked_up_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = ModuleType("odd")
    odd.__spec__ = None
    monkeypatch.setitem(sys.modules, "odd", odd)
    assert missing_modules(["odd"]) == ["odd"]


# Observers


def watcher(name: str, **further: Any) -> Point:
    return Point(
        f"{name}-plugin", module(modelwright_observers=[ObserverEntry(name, "", build=lambda f: print, **further)])
    )


def test_an_unknown_observer_names_the_near_one() -> None:
    with pytest.raises(PluginError) as caught:
        discover([]).observer("tensorbord")
    assert str(caught.value) == (
        "no observer 'tensorbord' is installed (did you mean 'tensorboard'?); installed: tensorboard"
    )
    with pytest.raises(PluginError, match="installed: none"):
        Catalog().observer("any")


def test_an_observer_that_lacks_a_module_says_how_to_install_it() -> None:
    catalog = discover([watcher("mine", requires=("surely_not_here",))])
    with pytest.raises(PluginError) as caught:
        catalog.observer("mine")
    assert str(caught.value) == "observer 'mine' needs the module surely_not_here: pip install surely_not_here"


def test_a_second_observer_of_one_name_is_set_apart_and_the_first_stays() -> None:
    catalog = discover([watcher("tensorboard")])
    assert catalog.observer("tensorboard").requires == ("tensorboard",)  # the core's own
    (failure,) = catalog.failures
    assert failure.error == "observer 'tensorboard' is already offered by another plugin"


# Settings and recipes


@pytest.fixture
def cooked(tmp_path: Path) -> TaskEntry:
    """A task with two recipes."""
    (tmp_path / "quick.yaml").write_text("train: {epochs: 2, batch_size: 20, accumulate: 2}\nseed: 2\n")
    (tmp_path / "long.yaml").write_text("train: {epochs: 200}\n")
    (tmp_path / "notes.txt").write_text("no recipe")
    return entry(recipes=tmp_path)


def test_recipes_are_the_yaml_files_of_the_folder(cooked: TaskEntry, tmp_path: Path) -> None:
    assert recipes_of(cooked) == {"long": tmp_path / "long.yaml", "quick": tmp_path / "quick.yaml"}
    assert recipes_of(entry()) == {}
    assert recipes_of(entry(recipes=tmp_path / "gone")) == {}


@pytest.mark.parametrize("overrides", [["train.epochs=4"], {"train.epochs": 4}, {"train": {"epochs": 4}}])
@pytest.mark.parametrize("as_file", [True, False])
def test_defaults_recipe_file_and_overrides_in_that_order(
    cooked: TaskEntry, tmp_path: Path, as_file: bool, overrides: Any
) -> None:
    config: Any = {"train": {"epochs": 3, "batch_size": 30}}
    if as_file:
        config = tmp_path / "mine.yml"
        config.write_text("train: {epochs: 3, batch_size: 30}")
    found = settings_of(cooked, recipe="quick", config=config, settings=overrides)
    train = found.train
    assert (train.epochs, train.batch_size, train.accumulate, found.seed) == (4, 30, 2, 2)
    assert train.evaluate_every == TaskConfig().train.evaluate_every
    assert settings_of(cooked) == TaskConfig()


def test_an_unknown_recipe_names_the_near_one_and_those_there_are(cooked: TaskEntry) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(cooked, recipe="quik")
    assert str(caught.value) == "shape-finding has no recipe 'quik' (did you mean 'quick'?); it has: long, quick"
    with pytest.raises(ConfigError, match="shape-finding has no recipe 'quick'; it has: none"):
        settings_of(entry(), recipe="quick")


def test_a_mistake_in_any_layer_is_told(cooked: TaskEntry, tmp_path: Path) -> None:
    for bad in ({"settings": {"train.epoch": 1}}, {"settings": ["train.epoch=1"]}, {"config": {"train": {"epoch": 1}}}):
        with pytest.raises(ConfigError, match=r"unknown setting train\.epoch \(did you mean 'epochs'\?\)"):
            settings_of(cooked, **bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"gone\.yaml could not be read"):
        settings_of(cooked, config=tmp_path / "gone.yaml")


# Compressors


def squeezing(name: str, **further: Any) -> Point:
    entry = CompressorEntry(name, "squeezes", config=StageConfig, run=lambda stage, settings: stage.made(), **further)
    return Point(f"{name}-plugin", module(modelwright_compressors=[entry]))


def test_the_core_offers_its_own_compressors_beside_those_of_plugins() -> None:
    class Plugin:
        @hookimpl
        def modelwright_compressors(self) -> Iterator[CompressorEntry]:
            yield CompressorEntry("squeeze", "squeezes", config=StageConfig, run=lambda stage, settings: stage.made())

    catalog = discover([Point("squeezing", Plugin)])
    assert sorted(catalog.compressors) == ["distill", "prune", "quantize", "squeeze"]
    assert catalog.compressor("squeeze").summary == "squeezes"


def test_an_unknown_compressor_names_the_near_one() -> None:
    with pytest.raises(PluginError) as caught:
        discover([]).compressor("prun")
    assert str(caught.value) == (
        "no compressor 'prun' is installed (did you mean 'prune'?); installed: distill, prune, quantize"
    )


def test_a_compressor_that_lacks_a_module_says_how_to_install_it() -> None:
    with pytest.raises(PluginError, match="compressor 'squeeze' needs the module surely_not_here: pip install"):
        discover([squeezing("squeeze", requires=("surely_not_here",))]).compressor("squeeze")


def test_a_second_compressor_of_one_name_is_set_apart_and_the_first_stays() -> None:
    catalog = discover([squeezing("prune")])
    assert catalog.compressor("prune").summary != "squeezes"
    assert catalog.failures[0].error == "compressor 'prune' is already offered by another plugin"


# Exporters


def writing(name: str, **further: Any) -> Point:
    entry = ExporterEntry(name, "writes", write=lambda export, target: "", open=Graph, **further)
    return Point(f"{name}-plugin", module(modelwright_exporters=[entry]))


def test_the_core_offers_its_own_runtimes_beside_those_of_plugins() -> None:
    class Plugin:
        @hookimpl
        def modelwright_exporters(self) -> Iterator[ExporterEntry]:
            yield ExporterEntry("abacus", "counts", write=lambda export, target: "", open=Graph)

    catalog = discover([Point("abacus", Plugin)])
    assert sorted(catalog.exporters) == ["abacus", "onnxruntime", "openvino"]
    assert catalog.exporter("abacus").summary == "counts"


def test_an_unknown_runtime_names_the_near_one() -> None:
    with pytest.raises(PluginError) as caught:
        discover([]).exporter("openvin")
    assert str(caught.value) == (
        "no runtime 'openvin' is installed (did you mean 'openvino'?); installed: onnxruntime, openvino"
    )


def test_a_runtime_that_lacks_a_module_says_how_to_install_it() -> None:
    lacking = discover([writing("abacus", requires=("surely_not_here",), extra="beads")])
    with pytest.raises(PluginError, match="needs the module surely_not_here: pip install") as caught:
        lacking.exporter("abacus")
    assert str(caught.value).endswith('pip install "abacus-plugin[beads]"')


def test_a_second_runtime_of_one_name_is_set_apart_and_the_first_stays() -> None:
    catalog = discover([writing("onnxruntime")])
    assert catalog.exporter("onnxruntime").summary != "writes"
    assert catalog.failures[0].error == "runtime 'onnxruntime' is already offered by another plugin"
