"""Networks by name: shapes, sizes, normalisation inside, weights to start from, freezing, export."""

from __future__ import annotations

from urllib.error import URLError

import numpy as np
import pytest

pytest.importorskip("torchvision")
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from modelwright.errors import ConfigError
from modelwright.weights import load_matching, read_weights
from modelwright_image import weights
from modelwright_image.config import ImageModel
from modelwright_image.model import build_model, head_of, load_pretrained, torchvision_names

SMALL = ["lenet", "cnn", "alexnet", "resnet18", "resnet20"]


def build(name="lenet", *, classes=10, channels=3, size=32, report=lambda line: None, **settings):
    spread = {"mean": [120.0] * channels, "std": [60.0] * channels}
    wanted = ImageModel(name=name, **settings)
    model = build_model(wanted, classes=classes, channels=channels, size=size, **spread)
    if wanted.pretrained:
        report(load_pretrained(model, wanted))
    return model


def pictures(count=2, channels=3, size=32, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 72)])
def test_small_networks_take_any_size(name, channels, size):
    model = build(name, channels=channels, size=size, classes=7, dropout=0.1).eval()
    images = pictures(2, channels, size)
    logits = model(images)["logits"]
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, model(images.float())["logits"])
    torch.testing.assert_close(logits, model(images.contiguous())["logits"], rtol=1e-3, atol=1e-3)


def test_lenet_is_the_network_of_the_tutorial():
    model = build("lenet")
    assert parameters(model) == 62_006
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]
    assert shapes == [(6, 3, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]
    kinds = [type(m).__name__ for m in model.network.children() if not isinstance(m, nn.Identity)]
    conv, full = ["Conv2d", "ReLU", "MaxPool2d"], ["Linear", "ReLU"]
    assert kinds == [*conv, *conv, "Flatten", *full, *full, "Linear"]


def test_small_resnets_have_the_parameters_of_the_paper():
    found = {name: parameters(build(name)) for name in ("resnet20", "resnet32", "resnet56")}
    # 0.27, 0.46 and 0.85 million (He et al. 2015, table 6)
    assert {name: round(n / 1e6, 2) for name, n in found.items()} == {
        "resnet20": 0.27,
        "resnet32": 0.46,
        "resnet56": 0.85,
    }


def test_no_module_of_a_resnet_is_used_twice():
    model, seen = build("resnet20").eval(), []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: seen.append(id(module)))
    model(pictures())
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("kind", "channels", "expected"),
    [
        ("data", 3, lambda x: (x - 120) / 60),
        ("symmetric", 3, lambda x: x / 127.5 - 1),
        ("unit", 1, lambda x: x / 255),
        ("imagenet", 3, lambda x: (x / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
                                  / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)),
        ("imagenet", 1, lambda x: (x / 255 - 1.347 / 3) / (0.678 / 3)),
    ],
)  # fmt: skip
def test_normalisation_lies_inside(kind, channels, expected):
    model = build("lenet", channels=channels, normalize=kind)
    model.network = nn.Identity()
    images = pictures(2, channels)
    torch.testing.assert_close(model(images)["logits"], expected(images.float()), rtol=1e-5, atol=1e-5)


def test_a_channel_without_spread_is_no_division_by_zero():
    model = build_model(ImageModel(), classes=2, channels=1, size=32, mean=[7.0], std=[0.0])
    assert torch.isfinite(model(pictures(1, 1))["logits"]).all()


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121", "googlenet"]
)
def test_torchvision_classifiers_get_the_head_of_the_data(name):
    model = build(f"torchvision/{name}", classes=5, channels=1, size=64).train()
    assert model(pictures(2, 1, 64))["logits"].shape == (2, 5)
    head = head_of(model.network)[1]
    assert 5 in (getattr(head, "out_features", None), getattr(head, "out_channels", None))


def test_a_vision_transformer_takes_the_size_of_the_data():
    model = build("torchvision/vit_b_32", classes=3, size=64).eval()
    assert model(pictures(1, 3, 64))["logits"].shape == (1, 3)


