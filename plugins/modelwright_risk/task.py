"""Risk scoring as the engine asks for it. Knows the contract and the parts of this plugin, no trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelwright.codec import Columns
from modelwright.errors import ConfigError
from modelwright.task import Batch, Datasets, Evaluated, Facts, Figure, Input, Losses, Objective, Progress, Task
from modelwright_risk import data, explain, figures, metrics, settling, teacher
from modelwright_risk.codec import RiskCodec
from modelwright_risk.config import RiskConfig
from modelwright_risk.model import build_network
from modelwright_risk.schema import Schema
from modelwright_risk.streaming import StreamedTable

SURE = 30.0
"""Log-odds of a prediction that leaves no doubt."""


class ClassWeights(nn.Module):
    """The weight of a good and of a bad applicant; a module so that it moves with the model."""

    weights: Tensor

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))


class RiskTask(Task):
    """Says how likely an applicant is to default.

    Raises:
        ConfigError: weights to start from, which are not offered.
    """

    def __init__(self, config: RiskConfig) -> None:
        super().__init__(config)
        if config.model.pretrained is not None or config.model.freeze:
            raise ConfigError(
                "model.pretrained, model.freeze: risk-scoring learns each table from the start; leave them empty, or "
                "let another run teach: modelwright compress RUN with the stage distill"
            )
        self.settings = config
        self._train: StreamedTable | None = None

    @property
    def schema(self) -> Schema:
        """The columns that the model sees."""
        return Schema.from_json(self.facts.values["schema"])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Raw numbers and codes of categories; one of them alone where a table has no others."""
        numbers, codes = len(self.schema.numeric), len(self.schema.categorical)
        both = Input("numbers", (numbers,), "float32"), Input("codes", (codes,), "int64")
        return tuple(each for each, width in zip(both, (numbers, codes), strict=True) if width)

    @property
    def objective(self) -> Objective:
        """Log-loss decides: it asks for rank and for calibration."""
        return Objective("log_loss", "min")

    @property
    def settled(self) -> Mapping[str, Any]:
        """What was found on validation data; before that, plain probabilities, and the cut-off that costs suggest."""
        score = self.settings.score
        cutoff = score.cutoff or score.cost_good / (score.cost_good + score.cost_bad)
        return self.facts.values.get("settled") or {"calibrator": {"kind": "none"}, "cutoff": cutoff}

    @property
    def codec(self) -> RiskCodec:
        """Cells to numbers and codes; log-odds to probability, points and decision."""
        values, score = self.facts.values, self.settings.score
        return RiskCodec(
            columns=tuple(values["schema"]),
            identifiers=tuple(values["identifiers"]),
            calibrator=self.settled["calibrator"],
            cutoff=self.settled["cutoff"],
            scale={"base_points": score.base_points, "base_odds": score.base_odds, "double": score.double},
            reasons=score.reasons,
        )

    # Data -------------------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """The splits of the table that the settings under `data` name; with facts at hand, read as they say."""
        known = data.Known.of(self.facts) if self.facts.values else None
        found = data.load(self.settings, seed=self.settings.seed, known=known)
        train = found.train
        self._train = train if isinstance(train, StreamedTable) else None
        return found

    def find_facts(self, datasets: Datasets) -> Facts:
        """Columns, categories, quantiles and rates of the training rows."""
        return data.find_facts(datasets["train"], bins=self.settings.model.bins)

    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """A permutation; of a table on disk, its groups of rows shuffled and mixed in a buffer."""
        if self._train is not None:
            return self._train.batches(batch_size=batch_size, rng=rng)
        return super().order(size, batch_size=batch_size, epoch=epoch, epochs=epochs, rng=rng)

    # Model and loss -----------------------------------------------------------------------------------------------

    def model(self) -> nn.Module:
        """The network that the settings under `model` name.

        Raises:
            ConfigError: it does not fit the table.
        """
        return build_network(self.settings.model, self.facts)

    def criterion(self, model: nn.Module) -> ClassWeights | None:
        """The class weights, where there are any.

        Raises:
            ConfigError: not two weights.
        """
        wanted = self.settings.loss.class_weights
        if wanted == "none":
            return None
        if wanted == "balanced":
            rate = float(self.facts.values["base_rate"])
            return ClassWeights((0.5 / (1 - rate), 0.5 / rate))
        if len(wanted) != 2:
            raise ConfigError(f"loss.class_weights has {len(wanted)} values: give two, [good, bad]")
        return ClassWeights(wanted)

    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """Cross-entropy; of an ensemble the mean of its members' (each is to be good alone: Gorishniy et al. 2024)."""
        bad = cast("Tensor", batch.targets["bad"])
        logits = outputs["members"] if "members" in outputs else outputs["logit"][:, None]
        losses = F.binary_cross_entropy_with_logits(logits.float(), bad[:, None].expand_as(logits), reduction="none")
        return _weighed(losses.mean(dim=1), _weights(criterion, batch))

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses:
        """The divergence of the softened probabilities from the teacher's (Hinton, Vinyals, Dean 2015)."""
        taught = torch.sigmoid(teacher["logit"].float() / temperature)[:, None]
        logits = outputs["members"] if "members" in outputs else outputs["logit"][:, None]
        said = logits.float() / temperature
        crossed = F.binary_cross_entropy_with_logits(said, taught.expand_as(said), reduction="none")
        # Less the teacher's own entropy, so that agreement costs nothing.
        losses = (crossed - F.binary_cross_entropy(taught, taught, reduction="none")).mean(dim=1)
        return _weighed(losses * temperature**2, _weights(None, batch))

    # Truth and metrics ----------------------------------------------------------------------------------------------

    def truths(self, batch: Batch) -> Columns:
        """`bad`, and where the data have them: weight, codes of protected groups, the true probability."""
        return Columns({name: value.cpu().numpy() for name, value in batch.targets.items()}, batch.ids)

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """What the metrics need, side by side."""
        return Columns(metrics.measure(predictions, truths), truths.ids)

    def metrics(self, measured: Columns) -> dict[str, float]:
        """AUC and the other scores of `modelwright_risk.metrics.scores`."""
        score = self.settings.score
        return metrics.scores(
            measured,
            cutoff=self.settled["cutoff"],
            cost_bad=score.cost_bad,
            cost_good=score.cost_good,
            groups=self.facts.values["protected"],
        )

    def perfect(self, truths: Columns) -> Columns:
        """No doubt about anyone."""
        bad = truths.array("bad") > 0.5
        logit = np.where(bad, SURE, -SURE).astype(np.float32)
        return self.codec.decode({"logit": logit}, None).with_ids(truths.ids)

    # Capabilities -------------------------------------------------------------------------------------------------

    def settle(self, evaluated: Evaluated) -> Mapping[str, Any]:
        """Calibrator and cut-off, and how scores were spread."""
        measured = evaluated.measured
        weight = measured.array("weight") if "weight" in measured else None
        return settling.settled(
            measured.array("logit"), measured.array("bad"), weight=weight, config=self.settings.score
        )

    def explainer(self, model: nn.Module) -> nn.Module | None:
        """Integrated gradients, or a scorecard's own parts."""
        return explain.explainer(model)

    def teachers(self) -> Mapping[str, Callable[[Datasets], Callable[[Batch], Mapping[str, Tensor]]]]:
        """`lightgbm`: an ensemble of trees."""
        return {"lightgbm": lambda datasets: teacher.lightgbm(datasets, seed=self.settings.seed)}

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """What an analyst asks for, see `modelwright_risk.figures`."""
        return figures.draw(
            evaluated,
            facts=self.facts,
            cutoff=float(self.settled["cutoff"]),
            predict=lambda *arrays: evaluated.predict(*arrays)["logit"],
            monotone=self.settings.model.monotone,
        )


def _weights(criterion: nn.Module | None, batch: Batch) -> Tensor | None:
    """What each sample weighs: its own weight times that of its class."""
    weight = cast("Tensor | None", batch.targets.get("weight"))
    if isinstance(criterion, ClassWeights):
        own = criterion.weights[cast("Tensor", batch.targets["bad"]).long()]
        weight = own if weight is None else weight * own
    return weight


def _weighed(losses: Tensor, weight: Tensor | None) -> Losses:
    return Losses(losses.sum(), len(losses)) if weight is None else Losses((losses * weight).sum(), weight.sum())
