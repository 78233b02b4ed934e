"""Pictures that a credit analyst asks for. Knows matplotlib, measured columns and facts; no torch, no settings.

What needs a model (importance, profiles) is drawn where a function is handed over that says its log-odds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from matplotlib.figure import Figure as Canvas

from modelwright.codec import Columns
from modelwright.task import Evaluated, Facts, Figure, Keys
from modelwright_risk import curves, fairness, metrics, profiles, stability
from modelwright_risk.panels import BAD, GOOD, GREY, INK, MIDDLE, percent, plain, short, table_canvas
from modelwright_risk.schema import Schema, names_of

LOOKED_AT = 20_000
"""Rows that shifts, importance and profiles are found from; more would change no picture."""
BARS = 25
WORST = 8
"""Misses of each kind that are shown."""
LONGEST = 2 * stability.SHIFTED
"""Index at which bars end."""
CELLS = 5
"""Columns of a miss that are shown."""


class Applicants(Protocol):
    """What the figures need of a split."""

    def __len__(self) -> int: ...
    def __getitems__(self, keys: Keys, /) -> Any: ...
    def row(self, index: int, /) -> Mapping[str, Any]: ...
    def name_of(self, index: int, /) -> str: ...


def draw(
    evaluated: Evaluated,
    *,
    facts: Facts,
    cutoff: float,
    predict: profiles.Predict | None = None,
    monotone: Mapping[str, str] | None = None,
) -> Iterator[Figure]:
    """The figures of one evaluation.

    Args:
        evaluated: its dataset is an `Applicants`.
        facts: of the training rows, with what was settled.
        cutoff: probability from which on applicants are refused.
        predict: says the model's log-odds.
        monotone: features whose risk only goes "up" or "down", by construction.
    """
    measured, applicants = evaluated.measured, cast("Applicants", evaluated.dataset)
    if measured.rows == 0:
        return
    protected: dict[str, list[str]] = facts.values.get("protected", {})
    found = metrics.scores(measured, cutoff=cutoff, cost_bad=1, cost_good=1, groups=protected)
    rows = metrics.Rows.of(measured)
    schema = Schema.from_json(facts.values["schema"])
    yield Figure(
        "roc",
        "Does it rank applicants?",
        "For every possible cut-off: how many of those who default would be refused (up), against how many of those "
        "who pay (right). A model that knows nothing follows the dashed line; the further up and left, the better. "
        "The dot is the cut-off in use."
        + (
            " The green line is the true probability: no model can be expected above it."
            if rows.truth is not None
            else ""
        ),
        curves.roc(rows, cutoff=cutoff),
    )
    yield Figure(
        "calibration",
        "Are its probabilities to be trusted?",
        "Applicants in groups of equal size by predicted probability: dots on the dashed line default as often as they "
        "were said to. Bars are 95 % intervals (Wilson): a dot whose bar misses the line is more than chance. "
        + (calibration_warning(measured) or ""),
        curves.calibration_curve(rows),
    )
    yield Figure(
        "scores",
        "How scores part good from bad",
        "Points of those who paid and of those who defaulted, each as shares of their own kind. The less the two "
        "overlap, the better; who is left of the line is refused.",
        curves.score_distribution(evaluated.predictions, rows_bad=measured.array("bad") > 0),
    )
    yield Figure(
        "gains",
        "Gains by tenth",
        "Applicants from the riskiest tenth to the safest. Bad rates should fall from one to the next; a rise means "
        "that the order there is chance. Lift: the bad rate over that of all. Captured: bad applicants found so far.",
        curves.gains(rows),
    )
    looked_at = np.unique(np.linspace(0, measured.rows - 1, min(LOOKED_AT, measured.rows)).astype(np.int64))
    inputs = inputs_of(applicants, measured.ids[looked_at])
    shown = names_of(schema.ordered)
    if predict is not None and np.ptp(measured.array("bad")[looked_at]) > 0:
        drops = profiles.importance(predict, inputs, bad=measured.array("bad")[looked_at], schema=schema)
        shown = sorted(drops, key=lambda name: -drops[name])
        yield Figure(
            "importance",
            "What it looks at",
            "How much AUC is lost when a column's cells are dealt out anew among applicants (permutation importance). "
            "Columns that say much the same share what they are worth, so that each may look unimportant alone.",
            profiles.importance_bars(drops),
        )
    if predict is not None:
        yield Figure(
            "profiles",
            "How risk goes with each column",
            "Mean predicted probability when a column is set to the value below for everyone, the others as they are "
            "(partial dependence); grey: single applicants. Values are spaced by rank; diamonds: missing (none) and "
            "special codes. " + profiles.caption(monotone or {}, schema),
            profiles.draw(predict, inputs, names=shown, facts=facts, monotone=monotone or {}),
        )
    moved = stability.shifts(facts, inputs=inputs, probability=rows.probability)
    yield Figure(
        "stability",
        "Are these still the applicants it was trained on?",
        "Population stability index against the training rows (the score: against validation). Below "
        f"{stability.STABLE} nothing to speak of has moved; above {stability.SHIFTED} look at the column, and at "
        f"whether the model still holds. Bars end at {LONGEST}; beside each: the bin that moved most.",
        stability_bars(moved),
    )
    for column, levels in protected.items():
        yield Figure(
            f"groups-{column}",
            f"By {column}",
            f"How applicants of different {column} fare. {fairness_words(found, column)} Small groups differ by "
            "chance: their intervals are among the metrics.",
            group_table(measured, found, column=column, levels=levels),
        )
    if misses := worst_misses(measured, cutoff=cutoff):
        yield Figure(
            "misses",
            "Worst misses",
            "Those who defaulted though they looked safest, and those who paid though they looked riskiest, with "
            f"{min(CELLS, len(shown))} of their columns. Look for wrong outcomes, and for what the table does not say.",
            miss_table(evaluated, misses, columns=shown[:CELLS]),
        )


def inputs_of(applicants: Applicants, indices: np.ndarray) -> list[np.ndarray]:
    """The model's inputs of some rows, in its order."""
    batch = applicants.__getitems__(Keys(0, 0, 1, indices))
    return [each.cpu().numpy() for each in batch.inputs]


