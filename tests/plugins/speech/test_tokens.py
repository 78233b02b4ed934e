"""Texts become numbers and come back; what cannot be written is named."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ConfigError, DataError
from modelwright_speech.tokens import MARK, Span, Tokens, normalised

# A model has no use for the mark that stands for a space in pieces of words.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=MARK), max_size=30)
some = st.lists(st.text("abc d'é", min_size=1, max_size=12), min_size=1, max_size=8).filter(
    lambda found: any(normalised(text) for text in found)
)


def made(kind, found):
    return Tokens.characters(found) if kind == "characters" else Tokens.bpe(found, 40)


@given(texts)
def test_normalising_twice_changes_nothing(text):
    once = normalised(text)
    assert normalised(once) == once
    assert "  " not in once
    assert once == once.strip()


def test_only_case_and_spaces_are_normalised():
    assert normalised(" Don't  STOP,\n42 Ä\u00a0x") == "don't stop, 42 ä x"


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["characters", "bpe"]), some)
def test_what_is_encoded_is_decoded(kind, found):
    tokens = made(kind, found)
    for text in found:
        ids = tokens.encode(text)
        assert tokens.decode(ids) == normalised(text)
        assert all(0 < number < tokens.size for number in ids)
        assert [span.word for span in tokens.words(ids)] == normalised(text).split()


@settings(deadline=None, max_examples=25)
@given(texts)
def test_any_text_of_training_can_be_written(text):
    if not normalised(text):
        return
    for tokens in (Tokens.characters([text]), Tokens.bpe([text], 200)):
        assert not tokens.missing(text)
        assert tokens.decode(tokens.encode(text)) == normalised(text)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["characters", "bpe"]), some)
def test_settings_are_json_and_give_the_same_tokens(kind, found):
    tokens = made(kind, found)
    again = Tokens.of(json.loads(json.dumps(tokens.settings())))
    assert again == tokens
    assert [again.encode(text) for text in found] == [tokens.encode(text) for text in found]


def test_characters_are_numbered_by_code_point_after_the_blank():
    tokens = Tokens.characters(["b a", "Cab"])
    assert tokens.pieces == ("", " ", "a", "b", "c")
    assert tokens.size == 5
    assert tokens.encode("A  b") == [2, 1, 3]


def test_words_know_the_places_of_their_tokens():
    tokens = Tokens.characters(["ab"]).encode
    assert tokens("ab") == [1, 2]
    spaced = Tokens.characters(["ab c"])
    ids = [1, *spaced.encode("ab"), 1, 1, *spaced.encode("c"), 1]
    assert spaced.words(ids) == [Span("ab", 1, 3), Span("c", 5, 6)]
    assert spaced.decode(ids) == "ab c"


def test_pieces_learn_whole_words_and_open_them():
    tokens = Tokens.bpe(["zero one", "one zero zero"] * 4, 24)
    assert tokens.size <= 24
    assert tokens.pieces[0] == ""
    assert len(tokens.encode("zero one")) == 2
    assert tokens.decode([tokens.encode("one")[0]]) == "one"


def test_pieces_are_the_same_whatever_the_order_of_texts_learnt_twice():
    found = ["the cat sat", "the mat", "a cat"]
    assert Tokens.bpe(found, 30) == Tokens.bpe(list(found), 30)


def test_a_text_that_names_the_blank_is_a_text():
    tokens = Tokens.bpe(["a <blank> b"], 40)
    assert tokens.decode(tokens.encode("<BLANK>")) == "<blank>"


def test_decoding_needs_no_library(monkeypatch):
    tokens = Tokens.bpe(["zero one"], 24)
    ids = tokens.encode("one zero")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert Tokens.of(tokens.settings()).decode(ids) == "one zero"


def test_a_published_vocabulary_may_hold_more_that_writes_nothing():
    tokens = Tokens("characters", ("", "", "", "", " ", "e", "t"))
    assert tokens.decode([1, 6, 3, 5, 4, 6]) == "te t"
    assert tokens.encode("Te t") == [6, 5, 4, 6]


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_a_character_outside_the_alphabet_is_named(kind):
    tokens = made(kind, ["abc ab"])
    assert tokens.missing("Zab c!") == {"z", "!"}
    with pytest.raises(DataError, match=r"the text \"ab z!\" holds '!' 'z', which the training texts do not; spell"):
        tokens.encode("ab Z!")
    with pytest.raises(DataError, match=r"\.\.\.\" holds"):
        tokens.encode("z" * 100)


@pytest.mark.parametrize("make", [Tokens.characters, lambda found: Tokens.bpe(found, 100)])
def test_texts_without_a_character_are_refused(make):
    with pytest.raises(DataError, match="no character"):
        make([" ", ""])


def test_too_few_pieces_are_refused():
    with pytest.raises(ConfigError, match=r"vocabulary=5 is too small for the 6 characters .*ask for 8 or more"):
        Tokens.bpe(["abcdef"], 5)


@pytest.mark.parametrize("pieces", [(), ("a", "b")])
def test_the_blank_comes_first(pieces):
    with pytest.raises(ConfigError, match="number 0 must be the blank"):
        Tokens("characters", pieces)
