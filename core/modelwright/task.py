"""The contract between the engine and a task. Knows torch; knows neither the trainer nor any plugin.

The data goes one way through it::

    datasets -> [codec.prepare, codec.collate] -> Batch -> augment -> model -> loss            (training)
    datasets -> [codec.prepare, codec.collate] -> Batch -> served model -> codec.decode -> measure -> metrics

What a plugin must write is marked "required"; everything else has a default that suits the simple case.
docs/architecture.md shows how classification, detection, speech and tables each fit.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from modelwright.codec import Codec, Columns, Context
from modelwright.data import Dataset, Datasets, Example, Facts, Input, Key, Keys, Size, Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from modelwright.config import TaskConfig

__all__ = [
    "Batch",
    "Dataset",
    "Datasets",
    "Evaluated",
    "Example",
    "Facts",
    "Figure",
    "Input",
    "Key",
    "Keyed",
    "Keys",
    "Losses",
    "Objective",
    "Progress",
    "Recording",
    "Schedule",
    "Size",
    "Split",
    "Task",
    "map_tensors",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Objective:
    """The metric that decides which weights are best.

    >>> Objective("accuracy", "max").better(0.9, than=0.8)
    True
    """

    metric: str
    goal: Literal["max", "min"]

    def better(self, value: float, *, than: float | None) -> bool:
        """Whether `value` beats `than`; anything beats None, and a value that is not a number beats nothing."""
        if value != value:
            return False
        if than is None:
            return True
        return value > than if self.goal == "max" else value < than


@dataclass
class Batch:
    """Samples of one step.

    Attributes:
        inputs: tensors in the order of `Task.inputs`, batch first.
        targets: name -> tensor, or lists and dicts of tensors where sizes differ.
        ids: int64 on the CPU: each sample's index in its dataset.
        context: what the codec needs to decode the outputs.
        hints: inputs of the training graph only (denoising labels, teacher tokens); empty otherwise, never exported.
    """

    inputs: tuple[Tensor, ...]
    targets: dict[str, Any]
    ids: np.ndarray
    context: Context | None = None
    hints: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`; the structure stays."""
        move = cast("Callable[[Any], Any]", lambda tensor: tensor.to(device, non_blocking=True))
        return dataclasses.replace(
            self,
            inputs=map_tensors(move, self.inputs),
            targets=map_tensors(move, self.targets),
            hints=map_tensors(move, self.hints),
        )


def map_tensors(change: Callable[[Tensor], Tensor], tree: T) -> T:
    """`tree` with `change` applied to each tensor in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return cast("T", change(tree))
    if isinstance(tree, dict):
        return cast("T", {k: map_tensors(change, v) for k, v in cast("dict[Any, Any]", tree).items()})
    if isinstance(tree, (list, tuple)):
        changed = [map_tensors(change, v) for v in cast("list[Any]", tree)]
        named = hasattr(cast("Any", tree), "_fields")  # a named tuple takes its values one by one
        return cast("T", type(tree)(*changed) if named else type(tree)(changed))
    return tree


@dataclass(frozen=True)
class Losses:
    """A loss before it is divided.

    Attributes:
        sum: scalar tensor, the loss summed over the batch.
        weight: what the core divides by, summed over all micro-batches and ranks (mostly the number of samples).
            None: nothing divides; the loss is normalised over its batch already, and micro-batches and ranks add.
        parts: named summands to report, on the same scale as `sum`.
    """

    sum: Tensor
    weight: Tensor | float | None
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Progress:
    """How far training is. Anything that changes with time is a function of this and of nothing else.

    Attributes:
        step: optimizer steps done.
        steps: optimizer steps in the whole run.
        epoch: the current epoch, from 0.
        epochs: epochs in the whole run.
        seed: the run's seed.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    seed: int = 0

    @property
    def fraction(self) -> float:
        """0.0 at the start, 1.0 at the end."""
        return self.step / max(self.steps, 1)


