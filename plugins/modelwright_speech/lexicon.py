"""The words that may be said, as a trie of tokens. Knows texts and tokens; no sound, no search, no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.errors import ConfigError
from modelwright_speech.tokens import Tokens, normalised


class Place:
    """A place in the trie: what may follow, and whether a word ends here."""

    __slots__ = ("following", "word")

    def __init__(self) -> None:
        self.following: dict[int, Place] = {}
        self.word = False


@dataclass(frozen=True)
class Lexicon:
    """Words, and the trie of their tokens.

    Pieces of words (bpe) work as well as characters: a word is cut alike wherever it stands, as in training, so the one
    way of cutting it is the one that the model has learnt.

    Attributes:
        words: sorted, each once.
        silent: words that the tokens cannot write, which are left out.
        root: where every word begins.
    """

    words: tuple[str, ...]
    silent: tuple[str, ...] = ()
    root: Place = field(default_factory=Place, repr=False, compare=False)

    @classmethod
    def of(cls, words: Iterable[str], tokens: Tokens) -> Lexicon:
        """The trie of words, which are normalised.

        Raises:
            ConfigError: an entry is several words, or the tokens can write none of them.
        """
        known = sorted({normalised(word) for word in words} - {""})
        for word in known:
            if " " in word:
                raise ConfigError(
                    f"the lexicon holds {word!r}, which is several words; give each as an entry of its own"
                )
        silent = tuple(word for word in known if tokens.missing(word))
        left = set(silent)
        lexicon = cls(tuple(word for word in known if word not in left), silent)
        if not lexicon.words:
            line = "the lexicon holds no word that the model can write"
            raise ConfigError(f"{line}: it knows the characters {''.join(sorted(tokens.alphabet))!r}; give other words")
        for word in lexicon.words:
            place = lexicon.root
            for token in tokens.encode(word):
                place = place.following.setdefault(token, Place())
            place.word = True
        return lexicon


def read(path: str | Path) -> tuple[str, ...]:
    """The words of a text file, one a line, normalised; empty lines are nothing.

    Raises:
        ConfigError: the file is missing, no UTF-8 text or empty, or a line holds several words.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"the lexicon {path} cannot be read: {why}; give a text file with one word a line") from error
    words: list[str] = []
    for number, line in enumerate(lines, start=1):
        word = normalised(line)
        if " " in word:
            raise ConfigError(f"the lexicon {path}, line {number}: {word!r} is several words; write one word a line")
        if word:
            words.append(word)
    if not words:
        raise ConfigError(f"the lexicon {path} holds no word; write one word a line")
    return tuple(words)
