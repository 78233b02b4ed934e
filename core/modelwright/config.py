"""Settings: pydantic models, one per stage; YAML in, dotted overrides on top. Knows no torch and no task.

A plugin subclasses `TaskConfig` and puts its own models in place of `data`, `model` and whatever else it needs.
Precedence, lowest first: defaults, recipe, file, ``key=value`` on the command line.
"""

from __future__ import annotations

import difflib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelwright.errors import ConfigError, did_you_mean

C = TypeVar("C", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are checked also on assignment."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        validate_default=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="constants",  # infinity is written as such, not as null
    )


class DataConfig(Settings):
    """Keys that mean the same in every plugin."""

    name: str = ""
    """Which data set or layout."""
    path: str | list[str] | None = None
    """A file, folder or archive (.tar, .tar.gz, .tar.xz, .zip); one for all splits, or one per split."""
    split: str | None = None
    """A CSV that names each sample's split: train, valid (or val), test."""
    on_bad: Literal["error", "skip"] = "error"
    """What to do with bad samples: stop and list them, or leave them out and count them."""


class ModelConfig(Settings):
    """Keys that mean the same in every plugin."""

    name: str = ""
    """Which model."""
    pretrained: str | None = None
    """Weights to start from: a local file, folder or run."""
    freeze: bool = False
    """Train only the new head."""


class OptimizerConfig(Settings):
    """An optimizer of torch.optim by its own name."""

    name: str = "AdamW"
    """A class of torch.optim: SGD, Adam, AdamW, Adagrad, RMSprop, ..."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay; norms and biases get none."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Momentum, where the optimizer has one; empty: the optimizer's own default."""
    options: dict[str, Any] = {}
    """Further arguments of the class, for example {nesterov: true} or {betas: [0.9, 0.98]}."""


class ScheduleConfig(Settings):
    """How the learning rate changes; a pure function of the step."""

    name: str = "cosine"
    """constant, cosine, linear, onecycle, step, or a name that the task registers."""
    warmup: Annotated[float, Field(ge=0)] = 0.0
    """Linear warm-up: a share of all steps below 1, a number of steps from 1 on."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last learning rate as a share of the peak (cosine, linear, onecycle)."""
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.75]
    """Shares of the run after which `step` multiplies the rate by `gamma`."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The factor of `step`."""


class EmaConfig(Settings):
    """An exponential moving average of the weights."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """0: no average is kept."""
    tau: Annotated[float, Field(ge=0)] = 0.0
    """Ramp: the decay of update t is decay * (1 - exp(-t / tau)); 0: constant."""
    use: bool = True
    """Evaluate, keep as best and export the average rather than the raw weights."""


class EarlyStopConfig(Settings):
    """Stops when the objective no longer improves."""

    patience: Annotated[int, Field(ge=0)] = 0
    """Evaluations without improvement before stopping; 0: never."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as an improvement."""


class TrainConfig(Settings):
    """Training."""

    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the training data; ignored where `steps` or `minutes` is given."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """A time budget; turned into a number of steps once, after timing a few, and stored."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Samples of one optimizer step, over all ranks and micro-batches."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Micro-batches that each rank splits its share of a step into."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; empty: no clipping."""
    ema: EmaConfig = EmaConfig()
    early_stop: EarlyStopConfig = EarlyStopConfig()
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two evaluations on the validation split."""
    checkpoint_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between two checkpoints; empty: after each evaluation."""
    select: Literal["best", "last"] = "best"
    """Which weights a run ends with: the best on the validation split (where there is one), or the last."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast of forward and backward; fp16 needs a GPU. Weights stay fp32."""
    channels_last: bool = False
    """Keep images and convolutions channels-last in memory; mostly faster."""
    compile: bool = False
    """torch.compile the model."""
    sync_batch_norm: bool = False
    """Share batch statistics between ranks; on a GPU only."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read data; 0: none. Does not change the result."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of torch on the CPU; empty: torch's own choice."""
    log_every: Annotated[int, Field(ge=1)] = 50
    """Steps between two lines of metrics.jsonl."""


class EvaluateConfig(Settings):
    """Evaluation."""

    batch_size: Annotated[int, Field(ge=1)] = 256
    """Samples of one batch."""
    resamples: Annotated[int, Field(ge=0)] = 1000
    """Bootstrap resamples behind each interval; 0: no intervals."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals."""


class TaskConfig(Settings):
    """All settings of a run. A plugin's config is a subclass."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random derives from it."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    observers: list[str] = ["tensorboard"]
    """Who is told of the run's events besides metrics.jsonl; `modelwright doctor` lists them."""


# YAML ---------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number too, as everybody means it; YAML 1.1 wants 1.0e-3."""


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that `_Loader` would read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        """A value that occurs twice is written twice."""
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Line ends and control characters as escapes: in other quotes some of them are read back as spaces."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _Dumper.represent_text)
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z")
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))  # pyright: ignore


def _parse(text: str) -> Any:
    """Text as YAML.

    Raises:
        ValueError: it is no YAML, or holds an impossible value (a 13th month).
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


# Reading ------------------------------------------------------------------------------------------------------------


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: there is no such file, it is no YAML, or it holds something else than a mapping.
    """
    found = load_yaml(path)
    loaded = {} if found is None else found
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds a {type(loaded).__name__}; settings are written as key: value")
    return cast("dict[str, Any]", loaded)


