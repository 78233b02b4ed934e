"""A portfolio of loans that is made up, with the true probability of default of each. Knows numpy; no settings.

What the probability depends on is in the columns, and what is missing was lost before it was computed: so it is the
probability given the columns, and no model can reach a higher AUC than it has.
"""

# pyarrow has no annotations.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

TARGET = "default"
NEVER = -9.0
"""`months_since_delinquency` of those who never were behind."""
MONTHS = 36
FIRST_YEAR = 2019
LATE = 22
"""The month from which on the channel `app` and the purpose `solar` exist."""
RATE = 0.06
"""Share of defaults."""

EMPLOYMENT = ("salaried", "public", "self-employed", "temporary", "retired", "student")
HOUSING = ("owner", "mortgage", "rent", "parents")
PURPOSE = ("car", "debt consolidation", "home improvement", "business", "education", "travel", "solar")
CHANNEL = ("branch", "broker", "online", "app")
AGES = ("18 to 25", "26 to 35", "36 to 50", "51 to 65", "over 65")
REGIONS = 12


@dataclass(frozen=True)
class Portfolio:
    """Applicants.

    Attributes:
        table: one row each; the target is `default`, 1 for bad.
        probability: float64, the true one of default.
    """

    table: pa.Table
    probability: np.ndarray


def make(rows: int, *, seed: int) -> Portfolio:
    """A portfolio: a pure function of its arguments."""
    rng = np.random.default_rng([seed, 0x51C0])
    month = np.sort(rng.integers(0, MONTHS, rows))
    cycle = 6.0 + 2.2 * np.sin(2 * np.pi * (np.arange(MONTHS) - 4) / 30)
    unemployment = np.round(cycle, 1)[month]

    age = np.clip(18 + rng.gamma(3.2, 8.0, rows), 18, 85)
    employment = _pick(rng, np.array([0.52, 0.14, 0.14, 0.10, 0.05, 0.05]), rows)
    employment = np.where(age > 67, 4, np.where((employment == 4) & (age < 60), 0, employment))
    years = np.minimum(rng.gamma(1.3, 5.0, rows), age - 17)
    # Heavy tail: lognormal, and one applicant in twenty from a Pareto above it.
    income = np.exp(rng.normal(7.6, 0.45, rows) + 0.012 * np.minimum(age - 18, 35) - 0.5 * (employment == 5))
    income = np.where(rng.random(rows) < 0.05, income * (1 + rng.pareto(1.8, rows)), income)
    housing = _pick(rng, np.array([0.2, 0.32, 0.38, 0.1]), rows)
    region = _pick(rng, 1 / np.arange(2.0, REGIONS + 2), rows)
    purpose = _pick(rng, np.array([0.25, 0.22, 0.15, 0.1, 0.08, 0.12, 0.08]), rows)
    purpose = np.where((purpose == 6) & (month < LATE), 0, purpose)
    channel = _pick(rng, np.array([0.35, 0.2, 0.25, 0.2]), rows)
    channel = np.where((channel == 3) & (month < LATE), 2, channel)
    term = rng.choice([12.0, 24.0, 36.0, 48.0, 60.0, 84.0], rows, p=[0.1, 0.2, 0.28, 0.18, 0.16, 0.08])
    amount = np.round(income * rng.lognormal(1.1, 0.6, rows), -2) + 500
    utilisation = np.clip(rng.beta(1.3, 1.7, rows) + 0.1 * rng.standard_normal(rows), 0, 1.4)
    inquiries = rng.poisson(0.4 + 1.8 * rng.beta(1.2, 3.0, rows) + 0.5 * (channel >= 2))
    lines = rng.poisson(2 + 6 * rng.beta(2, 2, rows))
    delinquent = rng.random(rows) < 0.1 + 0.22 * utilisation
    since = np.where(delinquent, np.floor(rng.gamma(1.6, 18.0, rows)), NEVER)
    savings = np.maximum(rng.normal(0.25, 0.5, rows), 0) * income * rng.lognormal(0.8, 0.9, rows)
    ratio = amount / term / income + 0.25 * rng.beta(2, 4, rows)

    # Not at random: the rich keep their income to themselves, those with little in the bank their savings.
    hides_income = rng.random(rows) < np.clip(0.03 + 0.25 * (income > np.exp(8.6)) + 0.12 * (employment == 2), 0, 1)
    hides_savings = rng.random(rows) < np.where(savings < 300, 0.35, 0.08)
    no_years = rng.random(rows) < np.where(years < 1, 0.2, 0.02)
    income, savings, years = (
        np.where(hidden, np.nan, np.round(values, 1))
        for hidden, values in ((hides_income, income), (hides_savings, savings), (no_years, years))
    )
    ratio, utilisation = np.round(ratio, 4), np.round(utilisation, 4)

    cells = _Cells(
        unemployment, income, years, amount, term, ratio, utilisation, inquiries, lines, since, savings,
        employment, housing, purpose, channel, region,
    )  # fmt: skip
    risk = _risk(cells)
    probability = 1 / (1 + np.exp(-(risk + _intercept(risk))))
    default = rng.random(rows) < probability
    table = pa.table(
        {
            "applicant": pa.array([f"A{number:07}" for number in range(rows)]),
            "month": _named([f"{FIRST_YEAR + each // 12}-{each % 12 + 1:02}" for each in range(MONTHS)], month),
            "age_group": _named(AGES, np.searchsorted([26, 36, 51, 66], age, side="right")),
            "income": pa.array(income, from_pandas=True),
            "employment": _named(EMPLOYMENT, employment),
            "employment_years": pa.array(years, from_pandas=True),
            "housing": _named(HOUSING, housing),
            "region": _named([f"region {place + 1}" for place in range(REGIONS)], region),
            "purpose": _named(PURPOSE, purpose),
            "channel": _named(CHANNEL, channel),
            "amount": pa.array(amount),
            "term": pa.array(term.astype(np.int64)),
            "debt_ratio": pa.array(ratio),
            "utilisation": pa.array(utilisation),
            "inquiries": pa.array(inquiries),
            "credit_lines": pa.array(lines),
            "months_since_delinquency": pa.array(since.astype(np.int64)),
            "savings": pa.array(savings, from_pandas=True),
            "unemployment_rate": pa.array(unemployment),
            TARGET: pa.array(default.astype(np.int64)),
        }
    )
    return Portfolio(table, probability)


