"""Detectors as ONNX graphs: boxes agree to a hundredth of a pixel and scores to a thousandth, at any batch."""

from __future__ import annotations

import pytest

pytest.importorskip("torchvision")
import numpy as np
import onnxruntime
import torch
from tests.plugins.detection.models_made import make, need_ultralytics, pictures, stirred

from modelwright.bundle.export import Export
from modelwright.data import Input
from modelwright_detection import model

NAMES = ["yolo26n", "yolo11n", "ssdlite320", "d-fine", "rt-detr"]
SIDE = 128


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_says_what_its_model_says(name, tmp_path):
    if name.startswith("yolo"):
        need_ultralytics()
    if name in model.SETS:
        pytest.importorskip("transformers")
    served = stirred(make(name, side=SIDE), side=SIDE).served().eval()
    path = tmp_path / "model.onnx"
    with torch.no_grad():
        inputs = (Input("image", (3, SIDE, SIDE), "uint8"),)
        export = Export(served, inputs, ["boxes", "scores"], (pictures(3, side=SIDE),), pytest.fail)
        assert export.write_onnx(path) == "dynamo"
    session = onnxruntime.InferenceSession(path)
    for count in (1, 3, 4):
        # Pictures that the statistics are of: on others a random network is so ill-conditioned that even torch's own
        # answers in 32 and 64 bits lie a tenth of a pixel apart.
        given = pictures(count, side=SIDE)
        with torch.no_grad():
            expected = served(given)
        for key, found in zip(("boxes", "scores"), session.run(None, {"image": given.numpy()}), strict=True):
            assert float(expected[key].std()) > 1e-3, key
            close = 1e-2 if key == "boxes" else 1e-3
            np.testing.assert_allclose(found, expected[key].numpy(), rtol=0, atol=close, err_msg=key)
