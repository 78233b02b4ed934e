"""Which words follow which: a bigram counted in texts, models read from ARPA files. Knows words; no sound, no torch.

Probabilities are natural logs. Words are normalised as texts are, so that a file in capitals serves as well.
"""

from __future__ import annotations

import gzip
import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from modelwright.errors import ConfigError, DataError
from modelwright_speech.tokens import normalised

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
State: TypeAlias = "tuple[str, ...]"
"""The words that the next one depends on."""


class Language(ABC):
    """How likely a word is after those before it."""

    start: State = (START,)
    """Before the first word."""

    @abstractmethod
    def score(self, state: State, word: str) -> tuple[float, State]:
        """Log-probability of a word, `END` included, and the state after it; a word it does not know has one too."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values from which `of` makes the same model again."""


def of(settings: Mapping[str, Any]) -> Language:
    """What `settings` of a model gave.

    Raises:
        ConfigError: of an unknown kind.
    """
    kinds: dict[str, type[Bigram | Arpa]] = {"bigram": Bigram, "arpa": Arpa}
    if settings.get("kind") not in kinds:
        raise ConfigError(f"no language model of kind {settings.get('kind')!r}; there are {', '.join(kinds)}")
    return kinds[settings["kind"]].of(settings)


@dataclass(frozen=True)
class Bigram(Language):
    """Counted pairs of words, smoothed.

    Interpolated with single words, and these with a uniform share for what was never seen, after Witten and Bell: The
    Zero-Frequency Problem, IEEE Transactions on Information Theory 1991. After a word with T different followers in N
    places, a share T / (N + T) goes to single words. Probabilities of all known words, `END` and `UNKNOWN` sum to one.

    Attributes:
        pairs: how often a word (inner key) follows another (outer key); `START` and `END` stand around each text.
    """

    pairs: Mapping[str, Mapping[str, int]]

    @classmethod
    def counted(cls, texts: Iterable[str]) -> Bigram:
        """The pairs in texts, which are normalised.

        Raises:
            DataError: there is no word in them.
        """
        pairs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for text in texts:
            words = [START, *normalised(text).split(), END]
            for left, right in pairwise(words):
                pairs[left][right] += 1
        if not set(pairs) - {START}:
            raise DataError("the training texts hold no word to count; use evaluate.language=none or give an ARPA file")
        return cls({left: dict(sorted(pairs[left].items())) for left in sorted(pairs)})

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Bigram:
        """What `settings` gave."""
        return cls(settings["pairs"])

    def settings(self) -> dict[str, Any]:
        return {"kind": "bigram", "pairs": {left: dict(found) for left, found in self.pairs.items()}}

    @cached_property
    def _single(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for found in self.pairs.values():
            counts.update(found)
        return counts

    @cached_property
    def _totals(self) -> dict[str, int]:
        return {left: sum(found.values()) for left, found in self.pairs.items()}

    @property
    def words(self) -> tuple[str, ...]:
        """All it gives a probability to, `END` and `UNKNOWN` among them."""
        return (*self._single, UNKNOWN)

    def score(self, state: State, word: str) -> tuple[float, State]:
        left = state[-1]
        kinds = len(self._single)
        single = (self._single.get(word, 0) + kinds / (kinds + 1)) / (self._singles + kinds)
        if found := self.pairs.get(left):
            share = len(found)
            single = (found.get(word, 0) + share * single) / (self._totals[left] + share)
        return math.log(single), (word,)

    @cached_property
    def _singles(self) -> int:
        return self._single.total()


@dataclass(frozen=True)
class Arpa(Language):
    """A model of any order with back-off (Katz: IEEE Transactions on Acoustics, Speech, and Signal Processing 1987).

    All of it is held in memory, some 300 bytes for each sequence of words.

    Attributes:
        order: words of its longest sequences.
        grams: sequence of words -> natural logs of its probability and of the weight of backing off from it.
    """

    order: int
    grams: Mapping[State, tuple[float, float]]

    @classmethod
    def read(cls, path: str | Path) -> Arpa:
        """An ARPA file, plain or .gz; sequences that differ only in case become one, the likelier.

        Raises:
            ConfigError: the file cannot be read or is no such file; the line is named.
        """
        grams: dict[State, tuple[float, float]] = {}
        order = 0
        for length, words, probability, backoff in _entries(path):
            order = max(order, length)
            if words not in grams or grams[words][0] < probability:
                grams[words] = (probability, backoff)
        return cls(order, grams)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Arpa:
        """What `settings` gave."""
        grams = {tuple(words.split(" ")): (float(pair[0]), float(pair[1])) for words, pair in settings["grams"].items()}
        return cls(int(settings["order"]), grams)

    def settings(self) -> dict[str, Any]:
        return {"kind": "arpa", "order": self.order, "grams": {" ".join(k): list(v) for k, v in self.grams.items()}}

    @cached_property
    def _least(self) -> float:
        """Of a word that is not in the file, if that has no `UNKNOWN`: as the rarest word's."""
        return min(pair[0] for words, pair in self.grams.items() if len(words) == 1 and words[0] != START)

    def score(self, state: State, word: str) -> tuple[float, State]:
        if (word,) not in self.grams:
            word = UNKNOWN
        after = (*state, word)[-(self.order - 1) :] if self.order > 1 else ()
        backed = 0.0
        context = state
        while (found := self.grams.get((*context, word))) is None:
            if not context:
                return backed + self._least, after
            backed += self.grams.get(context, (0.0, 0.0))[1]
            context = context[1:]
        return backed + found[0], after


def _entries(path: str | Path) -> Iterator[tuple[int, State, float, float]]:
    """Length, words, log-probability and back-off of each line of an ARPA file."""
    expected: dict[int, int] = {}
    length, number, done = 0, 0, False
    seen: Counter[int] = Counter()
    for number, line in enumerate(_lines(path), start=1):
        text = line.strip()
        if done or not text or (not expected and text != "\\data\\" and not text.startswith("ngram ")):
            continue
        if text == "\\end\\":
            done = True
        elif text.startswith("ngram ") and not length:
            try:
                order, count = map(int, text[6:].split("="))
            except ValueError:
                _broken(path, number, "no such number of sequences as in 'ngram 1=100'")
            expected[order] = count
        elif text.startswith("\\"):
            length = next((order for order in expected if text == f"\\{order}-grams:"), length)
        elif length:
            fields = text.split()
            try:
                values = [float(field) * math.log(10) for field in (fields[0], *fields[length + 1 :])]
            except ValueError:
                values = []
            if len(values) not in (1, 2) or len(fields) < length + 1:
                _broken(path, number, f"not a number, {length} words and at most one more number")
            seen[length] += 1
            words = tuple(_word(word) for word in fields[1 : length + 1])
            yield length, words, values[0], values[1] if len(values) == 2 else 0.0
    if not expected:
        _broken(path, number, "no \\data\\ section with lines such as 'ngram 1=100'")
    if not done or any(seen[order] != count for order, count in expected.items()):
        _broken(path, number, f"the file ends early: {dict(expected)} sequences announced, {dict(seen)} found")


def _word(word: str) -> str:
    return normalised(word)  # also <UNK> and <S>, as some tools write them


def _lines(path: str | Path) -> Iterator[str]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if str(path).endswith(".gz")
            else open(path, encoding="utf-8") as file
        ):
            yield from file
    except (OSError, EOFError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is damaged or no UTF-8 text"
        raise ConfigError(f"the language model {path} cannot be read: {why}; give an ARPA file") from error


def _broken(path: str | Path, number: int, what: str) -> NoReturn:
    raise ConfigError(
        f"the language model {path}, line {number}: {what}; give an ARPA file, as KenLM or SRILM write it"
    )
