"""Settings: what is read, what wins, what an error says, and that everything written is read back the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from modelwright.config import (
    DataConfig,
    EmaConfig,
    OptimizerConfig,
    Settings,
    TaskConfig,
    TrainConfig,
    build_config,
    known_keys,
    merge,
    nest,
    parse_override,
    read_yaml,
    to_yaml,
)
from modelwright.errors import ConfigError


class Kind(Enum):
    small = "small"
    large = "large"


class Empty(Settings):
    """Nothing to set."""


class ExtraData(DataConfig):
    """One setting of each kind that a plugin may have."""

    name: Literal["digits", "folder"] = "digits"
    """Which set."""
    rate: Annotated[float, Field(gt=0)] = 0.5
    """Said on
    two lines."""
    weights: Literal["none", "balanced"] | list[float] = "none"
    kind: Kind = Kind.small
    where: Path | None = None
    inner: EmaConfig | None = None
    empty: Empty = Empty()
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"Must be even, not {value}")
        return value


class ExtraConfig(TaskConfig):
    data: ExtraData = ExtraData()


def error_of(*overrides: str, layers: tuple[Mapping[str, Any], ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(ExtraConfig, layers=layers, overrides=overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Values


def test_without_anything_there_are_the_defaults() -> None:
    assert build_config(ExtraConfig) == ExtraConfig()


def test_later_layers_win_and_overrides_win_over_all() -> None:
    config = build_config(
        TaskConfig,
        layers=[
            {"seed": 1, "train": {"epochs": 1, "batch_size": 1, "optimizer": {"lr": 0.1}}},
            {"train": {"epochs": 2, "batch_size": 2}},
        ],
        overrides=["train.epochs=3", "train.epochs=4"],
    )
    assert (config.seed, config.train.epochs, config.train.batch_size, config.train.optimizer.lr) == (1, 4, 2, 0.1)
    assert config.train.accumulate == TrainConfig().accumulate


def test_a_layer_may_be_dotted() -> None:
    config = build_config(TaskConfig, layers=[{"train.optimizer": {"lr": 0.1}, "train.optimizer.name": "SGD"}])
    assert (config.train.optimizer.lr, config.train.optimizer.name) == (0.1, "SGD")


def test_two_configurations_share_no_value() -> None:
    one, other = TaskConfig(), TaskConfig()
    one.train.optimizer.lr = 0.5
    one.observers.append("mine")
    assert other == TaskConfig()


def test_an_assignment_is_checked_too() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TaskConfig().train.epochs = 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-1.5e+2", -150.0),
        ("1.e3", 1000.0),
        ("[1e-3, 2]", [0.001, 2]),
        ("{betas: [0.9, 1e-1], eps: 1e-8}", {"betas": [0.9, 0.1], "eps": 1e-8}),
        ("true", True),
        ("null", None),
        ("", None),
        ("a=b", "a=b"),
        ('"1e-3"', "1e-3"),
        ("1e-3x", "1e-3x"),
        ("e5", "e5"),
    ],
)
def test_an_overrides_value_is_yaml(text: str, value: object) -> None:
    key, parsed = parse_override(f"train.x={text}")
    assert key == "train.x"
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_number_with_an_exponent_is_a_number_in_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train:\n  optimizer:\n    options: {eps: 1e-8}\n")
    options = build_config(TaskConfig, layers=[read_yaml(path)]).train.optimizer.options
    assert options == {"eps": 1e-8}


# What an error says


@pytest.mark.parametrize("text", ["epochs", "=3", ".=3", "a..b=3", ""])
def test_what_is_no_key_and_value_is_refused(text: str) -> None:
    assert error_of(text) == f"'{text}' is no setting: write key=value, for example train.epochs=20"


@pytest.mark.parametrize("value", ["[1", "{a: 1", "b: c: d", "2024-13-45", "!!python/name:os.system", "'x"])
def test_a_value_that_is_no_yaml_is_refused(value: str) -> None:
    assert error_of(f"data.path={value}").startswith("the value of data.path could not be read: quote it")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "unknown setting sed (did you mean 'seed'?)"),
        ("trian.epochs=1", "unknown setting trian (did you mean 'train'?)"),
        ("train.epoch=1", "unknown setting train.epoch (did you mean 'epochs'?)"),
        ("train.optimizer.lrate=1", "unknown setting train.optimizer.lrate (did you mean 'train.optimizer.lr'?)"),
        ("lr=0.1", "unknown setting lr (did you mean 'train.optimizer.lr'?)"),
        ("epoch=3", "unknown setting epoch (did you mean 'train.epochs'?)"),
        ("batch-size=3", "unknown setting batch-size (did you mean 'train.batch_size'?)"),
        ("optimizer.lr=1", "unknown setting optimizer (did you mean 'train.optimizer.lr'?)"),
        ("data.zzzzz=1", "unknown setting data.zzzzz; known here: name, path, split, on_bad, rate"),
        ("data.inner.decaay=1", "unknown setting data.inner.decaay (did you mean 'decay'?)"),
        (".seed=1", "unknown setting "),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override: str, message: str) -> None:
    assert error_of(override).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=ten", "train.epochs: input should be a valid integer, "),
        ("train.epochs=1.5", "train.epochs: input should be a valid integer, "),
        ("train.epochs=0", "train.epochs: input should be greater than or equal to 1, got 0"),
        ("train.optimizer.lr=-1e-3", "train.optimizer.lr: input should be greater than 0, got -0.001"),
        ("train.minutes=0", "train.minutes: input should be greater than 0, got 0"),
        ("train=3", "train: input should be a valid dictionary or instance of TrainConfig, got 3"),
        ("data.on_bad=ignore", "data.on_bad: input should be 'error' or 'skip', got 'ignore'"),
        ("data.name=cifar", "data.name: input should be 'digits' or 'folder', got 'cifar'"),
        ("data.kind=medium", "data.kind: input should be 'small' or 'large', got 'medium'"),
        ("data.even=3", "data.even: must be even, not 3"),
        ("train.schedule.milestones=[0.5, 2]", "train.schedule.milestones: input should be less than 1, got 2"),
        ("data.weights=[a]", "data.weights: "),
        ("model.name=2024", "model.name: input should be a valid string, got 2024; put it in quotes: "),
        ("model.name=yes", "model.name: input should be a valid string, got True; put it in quotes"),
        ("data.path=2024", "data.path: input should be a valid string, got 2024; put it in quotes"),
        ("model.name=", "model.name: input should be a valid string, got None"),
    ],
)
def test_a_wrong_value_names_its_key_what_is_right_and_what_was_given(override: str, message: str) -> None:
    assert error_of(override).startswith(message)


def test_several_problems_are_counted() -> None:
    assert error_of("train.epochs=0", "seed=-1").endswith("(and 1 more)")


def test_keys_that_are_no_text_are_unknown_settings() -> None:
    assert error_of(layers=({1: 2},)).startswith("unknown setting 1; known here: seed")  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is no YAML: while parsing a flow node"),
        ("a: 2024-13-45", "is no YAML: month must be in 1..12"),
        ("\0", "is no YAML: unacceptable character"),
        ("- seed\n- 1", "holds a list; settings are written as key: value"),
        ("seed", "holds a str; settings are written as key: value"),
        (b"\xff\xfe\xff", "could not be read: it is not text"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml could not be read: No such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="could not be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("content", ["", "# only a comment\n", "null\n"])
def test_a_file_of_nothing_sets_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    assert read_yaml(tmp_path / "a.yaml") == {}


# Laws of merge and nest

keys = st.text("abc", min_size=1, max_size=2)
mappings = st.recursive(
    st.dictionaries(keys, st.integers(), max_size=3),
    lambda inner: st.dictionaries(keys, st.integers() | inner, max_size=3),
    max_leaves=8,
)


@given(mappings)
def test_merging_nothing_or_itself_changes_nothing(a: dict[str, Any]) -> None:
    assert merge(a, {}) == merge({}, a) == merge(a, a) == a


@given(mappings, mappings, mappings)
def test_merging_does_not_care_how_it_is_bracketed(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    # Where a mapping meets a plain value, the order of replacing matters: law only for trees of one shape.
    if shapes_agree(a, b) and shapes_agree(b, c) and shapes_agree(a, c):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))


def shapes_agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(
        (isinstance(a[key], Mapping) and isinstance(b[key], Mapping) and shapes_agree(a[key], b[key]))
        or not (isinstance(a[key], Mapping) or isinstance(b[key], Mapping))
        for key in a.keys() & b.keys()
    )


@given(mappings, mappings)
def test_merging_changes_neither_side_and_the_later_wins(a: dict[str, Any], b: dict[str, Any]) -> None:
    before = repr((a, b))
    merged = merge(a, b)
    assert repr((a, b)) == before
    for key, value in b.items():
        both = isinstance(value, dict) and isinstance(a.get(key), dict)
        assert merged[key] == (merge(a[key], value) if both else value)
    assert merged.keys() == a.keys() | b.keys()


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {above + key: value}
    return found


@given(mappings)
def test_nesting_the_dotted_keys_of_a_tree_gives_the_tree(tree: dict[str, Any]) -> None:
    assert nest(flat(tree)) == tree
    assert nest(tree) == tree


# Writing

# What YAML has a meaning for, or reads as something else than text.
AWKWARD = [
    *("1e-3", "1e5", "-1.E+3", "007", "1:30", "2024-01-01", "yes", "null", "~", "", " a ", "a: b", "# a", "{a}", "["),
    *("'", '"', "...", "---", "&a", "*a", "!a", "%a", "@a", "=", "\n", "a\n--- b", "\\n", "\x85", "\ufeff", "日本"),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(AWKWARD)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


@st.composite
def configs(draw: st.DrawFn) -> ExtraConfig:
    """Any valid settings."""
    data = ExtraData(
        name=draw(st.sampled_from(["digits", "folder"])),
        path=draw(st.none() | texts | st.lists(texts, max_size=3)),
        split=draw(st.none() | texts),
        rate=draw(positive | st.sampled_from([1e-3, 1e-8, 1e16, 5e-324])),
        weights=draw(st.sampled_from(["none", "balanced"]) | st.lists(st.floats(allow_nan=False), max_size=3)),
        kind=draw(st.sampled_from(Kind)),
        where=draw(st.none() | st.just(Path("a b/c"))),
        inner=draw(st.none() | st.builds(EmaConfig, decay=st.floats(0, 0.999), use=st.booleans())),
        even=2 * draw(st.integers()),
    )
    optimizer = OptimizerConfig(
        name=draw(texts), lr=draw(positive), options=draw(st.dictionaries(texts, plain, max_size=3))
    )
    train = TrainConfig(optimizer=optimizer, epochs=draw(st.integers(1)), minutes=draw(st.none() | positive))
    return ExtraConfig(seed=draw(st.integers(0)), data=data, train=train, observers=draw(st.lists(texts, max_size=3)))


@settings(max_examples=60)
@given(config=configs(), comments=st.booleans(), head=st.sampled_from(["", "a\nb", "a: b", "# 'é'"]))
def test_what_is_written_is_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: ExtraConfig, comments: bool, head: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(to_yaml(config, head=head, comments=comments), encoding="utf-8", newline="")
    again = build_config(ExtraConfig, layers=[read_yaml(path)])
    assert again == config


def test_every_setting_is_written_with_what_it_means() -> None:
    text = to_yaml(ExtraConfig(), head="toy:\n  a task", comments=True)
    assert text.startswith("# toy: a task\n")
    assert nested_keys(yaml.safe_load(text)) == nested_keys(ExtraConfig().model_dump(mode="json"))
    lines = text.splitlines()
    lr = lines.index("    lr: 0.001")
    assert lines[lr - 1] == "    # Peak learning rate."
    assert "  # Said on two lines." in lines
    assert "#" not in to_yaml(ExtraConfig())


def nested_keys(tree: Mapping[str, Any]) -> Any:
    return {key: nested_keys(value) if isinstance(value, dict) else None for key, value in tree.items()}


def test_a_long_text_stays_on_one_line() -> None:
    config = build_config(TaskConfig, overrides=[f"data.path={'many words ' * 2_000}"])
    assert build_config(TaskConfig, layers=[yaml.safe_load(to_yaml(config))]) == config
    assert len(to_yaml(config).splitlines()) == len(to_yaml(TaskConfig()).splitlines())


def test_an_infinite_number_is_read_back() -> None:
    config = build_config(TaskConfig, overrides=["train.optimizer.options={a: .inf}"])
    again = build_config(TaskConfig, layers=[yaml.safe_load(to_yaml(config))])
    assert again.train.optimizer.options == {"a": math.inf}


# Known keys


def test_known_keys_are_the_leaves_and_with_sections_all() -> None:
    leaves = known_keys(ExtraConfig)
    assert {"seed", "data.rate", "data.inner.decay", "train.optimizer.lr"} <= set(leaves)
    assert "train.optimizer" not in leaves
    assert {"train", "train.optimizer", "train.optimizer.lr"} <= set(known_keys(ExtraConfig, sections=True))


@pytest.mark.parametrize("kind", [TaskConfig])
def test_every_setting_of_the_core_says_what_it_means(kind: type[Settings]) -> None:
    text = to_yaml(kind(), comments=True).splitlines()
    sections = known_keys(kind, sections=True)
    leaves = {key.rpartition(".")[2] for key in known_keys(kind)}
    unsaid = [
        line
        for before, line in zip(["", *text], text, strict=False)
        if line.strip().partition(":")[0] in leaves and not before.strip().startswith("#")
    ]
    assert sections
    assert unsaid == []