@dataclass(frozen=True)
class _Cells:
    """The columns that risk depends on, as they stand in the table."""

    unemployment: np.ndarray
    income: np.ndarray
    years: np.ndarray
    amount: np.ndarray
    term: np.ndarray
    ratio: np.ndarray
    utilisation: np.ndarray
    inquiries: np.ndarray
    lines: np.ndarray
    since: np.ndarray
    savings: np.ndarray
    employment: np.ndarray
    housing: np.ndarray
    purpose: np.ndarray
    channel: np.ndarray
    region: np.ndarray


def _risk(cells: _Cells) -> np.ndarray:
    """Log-odds of default, up to a constant."""
    # From -1 to 1; 0 where there is no value, whose own effect stands beside it.
    rich = np.nan_to_num(np.tanh((np.log(cells.income) - 7.9) / 0.5))
    saved = np.nan_to_num(np.tanh(np.log1p(cells.savings) / 4 - 1))
    settled = np.nan_to_num(np.tanh((cells.years - 4) / 4))
    used = np.tanh((cells.utilisation - 0.45) / 0.25)
    burden = np.tanh((cells.ratio - 0.25) / 0.12)
    long = np.tanh((cells.term - 40) / 20)
    asked = np.tanh((cells.inquiries - 1.2) / 1.2)
    recent = np.where(cells.since == NEVER, -0.8, 1.6 * np.exp(-cells.since / 18))
    bust = (cells.unemployment - 6) / 2

    plain = 0.55 * used + 0.5 * burden + 0.35 * asked + 0.7 * recent - 0.5 * saved - 0.3 * settled - 0.3 * rich
    plain += 0.35 * bust + 0.2 * np.tanh((cells.lines - 8) / 3)
    plain += np.array([0.0, -0.4, 0.1, 0.5, -0.1, 0.3])[cells.employment]
    plain += np.array([-0.3, -0.1, 0.25, 0.1])[cells.housing]
    plain += np.array([-0.15, 0.1, -0.2, 0.35, 0.0, 0.15, -0.4])[cells.purpose]
    plain += np.array([-0.2, 0.3, 0.0, 0.2])[cells.channel]
    plain += 0.25 * np.sin(1.7 * cells.region)
    plain += 0.5 * np.isnan(cells.savings) - 0.35 * np.isnan(cells.income) + 0.4 * np.isnan(cells.years)

    # What no sum of single columns can say.
    owns = cells.employment == 2
    joint = -1.0 * used * rich + 0.9 * burden * long - 0.8 * asked * settled
    joint += 1.0 * used * np.where(np.isin(cells.purpose, (1, 5)), 1.0, -0.4)  # new debt for old, or for a journey
    joint += 1.3 * bust * np.where(np.isin(cells.employment, (2, 3)), 0.8, -0.25)
    joint += 1.2 * np.where((cells.purpose == 3) & owns, -1.0, np.where(cells.purpose == 3, 0.5, 0.0))
    joint += 0.9 * np.where(cells.housing == 2, 1.0, -0.5) * saved * -1.0
    return 1.15 * (plain + joint)


def _intercept(risk: np.ndarray) -> float:
    """What makes the mean probability `RATE`; bisection, so that it is the same everywhere."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = float(np.mean(1 / (1 + np.exp(-(risk + middle)))))
        low, high = (middle, high) if mean < RATE else (low, middle)
    return (low + high) / 2


def _pick(rng: np.random.Generator, weights: np.ndarray, rows: int) -> np.ndarray:
    return np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(rows)).clip(0, len(weights) - 1)


def _named(names: list[str] | tuple[str, ...], places: np.ndarray) -> pa.Array:
    return pa.array(np.asarray(names, dtype=object)[places])
