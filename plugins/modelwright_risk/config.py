"""Settings of risk scoring. Knows no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from modelwright.config import DataConfig, ModelConfig, Settings, TaskConfig

Value = str | float | bool
"""A cell as people write it in settings."""


class RiskData(DataConfig):
    """Applicants and what became of them."""

    name: Literal["portfolio", "table", "german_credit", "taiwan_default"] = "portfolio"
    """portfolio (embedded, made up), table (your own CSV or Parquet), or published: german_credit, taiwan_default."""
    target: str | None = None
    """Column that says how it ended; any two values."""
    bad: Value | None = None
    """The value of the target that means default; empty: 1, true, yes or bad, where that is unmistakable."""
    numeric: list[str] = []
    """Columns to be read as numbers, whatever they look like."""
    categorical: list[str] = []
    """Columns to be read as categories, though they look like numbers."""
    ignored: list[str] = []
    """Columns that the model must not see."""
    identifiers: list[str] = []
    """Columns that tell applicants apart: passed through to the predictions, never seen by the model."""
    weight: str | None = None
    """Column of sample weights."""
    time: str | None = None
    """Column of dates or numbers that order the rows; needed to split out of time."""
    group: str | None = None
    """Column whose values must not be torn apart by a split (a customer with several loans)."""
    protected: list[str] = []
    """Columns by which scores are compared for fairness; the model sees them only if `protected_as_features`."""
    protected_as_features: bool = False
    """Let the model see the protected columns."""
    special: dict[str, list[float]] = {}
    """Codes that are no quantities, by column: {past_due: [96, 98]}; under "*" for all columns."""
    split_by: Literal["random", "group", "time"] = "random"
    """How rows are split where data.split names no file: at random by class, by group, or the latest for the test."""
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the rows kept for validation; calibration and cut-off are found on it."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share kept for the test; 0: none."""
    rows: Annotated[int, Field(ge=200)] = 100_000
    """Applicants of the embedded portfolio."""
    memory: Annotated[float, Field(ge=0)] = 2.0
    """GiB that a table may take in memory; a larger one is read from disk, group of rows by group of rows."""


class RiskModel(ModelConfig):
    """The network; its preparation of the cells is part of it."""

    name: Literal["mlp", "large", "scorecard", "tabm", "ft-transformer"] = "mlp"
    """mlp (64 x 2), large (256 x 3), scorecard (logistic regression on the same codes), tabm, ft-transformer."""
    bins: Annotated[int, Field(ge=2, le=256)] | None = None
    """Bins of each numeric feature, from quantiles of the training data; empty: 16, or 8 below 2,000 rows."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Empty: 0.1, or 0.3 below 2,000 rows."""
    monotone: dict[str, Literal["up", "down"]] = {}
    """Prior knowledge: risk only rises (up) or only falls (down) with a numeric feature, all else equal."""


class LossConfig(Settings):
    """The training loss: cross-entropy."""

    class_weights: Literal["none", "balanced"] | list[Annotated[float, Field(gt=0)]] = "none"
    """none, balanced, or [good, bad]; anything but none spoils calibration, which the report says."""


class ScoreConfig(Settings):
    """From a probability to a decision."""

    calibration: Literal["none", "platt", "isotonic", "temperature"] = "none"
    """Fitted on validation data after training; it travels with the model."""
    cost_bad: Annotated[float, Field(gt=0)] = 5.0
    """Cost of accepting an applicant who defaults."""
    cost_good: Annotated[float, Field(gt=0)] = 1.0
    """Cost of refusing one who would have paid."""
    cutoff: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Refuse from this probability of default on; empty: where the cost on validation data is least."""
    base_points: float = 600.0
    """Points at the base odds."""
    base_odds: Annotated[float, Field(gt=0)] = 50.0
    """Good applicants for each bad one at the base points."""
    double: Annotated[float, Field(gt=0)] = 20.0
    """Points that double the odds (PDO)."""
    reasons: dict[str, str] = {}
    """What a refused applicant is told, by feature: {utilisation: "credit lines are used up"}; else the name."""


class RiskConfig(TaskConfig):
    """All settings of risk-scoring."""

    data: RiskData = RiskData()
    model: RiskModel = RiskModel()
    loss: LossConfig = LossConfig()
    score: ScoreConfig = ScoreConfig()
