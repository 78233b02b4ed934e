"""What a CTC model writes: characters or pieces of words, by number. Knows texts; no sound, no model, no torch.

Number 0 is the blank. Pieces of words are learnt by byte pair encoding (Sennrich, Haddow, Birch: Neural Machine
Translation of Rare Words with Subword Units, ACL 2016) with the library `tokenizers`, which is asked only to learn and
to cut: decoding needs neither it nor anything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from modelwright.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLANK = 0
MARK = "▁"
"""Stands for the space in front of a word, in pieces of words."""


def normalised(text: str) -> str:
    """Lower case, single spaces, none at the ends; nothing else is changed.

    >>> normalised("  Zero   ONE two ")
    'zero one two'
    """
    return " ".join(text.lower().split())


class Span(NamedTuple):
    """A word and where its tokens stand in a sequence of numbers: from `first` to before `last`."""

    word: str
    first: int
    last: int


@dataclass(frozen=True)
class Tokens:
    """What each number stands for.

    Attributes:
        kind: characters, or bpe: pieces of words, in which `MARK` opens a word.
        pieces: the text of each number. Those that are empty write nothing: the blank, which is number 0, and whatever
            else a published model's vocabulary holds (padding, unknown).
        model: bpe: the JSON of the library `tokenizers`.

    Raises:
        ConfigError: number 0 is not the blank.
    """

    kind: Literal["characters", "bpe"]
    pieces: tuple[str, ...]
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", tuple(self.pieces))  # JSON gives a list
        if not self.pieces or self.pieces[BLANK]:
            raise ConfigError("tokens: number 0 must be the blank, an empty text; put it first in the vocabulary")

    @classmethod
    def characters(cls, texts: Iterable[str]) -> Tokens:
        """Every character of the texts, in the order of their code points.

        Raises:
            DataError: there is no character in them.
        """
        alphabet = sorted({character for text in texts for character in normalised(text)})
        if not alphabet:
            raise DataError("the training texts hold no character; look at the column or the files that give the text")
        return cls("characters", ("", *alphabet))

    @classmethod
    def bpe(cls, texts: Iterable[str], size: int) -> Tokens:
        """`size` pieces, the blank among them, fewer where the texts hold fewer; every character is one of them.

        Raises:
            DataError: there is no character in the texts.
            ConfigError: `size` is too small for the characters alone.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        known = [normalised(text) for text in texts]
        alphabet = set(Tokens.characters(known).pieces[1:]) - {" ", MARK}
        if size < len(alphabet) + 2:
            line = f"model.vocabulary={size} is too small for the {len(alphabet)} characters of the training texts"
            raise ConfigError(f"{line}; ask for {len(alphabet) + 2} or more, or for model.tokens=characters")
        tokenizer = Tokenizer(models.BPE())
        # Without a space in front of the first word, it would be another piece than later in the text.
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            show_progress=False,
            special_tokens=["<BLANK>"],  # upper case: no normalised text holds it
            initial_alphabet=sorted(alphabet | {MARK}),
        )
        tokenizer.train_from_iterator(known, trainer)
        numbers = tokenizer.get_vocab()
        pieces = sorted(numbers, key=lambda piece: numbers[piece])
        return cls("bpe", ("", *pieces[1:]), tokenizer.to_str())

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Tokens:
        """What `settings` gave."""
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """JSON values from which `of` makes the same tokens again."""
        return {**asdict(self), "pieces": list(self.pieces)}

    @property
    def size(self) -> int:
        """How many numbers there are, with the blank."""
        return len(self.pieces)

    @cached_property
    def surfaces(self) -> tuple[str, ...]:
        """The text of each number, with a space where a word is opened."""
        return tuple(piece.replace(MARK, " ") if self.kind == "bpe" else piece for piece in self.pieces)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {piece: number for number, piece in enumerate(self.pieces) if piece}

    @property
    def space(self) -> int:
        """The number that stands between words; the blank where pieces open words themselves."""
        return self._numbers.get(" ", BLANK)

    @cached_property
    def alphabet(self) -> frozenset[str]:
        """The characters that can be written."""
        return frozenset("".join(self.surfaces))

    def missing(self, text: str) -> set[str]:
        """The characters of a text that cannot be written."""
        return set(normalised(text)) - self.alphabet

    def encode(self, text: str) -> list[int]:
        """The numbers of a text, which is normalised first.

        Raises:
            DataError: it holds a character that cannot be written.
        """
        text = normalised(text)
        if missing := set(text) - self.alphabet:
            shown = " ".join(repr(character) for character in sorted(missing))
            line = f"the text {_short(text)} holds {shown}, which the training texts do not"
            raise DataError(f"{line}; spell it otherwise, leave it out, or train on texts that have it")
        if self.kind == "characters":
            return [self._numbers[character] for character in text]
        return _tokenizer(self.model).encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of numbers, normalised; blanks are nothing, repeats are letters said twice."""
        return " ".join("".join([self.surfaces[number] for number in ids]).split())

    def words(self, ids: Sequence[int]) -> list[Span]:
        """The words of `decode`, each with the place of its tokens among `ids`; spaces belong to no word.

        >>> Tokens.characters(["ab a"]).words([2, 3, 1, 2])
        [Span(word='ab', first=0, last=2), Span(word='a', first=3, last=4)]
        """
        spans: list[Span] = []
        word, first, last = "", 0, 0
        for place, number in enumerate(ids):
            surface = self.surfaces[number]
            if surface.startswith(" ") and word:
                spans.append(Span(word, first, last))
                word = ""
            if text := surface.strip():
                first = first if word else place
                word, last = word + text, place + 1
        return [*spans, Span(word, first, last)] if word else spans


@lru_cache(maxsize=8)
def _tokenizer(model: str) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(model)


def _short(text: str, most: int = 40) -> str:
    return json.dumps(text if len(text) <= most else f"{text[:most]}...", ensure_ascii=False)
