"""RT-DETR and D-FINE of transformers as detectors, with their own set losses. Knows neither training loops nor files.

Zhao et al.: DETRs Beat YOLOs on Real-time Object Detection, CVPR 2024, https://arxiv.org/abs/2304.08069;
Peng et al.: D-FINE, ICLR 2025, https://arxiv.org/abs/2410.13842. Both under Apache-2.0.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelwright.errors import PluginError
from modelwright.task import Batch, Losses, Progress
from modelwright_detection.config import LossConfig
from modelwright_detection.detector import DetectionLoss, Detector, centre_size, corners, trained_on

INSTALL = 'pip install "modelwright[detection-permissive]"'

_B0: Mapping[str, Any] = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "hidden_sizes": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
"""HGNetV2-B0, the backbone of the small D-FINE."""

PLANS: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "d-fine": (
        "d_fine",
        {**_B0, "out_indices": [3, 4]},
        {
            "encoder_in_channels": [512, 1024],
            "encoder_hidden_dim": 128,
            "encoder_ffn_dim": 512,
            "encode_proj_layers": [1],
            "hidden_expansion": 0.34,
            "depth_mult": 0.5,
            "feat_strides": [16, 32],
            "num_feature_levels": 2,
            "d_model": 128,
            "decoder_in_channels": [128, 128],
            "decoder_ffn_dim": 512,
            "decoder_layers": 3,
            "decoder_n_points": [6, 6],
        },
    ),
    "d-fine-s": (
        "d_fine",
        {**_B0, "out_indices": [2, 3, 4]},
        {
            "encoder_in_channels": [256, 512, 1024],
            "hidden_expansion": 0.5,
            "depth_mult": 0.34,
            "decoder_layers": 3,
            "decoder_n_points": [3, 6, 3],
        },
    ),
    "rt-detr": (
        "rt_detr",
        {"hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1], "embedding_size": 32, "layer_type": "basic"},
        {
            "encoder_in_channels": [64, 128, 256],
            "encoder_hidden_dim": 128,
            "encoder_ffn_dim": 512,
            "hidden_expansion": 0.5,
            "d_model": 128,
            "decoder_in_channels": [128, 128, 128],
            "decoder_ffn_dim": 512,
            "decoder_layers": 3,
        },
    ),
    "rt-detr-r18": (
        "rt_detr",
        {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
        {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 3},
    ),
}
"""Name -> kind, settings of the backbone, settings of the rest. d-fine is the published nano, d-fine-s the small one,
rt-detr-r18 that on ResNet-18; rt-detr is a sixth of it, for training from scratch."""
_CLASSES = {"d_fine": "DFine", "rt_detr": "RTDetr"}
_BACKBONES = {"d_fine": "HGNetV2Config", "rt_detr": "RTDetrResNetConfig"}


def transformers(name: str) -> Any:
    """The library.

    Args:
        name: the detector that wants it, for the error.

    Raises:
        PluginError: it is not installed, or cannot be imported.
    """
    if importlib.util.find_spec("transformers") is None:
        raise PluginError(f"{name} needs transformers, which is not installed: {INSTALL}")
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise PluginError(f"transformers could not be imported ({error}): {INSTALL}") from error


class SetDetector(Detector):
    """A transformer that says a set of objects at once.

    Args:
        name: one of `PLANS`.
        size: side of the pictures in pixels.
        queries: objects that it can find at most; fewer where the picture has fewer places.
        gains: of the parts of the loss.

    Raises:
        PluginError: transformers is not installed, or a version that does not know the detector.
    """

    def __init__(self, name: str, *, classes: int, size: int, queries: int, gains: LossConfig) -> None:
        config, whole = _network(name, classes=classes, size=size, queries=queries, gains=gains)
        # Without what is around it, which holds copies of its heads.
        super().__init__(whole.model, needs_nms=False)
        self.config = config

    def forward(self, image: Tensor, **hints: Tensor) -> dict[str, Tensor]:
        """Boxes, scores, and raw outputs.

        Raw are `logits` and `places` of each layer of the decoder, `first_logits` and `first_places` of what it begins
        with, and of D-FINE `distances` and `origins`.

        Args:
            hints: `boxes` (B, M, 4) and `labels` (B, M), -1 as padding. Spoilt, they become further queries, which come
                first in the raw outputs and are not served (denoising, https://arxiv.org/abs/2203.03605).
        """
        height, width = image.shape[-2:]
        sides = torch.tensor([width, height, width, height], device=image.device)
        labels = _labels(hints["boxes"], hints["labels"], hints["labels"] >= 0, sides) if hints else []
        raw = self._run(image.float() / 255, labels)
        queries = self.config.num_queries
        places, logits = raw["places"][:, -1, -queries:], raw["logits"][:, -1, -queries:]
        if self.training:
            places, logits = places.detach(), logits.detach()
        return {"boxes": corners(places) * sides, "scores": logits.sigmoid(), **raw}

    def answer(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores; in evaluation nothing else is computed."""
        outputs = self(image)
        return outputs["boxes"], outputs["scores"]

    def criterion(self) -> SetLoss:
        """The loss of transformers."""
        return SetLoss(self.config)

    def head(self) -> Iterable[nn.Module]:
        """What says classes and boxes, of the encoder and of each layer of the decoder."""
        network: Any = self.network
        decoder = network.decoder
        own = ("enc_score_head", "enc_bbox_head", "denoising_class_embed")
        return [decoder.class_embed, decoder.bbox_embed, *(getattr(network, name) for name in own)]

    def _run(self, pixels: Tensor, labels: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """From pixels to raw outputs, with the parts of the library's network.

        Its own way through them takes the number of pictures for a constant, so the graph would be of one batch size.
        """
        network: Any = self.network
        maps = network.backbone.model(pixels).feature_maps
        maps = [project(each) for project, each in zip(network.encoder_input_proj, maps, strict=True)]
        encoded = network.encoder(maps).last_hidden_state
        maps = [project(each) for project, each in zip(network.decoder_input_proj, encoded, strict=True)]
        shapes = [(int(each.shape[2]), int(each.shape[3])) for each in maps]
        memory = torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)

        anchors, valid = network.generate_anchors(tuple(shapes), device=memory.device, dtype=memory.dtype)
        seen = network.enc_output(valid.to(memory.dtype) * memory)
        all_logits = network.enc_score_head(seen)
        all_places = network.enc_bbox_head(seen) + anchors
        best = _best(all_logits, self.config.num_queries).unsqueeze(2)
        first_logits, first_places, queries = (
            each.gather(1, best.expand(-1, -1, each.shape[2])) for each in (all_logits, all_places, seen)
        )

        begins, queries, mask = first_places, queries.detach(), None
        if self.training and labels:
            spoilt, spoilt_places, mask = self._spoil(labels)
            if spoilt is not None:
                queries, begins = torch.cat([spoilt, queries], dim=1), torch.cat([spoilt_places, begins], dim=1)
        sizes = torch.tensor(shapes, device=memory.device)
        with _unchecked():
            said: Any = network.decoder(
                inputs_embeds=queries,
                encoder_hidden_states=memory,
                encoder_attention_mask=mask,
                reference_points=begins.detach(),
                spatial_shapes=sizes,
                spatial_shapes_list=shapes,
                level_start_index=torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]]),
            )
        raw = {
            "logits": said.intermediate_logits,
            "places": said.intermediate_reference_points,
            "first_logits": first_logits,
            "first_places": first_places.sigmoid(),
        }
        if self.config.model_type == "d_fine":
            raw |= {"distances": said.intermediate_predicted_corners, "origins": said.initial_reference_points}
        return raw

    def _spoil(self, labels: list[dict[str, Tensor]]) -> tuple[Tensor | None, Tensor, Tensor]:
        """Known objects with spoilt classes and places, and what may look at what; None: there are no objects."""
        config = self.config
        kind = config.model_type
        module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
        return module.get_contrastive_denoising_training_group(
            targets=labels,
            num_classes=config.num_labels,
            num_queries=config.num_queries,
            class_embed=cast("Any", self.network).denoising_class_embed,
            num_denoising_queries=config.num_denoising,
            label_noise_ratio=config.label_noise_ratio,
            box_noise_scale=config.box_noise_scale,
        )[:3]


