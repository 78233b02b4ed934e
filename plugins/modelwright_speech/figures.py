"""Pictures for the report of a recognizer. Knows matplotlib, measured columns and samples; no torch, no settings."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jiwer
import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from modelwright.codec import Columns
from modelwright.task import Evaluated, Figure, Key, Recording
from modelwright_speech.codec import SpeechCodec

BLUE, RED, ORANGE, GREY, INK = "#0072b2", "#d55e00", "#e69f00", "#a0aec0", "#4a5568"
WORST, CONFUSED = 6, 24
"""Utterances and pairs of words that are shown."""
HEARD = 30
"""Seconds of an utterance that can be listened to."""
NOTHING = "-"
"""Stands where a word was left out or made up."""
WIDE = 14
"""Pairs of words in a line under a spectrogram."""


class Pair(NamedTuple):
    """A true word beside what was said; `NOTHING` on a side that has none."""

    true: str
    said: str

    @property
    def right(self) -> bool:
        """They are the same."""
        return self.true == self.said


def draw(evaluated: Evaluated, *, codec: SpeechCodec) -> Iterator[Figure]:
    """The figures of one evaluation.

    Args:
        evaluated: `measured` is what `metrics.measure` gave; the dataset gives samples at the codec's rate.
    """
    measured = evaluated.measured
    if measured.rows == 0:
        return
    pairs = [aligned(*both) for both in zip(measured["true"], measured["said"], strict=True)]
    if worst := worst_rows(measured):
        yield Figure(
            "worst",
            "The worst utterances",
            "Those with the most wrong words for their length: above what is true, below what was said, word by word; "
            "red where they differ, a dash where a word was left out or made up. A text that belongs to another sound "
            "is often found here.",
            worst_grid(evaluated, worst, [pairs[row] for row in worst], rate=codec.rate),
            sounds=[recording(evaluated, row, rate=codec.rate) for row in worst],
        )
    if confused := confusions(pairs):
        yield Figure(
            "confusions",
            "Which words are taken for which",
            "The most frequent mistakes: true word, what was said instead, and how often. A dash on the left: made up; "
            "on the right: left out.",
            confusion_bars(confused),
        )
    if measured.array("words").sum():
        yield Figure(
            "lengths",
            "Errors by length",
            "Word error rate of utterances of so many words. A model that was trained on short ones only often loses "
            "its way in long ones. Behind each bar: how many utterances there are.",
            by_length(measured),
        )


def aligned(true: str, said: str) -> list[Pair]:
    """Both texts word by word, with as few differences as can be.

    >>> aligned("one two three", "one too three four")[1:]
    [Pair(true='two', said='too'), Pair(true='three', said='three'), Pair(true='-', said='four')]
    """
    left, right = true.split(), said.split()
    if not left:
        return [Pair(NOTHING, word) for word in right]
    pairs: list[Pair] = []
    for chunk in jiwer.process_words(true, said).alignments[0]:
        ours = left[chunk.ref_start_idx : chunk.ref_end_idx]
        theirs = right[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for place in range(max(len(ours), len(theirs))):
            pairs.append(Pair(*(words[place] if place < len(words) else NOTHING for words in (ours, theirs))))
    return pairs


def worst_rows(measured: Columns, *, most: int = WORST) -> list[int]:
    """Rows with the highest error rates, the worst first; none without an error."""
    errors = sum(measured.array(name).astype(float) for name in ("substitutions", "insertions", "deletions"))
    rate = np.asarray(errors) / np.maximum(measured.array("words"), 1)
    order = np.lexsort((-np.asarray(errors), -rate))[:most]
    return order[rate[order] > 0].tolist()


def confusions(pairs: Sequence[Sequence[Pair]], *, most: int = CONFUSED) -> list[tuple[Pair, int]]:
    """The most frequent mistakes with their counts."""
    counted = Counter(pair for each in pairs for pair in each if not pair.right)
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]


def worst_grid(evaluated: Evaluated, rows: Sequence[int], pairs: Sequence[Sequence[Pair]], *, rate: int) -> Canvas:
    """Spectrograms with both texts below them."""
    heights = [size for each in pairs for size in (1.3, 0.42 * -(-len(each) // WIDE))]
    canvas = Canvas(figsize=(9, sum(heights) + 0.4 * len(rows)), layout="constrained")
    grid: list[Axes] = canvas.subplots(len(heights), 1, squeeze=False, height_ratios=heights).ravel().tolist()
    dataset: Any = getattr(evaluated.dataset, "plain", evaluated.dataset)
    for place, (row, words) in enumerate(zip(rows, pairs, strict=True)):
        above, below = grid[2 * place], grid[2 * place + 1]
        index = int(evaluated.measured.ids[row])
        samples = np.asarray(dataset[Key(0, 0, 1, index)].raw)
        seconds = len(samples) / rate
        extent = (0, seconds, 0, rate / 2000)
        above.imshow(spectrogram(samples, rate), origin="lower", aspect="auto", cmap="Greys", extent=extent)
        above.set_ylabel("kHz", fontsize=7)
        above.tick_params(labelsize=6)
        speaker = evaluated.measured["speaker"][row]
        name = f"utterance {index}{f', {speaker}' if speaker else ''}, {seconds:.1f} s"
        above.set_title(_plain(name), fontsize=7, loc="left", color=INK)
        _texts(below, words)
    return canvas


def _texts(axes: Axes, words: Sequence[Pair]) -> None:
    """Both texts, word under word, in as many lines as they need."""
    lines = max(-(-len(words) // WIDE), 1)
    axes.set(xlim=(0, WIDE), ylim=(2 * lines, 0))
    axes.set_axis_off()
    for place, pair in enumerate(words):
        line, column = divmod(place, WIDE)
        for side, text in enumerate(pair):
            y = 2 * line + 0.8 * side + 0.6
            axes.text(column + 0.5, y, _plain(text), ha="center", va="center", fontsize=7, color=_color(pair))


def _color(pair: Pair) -> str:
    return INK if pair.right else RED


def recording(evaluated: Evaluated, row: int, *, rate: int) -> Recording:
    """An utterance to listen to, at most `HEARD` seconds of it."""
    written = io.BytesIO()
    soundfile.write(written, _samples(evaluated, row)[: HEARD * rate], rate, format="WAV", subtype="PCM_16")
    true, said = (evaluated.measured[name][row] or NOTHING for name in ("true", "said"))
    return Recording(f"utterance {int(evaluated.measured.ids[row])}: {true}; heard: {said}", written.getvalue())


def _samples(evaluated: Evaluated, row: int) -> np.ndarray:
    """An utterance as it is, whatever training makes of it."""
    dataset: Any = getattr(evaluated.dataset, "plain", evaluated.dataset)
    return np.asarray(dataset[Key(0, 0, 1, int(evaluated.measured.ids[row]))].raw)


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Decibels below the loudest, at most 70: (frequencies, frames)."""
    size, hop = round(0.032 * rate), round(0.008 * rate)
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    framed = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(framed, axis=1)).T ** 2
    return np.maximum(10 * np.log10(power / max(power.max(), 1e-12) + 1e-12), -70)