def calibration_warning(measured: Columns) -> str | None:
    """What is to be said of probabilities that cannot be taken at their word; None where they can."""
    found = metrics.scores(measured, cutoff=0.5, cost_bad=1, cost_good=1, groups={})
    said, happened, slope = found["mean_probability"], found["bad_rate"], found["calibration_slope"]
    chance = np.sqrt(max(happened * (1 - happened), 1e-12) / measured.rows)
    problems: list[str] = []
    if abs(said - happened) > max(0.2 * happened, 3 * chance):
        problems.append(f"on average it says {percent(said)}, and {percent(happened)} defaulted")
    if not np.isnan(slope) and not 0.75 <= slope <= 1.33 and happened * measured.rows >= 50:
        problems.append(f"the calibration slope is {slope:.2f} instead of 1")
    if not problems:
        return None
    return (
        f"Do not take these probabilities at their word: {' and '.join(problems)}. Class weights do that, and so does "
        "a portfolio that has changed; score.calibration mends it on validation data."
    )


# Pictures and words ---------------------------------------------------------------------------------------------------


BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def stability_bars(moved: Sequence[stability.Shift]) -> Canvas:
    """The index of the score and of the features that moved most."""
    shown = moved[:BARS]
    colors = {"stable": GOOD, "some shift": MIDDLE, "shifted": BAD}
    canvas = Canvas(figsize=(7, 1.1 + 0.27 * len(shown)), layout="constrained")
    axes = canvas.subplots()
    lengths = [min(each.psi, LONGEST) for each in shown]
    axes.barh(range(len(shown)), lengths, color=[colors[each.verdict] for each in shown], height=0.65)
    for place, (length, each) in enumerate(zip(lengths, shown, strict=True)):
        words = f" {each.psi:.3f}   {short(each.most, most=28)}: {percent(each.before)} → {percent(each.after)}"
        # On white: the lines of the bounds go through many of the words.
        axes.text(length, place, words, va="center", fontsize=7, color=INK, bbox=BEHIND)
    for bound in (stability.STABLE, stability.SHIFTED):
        axes.axvline(bound, color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set_yticks(range(len(shown)), [short(each.name) for each in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.7 * max(*lengths, 1.1 * stability.SHIFTED)), xlabel="population stability index")
    plain(axes)
    return canvas


def group_table(measured: Columns, found: Mapping[str, float], *, column: str, levels: Sequence[str]) -> Canvas:
    """A line for each group, the largest first."""
    codes = measured.array(f"group/{column}")
    names = fairness.codes_of(codes, levels)
    counts = {name: int((codes == code).sum()) for name, code in names.items()}
    header = [short(column), "applicants", "bad rate", "predicted", "refused", "AUC", "slope"]
    cells: list[list[str]] = []
    for name in sorted(counts, key=lambda name: -counts[name]):
        own = {score: found[f"{score}/{column}={name}"] for score in ("auc", "calibration_slope")}
        shares = [found[f"{score}/{column}={name}"] for score in ("bad_rate", "mean_probability", "refusal_rate")]
        numbers = [
            "-" if np.isnan(own["auc"]) else f"{own['auc']:.3f}",
            "-" if np.isnan(own["calibration_slope"]) else f"{own['calibration_slope']:.2f}",
        ]
        cells.append([short(name), f"{counts[name]:,}", *map(percent, shares), *numbers])
    return table_canvas(header, cells)


def fairness_words(found: Mapping[str, float], column: str) -> str:
    """How acceptance differs between groups, in a sentence."""
    ratio, odds = (found[f"{name}/{column}"] for name in ("demographic_parity_ratio", "equalized_odds_difference"))
    if np.isnan(ratio):
        return "There are no two groups to compare."
    verdict = "below the four fifths that regulators look for" if ratio < 0.8 else "four fifths or more"
    return (
        f"The group that is accepted least is accepted {ratio:.2f} times as often as the one accepted most "
        f"({verdict}); among applicants with the same outcome, acceptance differs by up to {100 * odds:.1f} percentage "
        "points."
    )


def worst_misses(measured: Columns, *, cutoff: float, most: int = WORST) -> list[int]:
    """Rows of the bad ones who were accepted, the safest first, then of the good ones refused, the riskiest first."""
    p, bad = measured.array("probability"), measured.array("bad") > 0
    accepted, refused = np.flatnonzero(bad & (p < cutoff)), np.flatnonzero(~bad & (p >= cutoff))
    safest = accepted[np.argsort(p[accepted], kind="stable")[:most]]
    riskiest = refused[np.argsort(-p[refused], kind="stable")[:most]]
    return [*safest.tolist(), *riskiest.tolist()]


def miss_table(evaluated: Evaluated, rows: Sequence[int], *, columns: Sequence[str]) -> Canvas:
    """A line for each of `rows`, with some of its cells."""
    measured, applicants = evaluated.measured, cast("Applicants", evaluated.dataset)
    points = evaluated.predictions.array("points")
    header = ["applicant", "outcome", *(short(name, most=18) for name in columns), "predicted", "points"]
    cells: list[list[str]] = []
    for row in rows:
        index = int(measured.ids[row])
        there = applicants.row(index)
        cells.append(
            [
                short(applicants.name_of(index), most=20),
                "defaulted" if measured.array("bad")[row] else "paid",
                *(_cell(there.get(name)) for name in columns),
                percent(float(measured.array("probability")[row])),
                f"{points[row]:.0f}",
            ]
        )
    return table_canvas(header, cells, left=2)


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else short(value, most=18)
