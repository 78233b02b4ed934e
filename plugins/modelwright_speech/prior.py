"""What the settings say is known beforehand of words, as the codec keeps it. Knows settings and files; no model."""

from __future__ import annotations

import json
from typing import Any, TypedDict

from modelwright.data import Facts
from modelwright.errors import ConfigError
from modelwright_speech import language, lexicon
from modelwright_speech.config import SpeechEvaluate


class Prior(TypedDict):
    """The words that may be said, and a language model's settings as JSON; empty: nothing is known."""

    lexicon: tuple[str, ...]
    language: str


def prior(settings: SpeechEvaluate, facts: Facts) -> Prior:
    """Prior knowledge for the beam search; nothing for the greedy one, which cannot use it.

    Raises:
        ConfigError: a file cannot be read, or the run did not keep what is asked for.
    """
    if settings.decoder == "greedy":
        return {"lexicon": (), "language": ""}
    words: tuple[str, ...] = ()
    if settings.lexicon == "training":
        words = tuple(_kept(facts, "words", "evaluate.lexicon=training"))
    elif settings.lexicon != "none":
        words = lexicon.read(settings.lexicon)
    if settings.language == "none":
        return {"lexicon": words, "language": ""}
    if settings.language == "bigram":
        model: language.Language = language.Bigram(_kept(facts, "bigram", "evaluate.language=bigram"))
    else:
        model = language.Arpa.read(settings.language)
    return {"lexicon": words, "language": json.dumps(model.settings(), ensure_ascii=False, sort_keys=True)}


def _kept(facts: Facts, name: str, asked: str) -> Any:
    if name not in facts.values:
        raise ConfigError(f"{asked}: this run did not keep the {name} of its training texts; give a file instead")
    return facts.values[name]