def test_no_detector_is_offered_as_a_classifier():
    assert "resnet50" in torchvision_names()
    assert "fasterrcnn_resnet50_fpn" not in torchvision_names()


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("lenett", 32, r"no network 'lenett' \(did you mean 'lenet'\?\); known are lenet, cnn, alexnet, resnet18"),
        ("resnet50", 32, r"did you mean"),
        ("torchvision/resnet51", 32, r"torchvision has no classifier 'resnet51' \(did you mean 'resnet"),
        ("torchvision/vit_b_32", 50, r"vit_b_32 cannot take pictures of 50 x 50 pixels .*set data.size"),
        ("torchvision/alexnet", 32, r"alexnet cannot take pictures of 32 x 32 pixels .*set data.size"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name, size, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(name, size=size)
    assert "\n" not in str(caught.value)


# Weights to start from ----------------------------------------------------------------------------------------------


def same(a, b, *, but=()):
    return all(torch.equal(x, b[name]) for name, x in a.items() if not name.startswith(tuple(but)))


def test_weights_of_a_file_are_taken_over_with_the_head_only_for_as_many_classes(tmp_path):
    old = build("resnet20")
    torch.save(old.network.state_dict(), tmp_path / "old.pth")
    lines = []
    new = build("resnet20", pretrained=str(tmp_path / "old.pth"), report=lines.append)
    assert same(old.network.state_dict(), new.network.state_dict())
    total = len(old.network.state_dict())
    assert f"{total} of {total} tensors taken over" in lines[0]
    other = build("resnet20", classes=3, pretrained=str(tmp_path / "old.pth"), report=lines.append)
    expected = {name: t for name, t in old.network.state_dict().items() if not name.startswith("fc")}
    assert same(expected, other.network.state_dict())
    assert f"{total - 2} of {total} tensors taken over; left as they were: fc.weight, fc.bias" in lines[1]


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.network.", "a.b."])
def test_prefixes_of_names_do_not_matter(tmp_path, prefix):
    old = build("cnn")
    save_file({prefix + name: t for name, t in old.network.state_dict().items()}, tmp_path / "old.safetensors")
    new = build("cnn", pretrained=str(tmp_path))  # the folder's only file
    assert same(old.network.state_dict(), new.network.state_dict())


def test_a_run_gives_its_best_weights_and_keeps_the_new_normalisation(tmp_path):
    old, worse = build("lenet"), build("lenet")
    for step, model in (("last-000300", worse), ("best-000100", worse), ("best-000200", old)):
        folder = tmp_path / "checkpoints" / step
        folder.mkdir(parents=True)
        save_file({f"model.{name}": t for name, t in model.state_dict().items()}, folder / "model.safetensors")
    new = build("lenet", pretrained=str(tmp_path), normalize="unit")
    assert same(old.network.state_dict(), new.network.state_dict())
    assert new.scale.item() == pytest.approx(1 / 255)


def test_a_wrapped_state_dict_is_found(tmp_path):
    old = build("lenet")
    torch.save({"epoch": 3, "state_dict": old.state_dict()}, tmp_path / "old.pt")
    assert same(old.network.state_dict(), build("lenet", pretrained=str(tmp_path / "old.pt")).network.state_dict())


def test_half_a_head_is_not_taken_over():
    old, new = build("lenet"), build("lenet")
    before = new.network.fc3.bias.clone()
    partial = {name: t for name, t in old.network.state_dict().items() if name != "fc3.weight"}
    load_matching(new.network, partial, head="fc3", source="x")
    assert torch.equal(new.network.fc3.bias, before)


class Harmful:
    def __reduce__(self):
        return (print, ("harm",))


def test_weights_that_cannot_be_had_are_said_in_one_line(tmp_path, capsys):
    def message(path):
        with pytest.raises(ConfigError) as caught:
            build("lenet", pretrained=str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no" in message(tmp_path / "absent.pth")
    assert "holds no weights" in message(tmp_path)
    (tmp_path / "text.safetensors").write_text("no weights")
    assert "could not be read" in message(tmp_path / "text.safetensors")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    assert "save model.state_dict()" in message(tmp_path / "empty.pth")
    assert "several files with weights (empty.pth, text.safetensors): name the file" in message(tmp_path)
    torch.save(build("cnn").state_dict(), tmp_path / "cnn.pth")
    assert "no tensor of" in message(tmp_path / "cnn.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds no weights" in message(tmp_path / "list.pth")
    torch.save({"x": Harmful()}, tmp_path / "code.pth")
    assert "could not be read" in message(tmp_path / "code.pth")
    assert "harm" not in capsys.readouterr().out


def test_default_weights_come_from_torchvision(monkeypatch):
    other = torchvision.models.resnet18(num_classes=1000)
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: other.state_dict())
    model = build("torchvision/resnet18", pretrained="default", classes=4)
    assert same(other.state_dict(), model.network.state_dict(), but=["fc"])
    with pytest.raises(ConfigError, match="needs a network of torchvision, and lenet is none"):
        build("lenet", pretrained="default")


def test_default_weights_without_a_network_are_said_in_one_line(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(ConfigError, match=r"could not be fetched \(URLError\): fetch it on a machine with a network"):
        weights.download("resnet18")


def test_reading_gives_tensors(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pth")
    assert torch.equal(read_weights(str(tmp_path / "a.pth"))["a"], torch.ones(2))


# Freezing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20", "torchvision/squeezenet1_1"])
def test_freeze_trains_only_the_head(tmp_path, name):
    torch.save(build(name, size=64).network.state_dict(), tmp_path / "old.pth")
    model = build(name, size=64, classes=4, pretrained=str(tmp_path / "old.pth"), freeze=True)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    head = "network." + head_of(model.network)[0]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {f"{head}.weight", f"{head}.bias"}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(pictures(4, 3, 64))["logits"].square().sum().backward()
    optimizer.step()
    changed = {key for key, t in model.state_dict().items() if not torch.equal(t, before[key])}
    assert changed <= {f"{head}.weight", f"{head}.bias"}
    assert changed


def test_freeze_without_weights_is_an_error():
    with pytest.raises(ConfigError, match=r"needs model\.pretrained"):
        build("resnet20", freeze=True)


def test_a_network_of_nothing_has_no_head():
    with pytest.raises(ValueError, match="no head"):
        head_of(nn.ReLU())


# Serving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "channels", "size"), [("lenet", 1, 8), ("cnn", 3, 64), ("resnet20", 3, 32)])
def test_exports_to_onnx_with_a_free_batch(tmp_path, name, channels, size):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = build(name, channels=channels, size=size).eval()
    batch = torch.export.Dim("batch", min=1)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model, (pictures(2, channels, size),), path, dynamo=True, dynamic_shapes={"image": {0: batch}}, verbose=False
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = pictures(count, channels, size, seed=count)
        found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(found, model(images)["logits"].numpy(), rtol=1e-3, atol=1e-4)
