"""What a model makes of each column: permutation importance and partial dependence. Knows a function and its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from modelwright.data import Facts
from modelwright_risk import calibration
from modelwright_risk.metrics import auc_of
from modelwright_risk.panels import BAD, GOOD, GREY, INK, MIDDLE, plain, short
from modelwright_risk.schema import FIRST, MISSING, Feature, Schema

Predict = Callable[..., np.ndarray]
"""Inputs of the model (`numbers`, `codes`, or the one that there is) as arrays -> log-odds, one per row."""

ASKED = 5000
"""Rows that importance is found from."""
FOLLOWED = 300
"""Applicants whose profiles are averaged."""
THIN = 20
"""Of these, how many are drawn by themselves."""
PANELS = 12
LEVELS = 10
"""Levels of a category that have room."""
GRID = 25
BARS = 25


def importance(
    predict: Predict, inputs: Sequence[np.ndarray], *, bad: np.ndarray, schema: Schema, seed: int = 0
) -> dict[str, float]:
    """By feature, the AUC that is lost when its cells are dealt out anew among rows.

    Fisher, Rudin, Dominici: All Models are Wrong, but Many are Useful, JMLR 2019.

    Args:
        inputs: `numbers` and `codes`, or the one that there is.
        bad: of each row, both kinds among them.
    """
    rows = _spread(len(bad), ASKED)
    arrays, outcome = [each[rows] for each in inputs], bad[rows]
    rng = np.random.default_rng(seed)
    best = auc_of(predict(*arrays), outcome)
    found: dict[str, float] = {}
    for feature, which, column in _places(schema):
        dealt = arrays[which].copy()
        dealt[:, column] = rng.permutation(dealt[:, column])
        changed = [dealt if place == which else each for place, each in enumerate(arrays)]
        found[feature.name] = best - auc_of(predict(*changed), outcome)
    return found


def importance_bars(drops: Mapping[str, float]) -> Canvas:
    """The features that matter most, on top."""
    shown = sorted(drops, key=lambda name: -drops[name])[:BARS]
    canvas = Canvas(figsize=(6, 0.9 + 0.26 * len(shown)), layout="constrained")
    axes = canvas.subplots()
    axes.barh(range(len(shown)), [drops[name] for name in shown], color=GOOD, height=0.65)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [short(name) for name in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="AUC lost")
    plain(axes)
    return canvas


def profile(
    predict: Predict, inputs: Sequence[np.ndarray], values: Sequence[float], *, which: int, column: int
) -> np.ndarray:
    """Log-odds of each row when a cell is set to each of `values`, (values, rows).

    Args:
        which: the place of the input that holds the cell.
        column: of that input.
    """
    count = len(inputs[0])
    asked = [np.tile(each, (len(values), 1)) for each in inputs]
    asked[which][:, column] = np.repeat(np.asarray(values, dtype=asked[which].dtype), count)
    return predict(*asked).reshape(len(values), count)


def draw(
    predict: Predict,
    inputs: Sequence[np.ndarray],
    *,
    names: Sequence[str],
    facts: Facts,
    monotone: Mapping[str, str],
) -> Canvas:
    """A panel for each of the first features of `names`; those with prior knowledge come first.

    Partial dependence: Friedman: Greedy Function Approximation, Annals of Statistics 2001; single applicants:
    Goldstein et al.: Peeking Inside the Black Box, JCGS 2015.

    Args:
        facts: `schema` and `quantiles`; with the calibrator, where one was settled.
        monotone: features whose risk only goes "up" or "down".
    """
    schema = Schema.from_json(facts.values["schema"])
    calibrator = (facts.values.get("settled") or {"calibrator": {"kind": "none"}})["calibrator"]
    places = {feature.name: (feature, which, column) for feature, which, column in _places(schema)}
    shown = [*(name for name in names if name in monotone), *(name for name in names if name not in monotone)][:PANELS]
    rows = _spread(len(inputs[0]), FOLLOWED)
    arrays = [each[rows] for each in inputs]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    canvas = Canvas(figsize=(2.6 * columns, 2.05 * lines), layout="constrained")
    grid: list[Axes] = canvas.subplots(lines, columns, squeeze=False).ravel().tolist()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, shown, strict=False):
        feature, which, column = places[name]
        numeric = feature.kind == "numeric"
        values = _grid(facts.arrays["quantiles"][column]) if numeric else _levels(facts.values["categories"][name])
        flags = list(feature.special)
        if numeric and facts.values["missing"].get(name):
            flags.append(math.nan)
        logit = profile(predict, arrays, [*flags, *values], which=which, column=column)
        said = 100 * calibration.apply(calibrator, logit)
        if numeric:
            _curve(axes, flags, values, said)
        else:
            _bars(axes, feature, values, said.mean(axis=1))
        arrow = {"up": " ↑", "down": " ↓"}.get(monotone.get(name, ""), "")
        axes.set_title(short(name, most=26) + arrow, fontsize=8, color=BAD if arrow else "black")
        axes.tick_params(labelsize=7)
        plain(axes)
    canvas.suptitle("predicted probability of default, %", fontsize=8, color=INK, x=0.01, ha="left")
    return canvas


def caption(monotone: Mapping[str, str], schema: Schema) -> str:
    """What is to be said of prior knowledge."""
    known = [feature.name for feature in schema.numeric if feature.name in monotone]
    if not known:
        return ""
    return f"Arrows: risk can only rise (↑) or fall (↓) with the column, for every applicant: {', '.join(known)}."


def _curve(axes: Axes, flags: Sequence[float], values: Sequence[float], said: np.ndarray) -> None:
    """Over ranks of values: most columns of money are so skewed that a plain axis shows little. Flags stand left."""
    mean, first = said.mean(axis=1), len(flags)
    places = np.arange(len(values))
    axes.plot(places, said[first:, _spread(said.shape[1], THIN)], color=GREY, linewidth=0.5, alpha=0.6)
    axes.plot(places, mean[first:], color=GOOD, linewidth=1.8)
    left = -6.0 * np.arange(first, 0, -1)
    axes.plot(left, mean[:first], "D", color=MIDDLE, markersize=4)
    # Where few applicants are near 100 %, the mean is what is to be seen.
    axes.set_ylim(0, 100 if mean.max() > 40 else max(2.5 * mean.max(), 1e-3))
    ticks = np.unique(np.linspace(0, len(values) - 1, min(4 - (first > 0), len(values))).round().astype(int))
    names = ["none" if math.isnan(flag) else f"{flag:g}" for flag in flags]
    axes.set_xticks([*left, *ticks], [*names, *(_number(values[tick]) for tick in ticks)])


def _bars(axes: Axes, feature: Feature, values: Sequence[float], said: np.ndarray) -> None:
    order = np.argsort(said)
    names = ["missing" if values[i] == MISSING else feature.levels[int(values[i]) - FIRST] for i in order]
    axes.barh(range(len(order)), said[order], color=GOOD, height=0.65)
    axes.set_yticks(range(len(order)), [short(name, most=18) for name in names])


def _grid(edges: np.ndarray) -> list[float]:
    """Values between quantiles, each once; quantiles part values that are common better than equal steps do."""
    inner = np.interp(np.linspace(0, len(edges) - 1, GRID), np.arange(len(edges)), edges.astype(np.float64))
    return np.unique(inner.astype(np.float32)).tolist()


def _levels(shares: Sequence[float]) -> list[float]:
    """Codes of the commonest levels that occur in training."""
    codes = sorted(range(MISSING, len(shares)), key=lambda code: -shares[code])[:LEVELS]
    return [float(code) for code in codes if shares[code] > 0] or [float(MISSING)]


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value / 1000:.3g}k" if abs(value) >= 10_000 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _places(schema: Schema) -> list[tuple[Feature, int, int]]:
    """Each feature with the input that holds it and its column there."""
    numeric, categorical = schema.numeric, schema.categorical
    found = [(feature, 0, column) for column, feature in enumerate(numeric)]
    return found + [(feature, int(bool(numeric)), column) for column, feature in enumerate(categorical)]


def _spread(count: int, most: int) -> np.ndarray:
    """Row numbers, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
