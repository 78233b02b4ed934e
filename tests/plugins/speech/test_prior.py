"""What is known of words beforehand, as the settings ask for it."""

from __future__ import annotations

import json

import pytest

from modelwright.data import Facts
from modelwright.errors import ConfigError
from modelwright_speech.config import SpeechEvaluate
from modelwright_speech.prior import prior

FACTS = Facts({"words": ["one", "two"], "bigram": {"<s>": {"one": 1}, "one": {"</s>": 1}}})
ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-1.0 <s>\n-1.0 one\n-1.0 </s>\n\n\\end\\\n"


def test_the_greedy_search_knows_nothing():
    assert prior(SpeechEvaluate(lexicon="training", language="bigram"), FACTS) == {"lexicon": (), "language": ""}


def test_training_texts_give_words_and_pairs():
    found = prior(SpeechEvaluate(decoder="beam", lexicon="training", language="bigram"), FACTS)
    assert found["lexicon"] == ("one", "two")
    assert json.loads(found["language"])["pairs"] == FACTS.values["bigram"]
    assert prior(SpeechEvaluate(decoder="beam"), FACTS) == {"lexicon": (), "language": ""}


def test_files_give_them_too(tmp_path):
    (tmp_path / "words.txt").write_text("six\nseven\n")
    (tmp_path / "model.arpa").write_text(ARPA)
    settings = {"lexicon": str(tmp_path / "words.txt"), "language": str(tmp_path / "model.arpa")}
    found = prior(SpeechEvaluate(decoder="beam", **settings), FACTS)
    assert found["lexicon"] == ("six", "seven")
    assert json.loads(found["language"])["kind"] == "arpa"


def test_what_a_run_did_not_keep_is_told():
    with pytest.raises(ConfigError, match="did not keep the bigram of its training texts; give a file"):
        prior(SpeechEvaluate(decoder="beam", language="bigram"), Facts({}))