Schedule: TypeAlias = Callable[[Progress, Mapping[str, Any]], Mapping[str, float]]
"""(progress, a parameter group with its `initial_lr`) -> values to set in the group, for example {"lr": 0.01}."""


class Keyed(Protocol):
    """Random numbers for augmentation: a pure function of (seed, epoch, sample id, name)."""

    def __call__(self, name: str, columns: int = 1) -> np.ndarray:
        """Uniform float64 in [0, 1), shape (samples, columns): one row per sample."""
        ...


@dataclass(frozen=True)
class Recording:
    """A sound to listen to in the report. `wav`: a WAV file."""

    title: str
    wav: bytes


@dataclass(frozen=True)
class Figure:
    """A picture for the report. `name` becomes the file's name; `sounds` can be played below it."""

    name: str
    title: str
    caption: str
    figure: MatplotlibFigure
    sounds: Sequence[Recording] = ()


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found, for `Task.settle` and `Task.figures`.

    Attributes:
        predict: the model that was evaluated, to be asked further questions: arrays in the order of `Task.inputs`,
            batch first, give its named outputs as arrays. No gradients.
    """

    split: str
    dataset: Dataset
    predictions: Columns
    truths: Columns
    measured: Columns
    predict: Callable[..., Mapping[str, np.ndarray]]


class Task(ABC):
    """One kind of problem: data, model, loss and metrics.

    Args:
        config: the task's settings. `facts` are set by the core right after `find_facts` or on loading a run,
            before anything else is asked.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.facts = Facts()

    # What the task is (required) -------------------------------------------------------------------------------

    # Attributes, or properties where they depend on `facts`.

    inputs: tuple[Input, ...]
    """Required. The model's inputs, in the order of its arguments."""
    objective: Objective
    """Required. The metric that decides."""
    codec: Codec
    """Required. The torch-free half."""
    licence: str = ""
    """A line for the card of each bundle, where what the model stands on asks for one (AGPL, for example)."""

    # Data -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def datasets(self) -> Datasets:
        """Required. Called once per process; must give the same data every time.

        Raises:
            DataError: data are missing or broken.
        """

    def find_facts(self, datasets: Datasets) -> Facts:
        """What model and codec need to know of the training data. Called once, on rank 0; stored with the run."""
        return Facts()

    def empty(self) -> Example | None:
        """A sample with nothing to find in it (no box, no word), where the task knows such; for the contract kit."""
        return None

    def collate(self, examples: Sequence[Example], ids: np.ndarray) -> Batch:
        """Examples as a batch; the default goes through the codec and stacks the targets."""
        arrays, context = self.codec.collate(self.codec.prepare([example.raw for example in examples]))
        rows = context.rows
        names = list(examples[0].targets) if examples else []
        targets = {name: torch.from_numpy(np.stack([np.asarray(e.targets[name]) for e in examples])) for name in names}
        if not np.array_equal(rows, np.arange(len(examples))):
            targets = {name: target[torch.from_numpy(rows)] for name, target in targets.items()}
        inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in self.inputs)
        return Batch(inputs, targets, ids[rows], context)

    def order(
        self, size: int, *, batch_size: int, epoch: int, epochs: int, rng: np.random.Generator
    ) -> Sequence[np.ndarray]:
        """The batches of an epoch as index arrays; each is the whole batch of one optimizer step.

        The default is a permutation cut into batches, the last one smaller. Bucketing and curricula live here.
        Must be a pure function of its arguments (and of the data), so that the order can be listed for the whole run.
        """
        shuffled = rng.permutation(size)
        return [shuffled[start : start + batch_size] for start in range(0, size, batch_size)]

    def augment(self, batch: Batch, keyed: Keyed, progress: Progress) -> Batch:
        """A training batch, changed; on its device, on the raw scale. May return floats and soft targets."""
        return batch

    # Model and loss -----------------------------------------------------------------------------------------------

    @abstractmethod
    def model(self) -> nn.Module:
        """Required. Takes `inputs` (raw values) and gives a dict of named tensors, the same in train and eval mode."""

    def initialize(self, model: nn.Module) -> str | None:
        """Weights to start from (`model.pretrained`); called once at the start of a run, never when one is loaded.

        Returns:
            A line for the user: what was taken over.
        """
        return None

    def served(self, model: nn.Module) -> nn.Module:
        """What is evaluated, timed, counted, quantized and exported; by default the model itself."""
        return model

    def criterion(self, model: nn.Module) -> nn.Module | None:
        """A loss with parameters, buffers or counters of its own; they join the optimizer and the checkpoint."""
        return None

    @abstractmethod
    def loss(
        self, criterion: nn.Module | None, outputs: Mapping[str, Tensor], batch: Batch, progress: Progress
    ) -> Losses:
        """Required. The summed loss of a batch and the weight to divide it by."""

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups of the optimizer; the default puts no weight decay on norms, biases and other vectors."""
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def schedules(self) -> Mapping[str, Schedule]:
        """Further learning-rate schedules by name, beside the engine's own (a library's, for parity with it)."""
        return {}

    # Truth and metrics ----------------------------------------------------------------------------------------------

    @abstractmethod
    def truths(self, batch: Batch) -> Columns:
        """Required. What is true of each sample, one row per sample, in the batch's order."""

    def measure(self, predictions: Columns, truths: Columns) -> Columns:
        """The costly part of scoring, done once (matching boxes, aligning words); by default both side by side."""
        return predictions.beside(truths)

    @abstractmethod
    def metrics(self, measured: Columns) -> dict[str, float]:
        """Required. Pure; called once per bootstrap resample. A name with a slash ("f1/cat") is a detail."""

    @abstractmethod
    def perfect(self, truths: Columns) -> Columns:
        """Required. The predictions that score best, for the contract kit."""

    # Capabilities: what is not offered is said, never faked -----------------------------------------------------

    def prunable(self, model: nn.Module) -> Iterable[nn.Module] | None:
        """The layers whose channels may be taken out; None: pruning is not offered.

        The default is all of them. What gives the outputs is never touched, nor what the engine cannot follow.
        """
        return model.modules()

    def distill_loss(
        self,
        outputs: Mapping[str, Tensor],
        teacher: Mapping[str, Tensor],
        batch: Batch,
        progress: Progress,
        *,
        temperature: float,
    ) -> Losses | None:
        """How far a student's outputs are from a teacher's on the same batch; None: distillation is not offered.

        Args:
            teacher: the teacher's outputs by name, without gradient.
            temperature: softens both sides where they are distributions.
        """
        return None

    def teachers(self) -> Mapping[str, Callable[[Datasets], Callable[[Batch], Mapping[str, Tensor]]]]:
        """Teachers of the task's own (a tree ensemble for tables), by the name that a recipe's `teacher` takes.

        Each is fitted on the training split when a stage asks for it, and then says of a batch what a model would.
        """
        return {}

    def settle(self, evaluated: Evaluated) -> Mapping[str, Any]:
        """What is found on validation data once weights are final: a calibrator, a cut-off, thresholds.

        Asked for a run and for each of its variants, where there is a validation split.

        Args:
            evaluated: with predictions of a codec that was not settled yet.

        Returns:
            JSON values; they become ``facts.values["settled"]``, so that the codec, and every bundle with it, has them.
        """
        return {}

    def explainer(self, model: nn.Module) -> nn.Module | None:
        """A module with the inputs of `model` whose outputs say why it answers as it does; None: not offered.

        It is exported beside the model; `Codec.explain` makes words of its outputs.

        Args:
            model: as `served` gives it, in eval mode.
        """
        return None

    def figures(self, evaluated: Evaluated) -> Iterator[Figure]:
        """Pictures for the report."""
        return iter(())