def confusion_bars(confused: Sequence[tuple[Pair, int]]) -> Canvas:
    """Bars, the most frequent on top."""
    places = range(len(confused))
    counts = [count for _, count in confused]
    canvas = Canvas(figsize=(6.4, 1.0 + 0.24 * len(confused)), layout="constrained")
    axes = canvas.subplots()
    colors = [ORANGE if NOTHING in pair else BLUE for pair, _ in confused]
    axes.barh(places, counts, color=colors, height=0.7)
    axes.set_yticks(places, [_plain(f"{pair.true} → {pair.said}") for pair, _ in confused], fontsize=8)
    for place, count in zip(places, counts, strict=True):
        axes.text(count, place, f" {count}", va="center", fontsize=8, color=INK)
    axes.set(ylim=(len(confused) - 0.4, -0.6), xlabel="how often")
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def by_length(measured: Columns, *, most: int = 10) -> Canvas:
    """Word error rate over the number of words, in at most `most` groups of like size."""
    words = measured.array("words")
    errors = np.asarray(sum(measured.array(name) for name in ("substitutions", "insertions", "deletions")))
    edges = np.unique(np.quantile(words[words > 0], np.linspace(0, 1, most + 1)).round().astype(int))
    group = np.clip(np.searchsorted(edges, words, side="right") - 1, 0, max(len(edges) - 2, 0))
    names: list[str] = []
    rates: list[float] = []
    counts: list[int] = []
    for number in range(max(len(edges) - 1, 1)):
        chosen = (group == number) & (words > 0)
        if chosen.any():
            low, high = int(words[chosen].min()), int(words[chosen].max())
            names.append(f"{low}" if low == high else f"{low}-{high}")
            rates.append(100 * float(errors[chosen].sum() / words[chosen].sum()))
            counts.append(int(chosen.sum()))
    canvas = Canvas(figsize=(6.4, 3), layout="constrained")
    axes = canvas.subplots()
    axes.bar(range(len(names)), rates, color=BLUE, width=0.7)
    for place, (value, count) in enumerate(zip(rates, counts, strict=True)):
        axes.text(place, value, f"{value:.0f} %\n({count})", ha="center", va="bottom", fontsize=7, color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.margins(y=0.2)
    axes.set(xlabel="words", ylabel="word error rate, %")
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


def _plain(text: str) -> str:
    """No dollar is left that would start a formula."""
    return text.replace("$", r"\$")
