"""Word and character error rates. Knows texts and jiwer; no models, no sound, no settings.

Rates are corpus ratios: errors over all utterances by words over all utterances. Measured rows hold counts, so that any
choice of utterances, a bootstrap's too, is a sum. Nothing is normalised but case and spaces: a normaliser that writes
"zero one" as "01" would count other errors than people see.
"""

from __future__ import annotations

import jiwer
import numpy as np

from modelwright.codec import Column, Columns
from modelwright_speech.tokens import normalised

COUNTS = ("words", "substitutions", "insertions", "deletions", "characters", "character_errors", "empty")
MOST_SPEAKERS = 50
"""Beyond so many, speakers are not listed one by one."""


def measure(predictions: Columns, truths: Columns) -> Columns:
    """Errors of each utterance.

    Args:
        predictions: list `text`.
        truths: lists `text` and `speaker` (empty where unknown) of the same utterances.

    Returns:
        int64 columns `words` (of the truth), `substitutions`, `insertions`, `deletions` (of words), `characters`,
        `character_errors`, `empty` (1 where nothing was said of words that are there), and lists `said`, `true`,
        `speaker`.

    Raises:
        ValueError: the two are of different utterances.
    """
    if not np.array_equal(predictions.ids, truths.ids):
        raise ValueError("predictions and truths are of different utterances")
    said, true = ([normalised(text) for text in each["text"]] for each in (predictions, truths))
    counts = np.array([_counts(*pair) for pair in zip(true, said, strict=True)], np.int64).reshape(-1, len(COUNTS))
    columns: dict[str, Column] = {name: counts[:, place] for place, name in enumerate(COUNTS)}
    return Columns({**columns, "said": said, "true": true, "speaker": list(truths["speaker"])}, truths.ids)


def _counts(true: str, said: str) -> tuple[int, ...]:
    words, characters = len(true.split()), len(true)
    if not true:  # jiwer has no rate of nothing
        return 0, 0, len(said.split()), 0, 0, len(said), 0
    found = jiwer.process_words(true, said)
    letters = jiwer.process_characters(true, said)
    errors = letters.substitutions + letters.insertions + letters.deletions
    return words, found.substitutions, found.insertions, found.deletions, characters, errors, int(not said)


def scores(measured: Columns) -> dict[str, float]:
    """Every score of the measured utterances, repeated ones counted again.

    wer and cer: word and character error rate; substitutions, insertions, deletions: of words, as shares of the true
    ones, wer together; exact: share of the utterances without an error; empty: share of which nothing was said though
    there are words; and `wer/<speaker>`, where speakers are known and not too many. Not a number without words.
    """
    total = {name: float(measured.array(name).sum()) for name in COUNTS}
    errors = sum(measured.array(name) for name in ("substitutions", "insertions", "deletions"))
    found = {
        "wer": _ratio(float(np.sum(errors)), total["words"]),
        "cer": _ratio(total["character_errors"], total["characters"]),
        **{name: _ratio(total[name], total["words"]) for name in ("substitutions", "insertions", "deletions")},
        "exact": _ratio(float((measured.array("character_errors") == 0).sum()), measured.rows),
        "empty": _ratio(total["empty"], float((measured.array("words") > 0).sum())),
    }
    return found | _by_speaker(measured, np.asarray(errors))


def _by_speaker(measured: Columns, errors: np.ndarray) -> dict[str, float]:
    speakers = np.array(measured["speaker"], dtype=str)
    names, codes = np.unique(speakers, return_inverse=True)
    if not 1 < len(names) <= MOST_SPEAKERS:
        return {}
    wrong = np.bincount(codes, weights=errors)
    words = np.bincount(codes, weights=measured.array("words"))
    listed = zip(names.tolist(), wrong.tolist(), words.tolist(), strict=True)
    return {f"wer/{name}": _ratio(bad, count) for name, bad, count in listed if name}


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def perfect(truths: Columns) -> Columns:
    """The predictions that score best: the true texts."""
    return Columns({"text": list(truths["text"])}, truths.ids)