def load_yaml(path: Path) -> Any:
    """Whatever a YAML file holds.

    Raises:
        ConfigError: there is no such file, or it is no YAML.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{path} could not be read: {reason}; give a YAML file of settings") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no YAML: {error}; modelwright config TASK shows how it is written") from error


def parse_override(text: str) -> tuple[str, Any]:
    """``a.b=value`` as ("a.b", value); the value is read as YAML.

    >>> parse_override("train.optimizer.lr=1e-3")
    ('train.optimizer.lr', 0.001)

    Raises:
        ConfigError: there is no ``=`` or no key, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip(".") or ".." in key:
        raise ConfigError(f"'{text}' is no setting: write key=value, for example train.epochs=20")
    try:
        return key.strip(), _parse(value)
    except ValueError as error:
        raise ConfigError(f"the value of {key} could not be read: quote it, for example {key}='\"...\"'") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` put in, mappings merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value)) if both else value
    return merged


def nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings.

    >>> nest({"train.epochs": 3, "seed": 1})
    {'train': {'epochs': 3}, 'seed': 1}
    """
    nested: dict[str, Any] = {}
    for dotted, value in settings.items():
        for key in reversed(str(dotted).split(".")):
            value = {key: value}
        nested = merge(nested, value)
    return nested


def build_config(
    kind: type[C],
    *,
    layers: Sequence[Mapping[str, Any]] = (),
    overrides: Iterable[str] = (),
) -> C:
    """The effective settings: `layers` (dotted or nested) in rising precedence, then ``key=value`` overrides.

    Raises:
        ConfigError: an unknown key (names the nearest known one), a wrong type or an impossible value.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, nest(layer))
    for override in overrides:
        settings = merge(settings, nest(dict([parse_override(override)])))
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(_explain(kind, error)) from error


def _explain(kind: type[BaseModel], error: ValidationError) -> str:
    """The first problem of a validation as one line."""
    problem = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = known_keys(kind)
        owner = _model_at(kind, path[:-1])
        near = did_you_mean(path[-1], owner.model_fields) if owner else ""
        near = near or did_you_mean(".".join(path), known) or _same_leaf(path[-1], known)
        hint = near or f"; known here: {', '.join(owner.model_fields)}" if owner else near
        return f"unknown setting {'.'.join(path)}{hint}{more}"
    known = known_keys(kind, sections=True)
    name = ".".join(path)
    while name and name not in known:  # pydantic adds the branch of a union to the path
        name = name.rpartition(".")[0]
    message = problem["msg"].removeprefix("Value error, ")
    given = f", got {problem['input']!r}" if problem["type"] != "value_error" else ""
    if problem["type"] == "string_type" and not isinstance(problem["input"], (list, dict, type(None))):
        given += f"; put it in quotes: {name}='\"...\"'"  # 2024, yes or 1e3, read as YAML
    return f"{name or 'settings'}: {message[0].lower() + message[1:]}{given}{more}"


def _same_leaf(leaf: str, known: Iterable[str]) -> str:
    """A hint at a known key whose last part is (nearly) `leaf`: ``lr`` -> ``train.optimizer.lr``."""
    leaves = {key.rpartition(".")[2]: key for key in known}
    near = difflib.get_close_matches(leaf, leaves, n=1)
    return f" (did you mean '{leaves[near[0]]}'?)" if near else ""


def _submodel(annotation: Any) -> type[BaseModel] | None:
    """The settings model behind an annotation, if there is one."""
    if get_origin(annotation) is Annotated:
        return _submodel(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return next((model for arg in get_args(annotation) if (model := _submodel(arg))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _model_at(kind: type[BaseModel], path: Sequence[str]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = kind
    for key in path:
        if model is None or key not in model.model_fields:
            return None
        model = _submodel(model.model_fields[key].annotation)
    return model


def known_keys(kind: type[BaseModel], *, sections: bool = False) -> list[str]:
    """Every dotted key of a settings model; with `sections` also those that hold further keys."""
    return [".".join(path) for path, _, section in _walk(kind) if sections or not section]


def _walk(kind: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    for name, info in kind.model_fields.items():
        inner = _submodel(info.annotation)
        yield (*above, name), info, inner is not None
        if inner is not None:
            yield from _walk(inner, (*above, name))


# Writing ------------------------------------------------------------------------------------------------------------


def to_yaml(config: TaskConfig, *, head: str = "", comments: bool = False) -> str:
    """All settings as YAML that `read_yaml` and `build_config` read back to the same settings.

    Args:
        head: a first comment line.
        comments: put what each setting means above it.
    """
    lines = [f"# {' '.join(head.split())}"] if head else []
    lines += _yaml_lines(config, indent="", comments=comments)
    return "\n".join(lines) + "\n"


def _yaml_lines(model: BaseModel, *, indent: str, comments: bool) -> Iterator[str]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if comments and info.description:
            yield f"{indent}# {' '.join(info.description.split())}"
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:" if type(value).model_fields else f"{indent}{name}: {{}}"
            yield from _yaml_lines(value, indent=indent + "  ", comments=comments)
        else:
            plain = model.model_dump(mode="json", include={name})[name]
            text = yaml.dump(
                plain, Dumper=_Dumper, default_flow_style=True, width=sys.maxsize, allow_unicode=True, sort_keys=False
            )
            yield f"{indent}{name}: {text.removesuffix('...' + chr(10)).strip()}"
