"""The most probable text, with what is known beforehand about words. Knows log-probabilities and tokens; no torch.

Prefix beam search: Hannun et al.: First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
Recurrent DNNs, 2014 (arXiv:1408.2873). Each prefix holds the probability of all paths that say it, those that end in a
blank and those that end in its last token. They are kept as shares of the best prefix's, whose logarithm is summed
beside them: as safe as logarithms, and several times as fast. Two cuts keep a frame cheap: tokens that the model all
but excludes are not tried, and frames that are surely blank are not searched; both can be switched off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heapify, heappush, heappushpop
from typing import NamedTuple

import numpy as np

from modelwright.errors import ConfigError
from modelwright_speech.language import END, Language, State
from modelwright_speech.lexicon import Lexicon, Place
from modelwright_speech.tokens import BLANK, Tokens, normalised

MOST = 40
"""Tokens of a frame that are tried at most, unless nothing is cut."""
CHUNK = 1024
"""Frames whose tokens are chosen at a time."""
TIDY = 256
"""Searched frames after which the text so far is settled, but for its end."""
HORIZON = 100
"""Tokens of that end: what is heard now may still change them."""
STRONGEST = 100.0
"""The most that a single word may be given or lose, natural log."""


class Hypothesis(NamedTuple):
    """A text and its score: natural log of its probability, with what the prior knowledge adds."""

    text: str
    score: float


class _Prefix:
    """A text so far.

    `blank`, `other`: share of the paths that end in a blank, in its last token; `next_*`: of the frame that is being
    searched, whose number is `stamp`. `factor`: what the prior knowledge says of its last step. `word`: the letters of
    the word that is being said, `place` where these stand in the lexicon, `state` the words before it, `promise` what
    hotwords have lent it.
    """

    __slots__ = (
        "blank", "factor", "following", "next_blank", "next_other", "other", "parent", "place", "promise", "stamp",
        "state", "token", "total", "word",
    )  # fmt: skip

    def __init__(
        self,
        parent: _Prefix | None,
        token: int,
        factor: float,
        word: str,
        place: Place | None,
        state: State,
        promise: float,
    ) -> None:
        self.parent, self.token, self.factor = parent, token, factor
        self.word, self.place, self.state, self.promise = word, place, state, promise
        self.following: dict[int, _Prefix | None] = {}
        self.blank = self.other = self.next_blank = self.next_other = self.total = 0.0
        self.stamp = -1


@dataclass(frozen=True)
class Beam:
    """A search. What works on words (lexicon, language, hotwords, bonus) works for characters and for pieces of words.

    Attributes:
        tokens: what the numbers stand for.
        lexicon: only its words are said; None: anything.
        language: which words follow which; None: nothing is known. A word is judged when it ends.
        hotwords: single words that are likelier than usual (or rarer, below 0), natural log. While such a word is being
            said, its letters are lent their share, and give it back if it becomes another.
        width: prefixes kept at each frame.
        weight: how much the language model counts.
        bonus: added for each word.
        least: tokens of a lower probability in a frame are not tried there; 0: all are.
        sure: from this probability on, a blank is sure and its frame not searched; above 1: all are.
        floor: prefixes that are less probable than this share of the best are dropped; 0: only `width` counts.

    Raises:
        ConfigError: a width below 1, a weight below 0, a bonus that is out of bounds, or a hotword that is none or
            cannot be written.
    """

    tokens: Tokens
    lexicon: Lexicon | None = None
    language: Language | None = None
    hotwords: Mapping[str, float] = field(default_factory=dict[str, float])
    width: int = 16
    weight: float = 0.5
    bonus: float = 0.0
    least: float = 1e-4
    sure: float = 0.9995
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"evaluate.beam={self.width}: at least one prefix must be kept; 16 is usual")
        if not self.weight >= 0:
            raise ConfigError(f"evaluate.weight={self.weight}: a language model counts 0 or more; 0.5 is usual")
        for name, value in {"evaluate.bonus": self.bonus, **self.hotwords}.items():
            if not abs(value) <= STRONGEST:
                raise ConfigError(
                    f"{name}: {value} is out of bounds; a natural log between -{STRONGEST} and {STRONGEST}"
                )
        words = {normalised(word): value for word, value in self.hotwords.items()}
        for word in words:
            if not word or " " in word:
                raise ConfigError(f"evaluate.hotwords: {word!r} is not one word; give each word of a phrase by itself")
            if missing := self.tokens.missing(word):
                shown = " ".join(sorted(missing))
                raise ConfigError(
                    f"evaluate.hotwords: {word!r} holds {shown}, which the model cannot write; leave it out"
                )
        object.__setattr__(self, "hotwords", words)

    def search(self, log_probs: np.ndarray) -> str:
        """The best text.

        Args:
            log_probs: (frames, tokens), natural log.
        """
        return self.hypotheses(log_probs)[0].text

    def hypotheses(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """The texts that were left, the best first; at least one, at most `width`.

        With a lexicon, a word that is unfinished at the end is left out where no finished text is among them.
        """
        prefixes, scale = self._searched(log_probs)
        found: dict[str, float] = {}
        whole = [prefix for prefix in prefixes if self._whole(prefix)]
        for prefix in whole or prefixes:
            text = self.tokens.decode(_ids(prefix if whole else self._last_whole(prefix)))
            score = _log(prefix.total) + scale + (self._end(prefix) if whole else 0.0)
            found[text] = float(np.logaddexp(found[text], score)) if text in found else score
        return [Hypothesis(*each) for each in sorted(found.items(), key=lambda each: -each[1])]

    # The search ---------------------------------------------------------------------------------------------------

    def _searched(self, log_probs: np.ndarray) -> tuple[list[_Prefix], float]:
        """The prefixes that are left, by their `total`, and the logarithm of what that is a share of."""
        anchor = _Prefix(None, -1, 1.0, "", self.lexicon.root if self.lexicon else None, self._start, 0.0)
        anchor.blank = anchor.total = 1.0
        beam, scale, searched = [anchor], 0.0, 0
        for frame, (blank, tokens) in enumerate(self._frames(log_probs)):
            if blank >= self.sure:
                for prefix in beam:
                    prefix.blank, prefix.other = prefix.blank + prefix.other, 0.0
                scale += math.log(blank)
                continue
            fresh = self._extended(beam, frame, blank, tokens)
            fresh.sort(key=_total, reverse=True)
            best = fresh[0].total
            if best <= 0.0:  # nothing that the frame says can be said here
                continue
            del fresh[self.width :]
            beam = [prefix for prefix in fresh if prefix.total > self.floor * best]
            for prefix in beam:
                prefix.blank, prefix.other = prefix.next_blank / best, prefix.next_other / best
                prefix.total /= best
            scale += math.log(best)
            searched += 1
            if searched % TIDY == 0:
                anchor, beam = _tidied(anchor, beam)
        return beam, scale

    def _extended(
        self, beam: list[_Prefix], frame: int, blank: float, tokens: list[tuple[int, float]]
    ) -> list[_Prefix]:
        """All prefixes that the frame leads to, with their `total`, in no order.

        Written out for speed: this is where the time goes.
        """
        probability = dict(tokens)
        for prefix in beam:  # as they are: a blank, or the last token once more
            prefix.stamp = frame
            prefix.next_blank = (prefix.blank + prefix.other) * blank
            prefix.next_other = prefix.other * probability.get(prefix.token, 0.0)
        # A new prefix is made only if it may be one of the `width` best: none gains more than `most` by being made.
        most, width = self._most, self.width
        best = [prefix.next_blank + prefix.next_other for prefix in beam]
        heapify(best)
        cut = self.floor * max(blank, tokens[0][1]) / most if tokens else 1.0
        least = max(cut, best[0] / most) if len(best) >= width else cut
        fresh = list(beam)
        for prefix in beam:
            ends_blank, last, following = prefix.blank, prefix.token, prefix.following
            total = ends_blank + prefix.other
            for token, each in tokens:
                if total * each < least:
                    break  # those that follow are less probable
                child = following[token] if token in following else self._child(prefix, token)
                if child is None:
                    continue
                share = (ends_blank if token == last else total) * each * child.factor
                if child.stamp == frame:
                    child.next_other += share
                    continue
                child.stamp = frame
                child.next_blank, child.next_other = 0.0, share
                fresh.append(child)
                if len(best) < width:
                    heappush(best, share)
                else:
                    heappushpop(best, share)
                if len(best) >= width:
                    least = max(cut, best[0] / most)
        for prefix in fresh:
            prefix.total = prefix.next_blank + prefix.next_other
        return fresh

    def _frames(self, log_probs: np.ndarray) -> Iterator[tuple[float, list[tuple[int, float]]]]:
        """Probability of the blank in each frame, and of the tokens that are worth trying, the best first."""
        count = self.tokens.size if self.least <= 0 else min(MOST, self.tokens.size)
        mute = np.array([not piece for piece in self.tokens.pieces])
        for first in range(0, len(log_probs), CHUNK):
            probabilities = np.exp(np.asarray(log_probs[first : first + CHUNK], np.float64))
            blanks = probabilities[:, BLANK].tolist()
            probabilities[:, mute] = 0.0
            tried = probabilities >= max(self.least, np.finfo(np.float64).tiny)
            best = probabilities.argmax(axis=1)
            rows = np.arange(len(best))
            tried[rows, best] = probabilities[rows, best] > 0  # a frame that is sure of nothing still says something
            frames, numbers = np.nonzero(tried)
            values = probabilities[frames, numbers]
            order = np.lexsort((-values, frames))
            ranked = list(zip(numbers[order].tolist(), values[order].tolist(), strict=True))
            stops = np.cumsum(tried.sum(axis=1)).tolist()
            for blank, start, stop in zip(blanks, [0, *stops[:-1]], stops, strict=True):
                yield blank, ranked[start : min(stop, start + count)]

    # What is known beforehand -------------------------------------------------------------------------------------

    @cached_property
    def _start(self) -> State:
        return self.language.start if self.language else ()

    @cached_property
    def _opens(self) -> list[bool]:
        return [surface.startswith(" ") for surface in self.tokens.surfaces]

    @cached_property
    def _letters(self) -> list[str]:
        return [surface.strip() for surface in self.tokens.surfaces]

    @cached_property
    def _plain(self) -> bool:
        """Nothing is known beforehand."""
        return not (self.lexicon or self.language or self.hotwords or self.bonus)

    @cached_property
    def _most(self) -> float:
        """The factor that no single token exceeds."""
        return math.exp(max(0.0, self.bonus) + max(0.0, *self.hotwords.values(), 0.0))

    @cached_property
    def _promises(self) -> dict[str, float]:
        """What the first letters of a hotword are lent: a share of its bonus, as many letters as there are."""
        found: dict[str, float] = {}
        for word, value in self.hotwords.items():
            for count in range(1, len(word) + 1):
                found[word[:count]] = max(found.get(word[:count], 0.0), value * count / len(word))
        return found

    def _child(self, prefix: _Prefix, token: int) -> _Prefix | None:
        """The prefix with one more token; None where the lexicon has no such word."""
        child = _Prefix(prefix, token, 1.0, "", None, (), 0.0) if self._plain else self._judged(prefix, token)
        prefix.following[token] = child
        return child

    def _judged(self, prefix: _Prefix, token: int) -> _Prefix | None:
        word, place, state, promise = prefix.word, prefix.place, prefix.state, prefix.promise
        closes = self._opens[token] and bool(word)
        if self.lexicon:
            place = self._step(prefix, token)
            if place is None:
                return None
        gain = 0.0
        if closes:
            gain, state = self._closed(prefix)
            word, promise = "", 0.0
        word += self._letters[token]
        lent = self._promises.get(word, 0.0) if self._promises else 0.0
        return _Prefix(prefix, token, math.exp(gain + lent - promise), word, place, state, lent)

    def _step(self, prefix: _Prefix, token: int) -> Place | None:
        """Where a token leads in the lexicon."""
        place = prefix.place
        assert place is not None
        assert self.lexicon is not None
        if self._opens[token] and prefix.word:
            if not place.word:
                return None
            place = self.lexicon.root
            if not self._letters[token] and self.tokens.kind == "characters":
                return place  # a space ends a word and is in none; a piece that opens a word is its first
        return place.following.get(token)

    def _closed(self, prefix: _Prefix) -> tuple[float, State]:
        """What is added when the word of a prefix ends, and the state after it; what was lent is given back."""
        gain = self.bonus + self.hotwords.get(prefix.word, 0.0) - prefix.promise
        if not self.language:
            return gain, ()
        score, state = self.language.score(prefix.state, prefix.word)
        return gain + self.weight * score, state

    def _whole(self, prefix: _Prefix) -> bool:
        return not prefix.word or prefix.place is None or prefix.place.word

    def _last_whole(self, prefix: _Prefix) -> _Prefix:
        """The text without the word that is unfinished."""
        while prefix.word and prefix.parent is not None:
            prefix = prefix.parent
        return prefix

    def _end(self, prefix: _Prefix) -> float:
        """What is added when the text ends."""
        gain, state = self._closed(prefix) if prefix.word else (0.0, prefix.state)
        return gain + (self.weight * self.language.score(state, END)[0] if self.language else 0.0)


def _total(prefix: _Prefix) -> float:
    return prefix.total


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def _ids(prefix: _Prefix) -> list[int]:
    ids: list[int] = []
    while prefix.parent is not None:
        ids.append(prefix.token)
        prefix = prefix.parent
    return ids[::-1]


def _tidied(anchor: _Prefix, beam: list[_Prefix]) -> tuple[_Prefix, list[_Prefix]]:
    """Settles what lies `HORIZON` tokens back as the best prefix has it, and lets go of all that leads elsewhere.

    Otherwise two ways to hear an early word, as probable as each other, would share the beam until the end.

    Args:
        anchor: what all prefixes come from.
        beam: the best first.

    Returns:
        The next anchor, and the prefixes that come from it.
    """
    settled = beam[0]
    for _ in range(HORIZON):
        if settled is anchor or settled.parent is None:
            break
        settled = settled.parent
    kept: list[_Prefix] = []
    alive: set[_Prefix] = {settled}
    for prefix in beam:
        way: list[_Prefix] = []
        each: _Prefix | None = prefix
        while each is not None and each is not anchor and each not in alive:
            way.append(each)
            each = each.parent
        if each in alive:
            kept.append(prefix)
            alive.update(way)
    for prefix in alive:
        prefix.following = {token: way for token, way in prefix.following.items() if way is None or way in alive}
    above = settled.parent
    while above is not None and settled is not anchor:
        above.following = {}
        above = above.parent if above is not anchor else None
    return settled, kept
