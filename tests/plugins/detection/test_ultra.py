"""ultralytics: imported without a trace, its checkpoints read without running their code, clear words without it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plugins.detection.models_made import CLASSES, batch, make, need_ultralytics

from modelwright.errors import ConfigError, PluginError
from modelwright_detection import ultra
from modelwright_detection.model import load_pretrained, read_pretrained

need_ultralytics()

WATCHED = """
    import json, logging, os, sys, tempfile, warnings
    import numpy as np, PIL.Image, torch, torchvision
    import modelwright_detection.model

    tempfile.gettempdir()  # looks once where it may write

    def state():
        return [
            dict(os.environ), torch.save, torch.load, PIL.Image.open, np.get_printoptions()["linewidth"],
            torch._tensor_str.PRINT_OPTS.linewidth, len(warnings.filters), torch.get_num_threads(),
        ]

    seen = []

    def watch(event, args):
        if event.startswith(("socket.", "subprocess", "urllib", "http")):
            seen.append([event, str(args)])
        elif event == "open" and (set(str(args[1])) & set("wax+") or (args[1] is None and args[2] & 3)):
            seen.append([event, str(args[0])])
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"):
            seen.append([event, str(args[0])])

    before = state()
    sys.addaudithook(watch)
    from tests.plugins.detection.models_made import at, batch, make
    network = make("yolo26n", side=64)
    given = batch(side=64)
    network.criterion()(network(*given.inputs), given, at()).sum.backward()
    after = state()
    logger = logging.getLogger("ultralytics")
    logger.error("this belongs to standard error")
    from ultralytics.utils import ONLINE, SETTINGS
    SETTINGS.update(sync=False)  # stores nothing
    print(json.dumps({"seen": seen, "same": [a == b for a, b in zip(before, after)], "online": ONLINE,
                      "sync": SETTINGS["sync"], "temporary": tempfile.gettempdir()}))
"""


@pytest.mark.once
def test_importing_training_and_predicting_leave_no_trace(tmp_path):
    places = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    variables = {**os.environ, "PYTHONPATH": places, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("OMP_NUM_THREADS", "YOLO_CONFIG_DIR"):
        variables.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED)],
        capture_output=True,
        text=True,
        env=variables,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # and nothing else is printed
    said = json.loads(line)
    outside = [each for each in said["seen"] if not is_within(each, said["temporary"])]
    assert outside == []
    assert all(said["same"]), said["same"]
    assert said["online"] is False
    assert said["sync"] is False
    assert list(tmp_path.iterdir()) == []


def is_within(event, folder):
    """Written to the temporary folder (or a name within it, given relative to an open folder)."""
    kind, where = event
    return (kind != "open" and not os.path.isabs(where)) or where.startswith(f"{folder}/modelwright-")


def test_all_networks_are_made_of_their_plans():
    for name in ultra.NAMES[::3]:
        network = ultra.build_network(name, classes=7)
        assert network.model[-1].nc == 7
        assert network.stride == (8.0, 16.0, 32.0)


def test_a_plan_in_the_current_folder_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "yolo11.yaml").write_text("nonsense")
    (tmp_path / "yolo11n.yaml").write_text("nonsense")
    monkeypatch.chdir(tmp_path)
    assert ultra.build_network("yolo11n", classes=2).model[-1].nc == 2


def test_an_old_ultralytics_is_named(monkeypatch, tmp_path):
    known = ultra.library()
    monkeypatch.setattr(
        ultra, "library", lambda: ultra.Library(tmp_path, known.network, known.one_head, known.two_heads)
    )
    with pytest.raises(PluginError, match=r"does not know yolo26n: pip install .modelwright\[detection\]. --upgrade"):
        ultra.build_network("yolo26n", classes=2)


@pytest.fixture
def forgotten():
    ultra.library.cache_clear()
    yield
    ultra.library.cache_clear()


def test_without_ultralytics_the_extra_is_named(monkeypatch, forgotten):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ultralytics" else found(name))
    with pytest.raises(PluginError, match=r"need ultralytics .*not installed: pip install .modelwright\[detection\]"):
        make("yolo11n")


def test_an_ultralytics_that_cannot_be_imported_says_why(monkeypatch, forgotten):
    found = importlib.import_module

    def broken(name, *args):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return found(name, *args)

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(PluginError, match=r"could not be imported \(libGL.so.1"):
        make("yolo11n")


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint as its trainer writes it, and the network in it."""
    network = ultra.build_network("yolo11n", classes=len(CLASSES))
    path = tmp_path_factory.mktemp("weights") / "last.pt"
    content = {
        "epoch": 3,
        "model": None,
        "ema": network.half(),
        "train_args": {"lr0": 0.1, "data": path},
        "train_metrics": {"map": np.float64(0.5)},
        "date": "today",
    }
    torch.save(content, path)
    return path, network.float()


def test_a_checkpoint_gives_its_weights(saved):
    path, network = saved
    weights = read_pretrained(str(path))
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(weights[name], tensor)
    model = make("yolo11n")
    assert load_pretrained(model, str(path)).endswith("499 of 499 tensors taken over")
    torch.testing.assert_close(model.network.state_dict()["model.0.conv.weight"], network.model[0].conv.weight)


def test_with_other_classes_all_but_the_classes_are_taken(saved):
    path, network = saved
    torch.manual_seed(1)
    other = ultra.build_network("yolo11n", classes=9)
    before = other.state_dict()["model.23.cv3.0.2.weight"].clone()
    model = make("yolo11n")
    model.network = other
    said = load_pretrained(model, str(path))
    assert "of 499 tensors taken over; left as they were: model.23.cv3" in said
    assert torch.equal(other.state_dict()["model.23.cv3.0.2.weight"], before)
    torch.testing.assert_close(other.state_dict()["model.0.conv.weight"], network.model[0].conv.weight)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_checkpoint_that_runs_code_is_not_opened(saved, tmp_path):
    torch.save({"model": saved[1], "more": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ConfigError, match=r"evil.pt asks for \w+.system, which is no layer, so it is not opened"):
        read_pretrained(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


def test_classes_that_are_no_layers_are_not_made(saved, tmp_path):
    from ultralytics.utils import SettingsManager

    torch.save({"model": saved[1], "kind": SettingsManager}, tmp_path / "kind.pt")
    with pytest.raises(ConfigError, match=r"asks for ultralytics.utils.SettingsManager"):
        read_pretrained(str(tmp_path / "kind.pt"))


def test_a_checkpoint_without_network_is_refused(tmp_path):
    from ultralytics.utils import IterableSimpleNamespace

    torch.save({"model": None, "args": IterableSimpleNamespace(a=1)}, tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"none.pt holds no network"):
        read_pretrained(str(tmp_path / "none.pt"))


def test_loading_leaves_torch_as_it_was(saved):
    before = set(torch.serialization.get_safe_globals())
    read_pretrained(str(saved[0]))
    assert set(torch.serialization.get_safe_globals()) == before
    assert batch().inputs[0].dtype == torch.uint8