class SetLoss(DetectionLoss):
    """Varifocal loss, L1 and generalised IoU over the cheapest assignment of objects to queries, for each layer.

    transformers divides by the number of objects in the batch; that is undone here and the number given as weight, so
    that micro-batches and ranks add up. Not so the groups of spoilt boxes, whose number follows from the picture with
    the most objects in a micro-batch, and D-FINE's distillation between layers, a mean over queries.

    Args:
        config: of the detector, with the gains.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._config = config
        kind = config.model_type
        module = importlib.import_module(f"transformers.loss.loss_{kind}")
        self._loss = getattr(module, f"{_CLASSES[kind]}ForObjectDetectionLoss")

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress) -> Losses:
        """The loss summed over objects and their number; parts over all layers."""
        boxes, labels, wanted = trained_on(batch)
        height, width = batch.inputs[0].shape[-2:]
        targets = _labels(boxes, labels, wanted, torch.tensor([width, height, width, height], device=boxes.device))
        logits, places = outputs["logits"].float(), outputs["places"].float()
        extra = {"predicted_corners": "distances", "initial_reference_points": "origins"}
        _, found, _ = self._loss(
            logits[:, -1],
            targets,
            boxes.device,
            places[:, -1],
            self._config,
            logits,
            places,
            enc_topk_logits=outputs["first_logits"].float(),
            enc_topk_bboxes=outputs["first_places"].float(),
            denoising_meta_values=self._spoilt(logits.shape[2], targets),
            **{theirs: outputs[ours].float() for theirs, ours in extra.items() if ours in outputs},
        )
        count = wanted.sum()
        parts: dict[str, Tensor] = {}
        for name, value in cast("Mapping[str, Tensor]", found).items():
            part = {"bbox": "l1"}.get(name.split("_")[1], name.split("_")[1])
            parts[part] = parts.get(part, 0.0) + value * count.clamp(min=1)
        return Losses(torch.stack(list(parts.values())).sum(), count, parts)

    def _spoilt(self, rows: int, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Any] | None:
        """Which of the raw rows are spoilt boxes, and of which object; None: there are none.

        Each group holds the objects of every picture twice, padded to the longest: slightly spoilt, then badly.
        """
        queries = self._config.num_queries
        further = rows - queries
        if further == 0:
            return None
        counts = [len(target["class_labels"]) for target in targets]
        longest = max(counts)
        groups = further // (2 * longest)
        device = targets[0]["boxes"].device
        starts = torch.arange(groups, device=device).unsqueeze(1) * 2 * longest
        return {
            "dn_positive_idx": [(starts + torch.arange(count, device=device)).flatten() for count in counts],
            "dn_num_group": groups,
            "dn_num_split": [further, queries],
        }


def _best(logits: Tensor, count: int) -> Tensor:
    """The places with the highest logits, (B, count), in the order of places.

    The library orders them by score, in which another runtime's rounding exchanges neighbours: the rows of a graph
    would disagree with the model's. For the same reason equals are told apart by their place.
    """
    steps = (logits.max(-1).values.float() * 1024).round().long()
    last_first = torch.arange(steps.shape[1], device=steps.device).flip(0)
    return (steps * steps.shape[1] + last_first).topk(count, dim=1).indices.sort(dim=1).values


def _labels(boxes: Tensor, labels: Tensor, wanted: Tensor, sides: Tensor) -> list[dict[str, Tensor]]:
    """Targets as transformers wants them: of each picture, classes and centre and size as shares of the sides."""
    shares = centre_size(boxes.float()) / sides
    return [
        {"class_labels": names[keep], "boxes": some[keep]}
        for some, names, keep in zip(shares, labels, wanted, strict=True)
    ]


@contextlib.contextmanager
def _unchecked() -> Generator[None]:
    """While a graph is traced, transformers checks no sizes: ONNX has no operation for that."""
    if not torch.compiler.is_exporting():
        yield
        return
    name = "TRANSFORMERS_DISABLE_TORCH_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _network(name: str, *, classes: int, size: int, queries: int, gains: LossConfig) -> tuple[Any, Any]:
    """Configuration and network with fresh weights."""
    library = transformers(name)
    kind, backbone, rest = PLANS[name]
    strides = rest.get("feat_strides", [8, 16, 32])
    options = {
        "num_labels": classes,
        "num_queries": min(queries, sum((size // stride) ** 2 for stride in strides)),
        # Statistics of a fresh backbone are none yet.
        "freeze_backbone_batch_norms": False,
        "weight_loss_vfl": gains.vfl,
        "weight_loss_bbox": gains.l1,
        "weight_loss_giou": gains.giou,
    }
    try:
        body = getattr(library, _BACKBONES[kind])(**{"out_indices": [2, 3, 4], **backbone})
        config = getattr(library, f"{_CLASSES[kind]}Config")(backbone_config=body, **rest, **options)
        return config, getattr(library, f"{_CLASSES[kind]}ForObjectDetection")(config)
    except (AttributeError, TypeError) as error:
        raise PluginError(
            f"the transformers {library.__version__} that is installed does not know {name}: {INSTALL} --upgrade"
        ) from error
