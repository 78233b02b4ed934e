"""Weights from files, folders and runs: what fits is taken, what cannot be read is said in a line."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modelwright.errors import ConfigError
from modelwright.weights import find_weights, load_matching, read_weights


def network(width=4, classes=2):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))


@pytest.mark.parametrize("prefix", ["", "module.", "network.model."])
def test_names_may_have_a_prefix(prefix):
    source, target = network(), network()
    loaded = load_matching(target, {prefix + name: t for name, t in source.state_dict().items()}, source="it")
    assert str(loaded) == "9 of 9 tensors taken over"
    torch.testing.assert_close(target.state_dict(), source.state_dict())


def test_what_does_not_fit_stays():
    source, target = network(classes=5), network(classes=2)
    before = target[2].weight.clone()
    loaded = load_matching(target, source.state_dict(), source="it")
    assert str(loaded) == "7 of 9 tensors taken over; left as they were: 2.weight, 2.bias"
    torch.testing.assert_close(target[0].weight, source[0].weight)
    assert torch.equal(target[2].weight, before)


def test_many_names_are_cut():
    loaded = load_matching(network(), dict(list(network().state_dict().items())[:4]), source="it")
    assert str(loaded).endswith(" and 1 more")


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match=r"only 2 of 9 tensors of it fit.*set model.name"):
        load_matching(network(), network(width=8).state_dict(), source="it", least=0.5)
    with pytest.raises(ConfigError, match="no tensor of it fits the network"):
        load_matching(network(), {"other": torch.ones(2)}, source="it")


def test_half_a_head_is_none():
    source, target = network(), network()
    before = target[2].bias.clone()
    state = {name: value for name, value in source.state_dict().items() if name != "2.weight"}
    assert str(load_matching(target, state, source="it", head="2")).startswith("7 of 9 tensors taken over")
    assert torch.equal(target[2].bias, before)


def test_a_library_may_read_its_own_files(tmp_path):
    (tmp_path / "own.pt").write_bytes(b"anything")
    assert read_weights(str(tmp_path), load=lambda path: {"w": torch.ones(2)})["w"].tolist() == [1, 1]


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("nested", [False, True])
def test_files_give_their_tensors(tmp_path, ending, nested):
    state = network().state_dict()
    path = tmp_path / f"some{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state, "epoch": 3} if nested else state, path)
    torch.testing.assert_close(read_weights(str(path)), dict(state))
    torch.testing.assert_close(read_weights(str(tmp_path)), dict(state))


def test_a_run_gives_its_newest_best_checkpoint(tmp_path):
    for number, name in enumerate(("step-0000009", "last-0000009", "best-0000003", "best-0000006")):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        save_file({"w": torch.tensor([float(number)])}, folder / "model.safetensors")
    assert read_weights(str(tmp_path))["w"].item() == 3


class Evil:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda path: path.write_bytes(b""), "could not be read"),
        (lambda path: path.write_bytes(b"no weights"), "could not be read"),
        (lambda path: torch.save({"model": Evil()}, path), r"could not be read \(UnpicklingError\)"),
        (lambda path: torch.save({"epoch": 3}, path), "holds no weights"),
        (lambda path: torch.save([1, 2], path), "holds no weights"),
        (lambda path: None, "there is no"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, write, match, capsys):
    path = tmp_path / "some.pt"
    write(path)
    with pytest.raises(ConfigError, match=match):
        read_weights(str(path))
    assert "ran" not in capsys.readouterr().out


def test_folders_hold_one_file_with_weights(tmp_path):
    with pytest.raises(ConfigError, match="holds no weights: name the file"):
        find_weights(tmp_path)
    for name in ("one.pt", "two.pth"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"several files with weights \(one.pt, two.pth\)"):
        find_weights(tmp_path)
