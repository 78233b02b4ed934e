"""Words become a trie; files of words are read, or refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import ConfigError
from modelwright_speech.lexicon import Lexicon, read
from modelwright_speech.tokens import Tokens

TOKENS = Tokens.characters(["ab c"])


def spelt(place, so_far=()):
    if place.word:
        yield so_far
    for token, following in place.following.items():
        yield from spelt(following, (*so_far, token))


@given(st.sets(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=12))
def test_the_trie_spells_its_words_and_no_others(words):
    lexicon = Lexicon.of(words, TOKENS)
    assert lexicon.words == tuple(sorted(words))
    assert {TOKENS.decode(ids) for ids in spelt(lexicon.root)} == words


def test_pieces_of_words_spell_them_too():
    tokens = Tokens.bpe(["zero one two", "two one"] * 3, 22)
    lexicon = Lexicon.of(["two", "zero", "net"], tokens)
    assert {tokens.decode(ids) for ids in spelt(lexicon.root)} == {"two", "zero", "net"}


def test_words_are_normalised_and_those_that_cannot_be_written_are_told():
    lexicon = Lexicon.of(["AB", "ab ", "", "xy"], TOKENS)
    assert lexicon.words == ("ab",)
    assert lexicon.silent == ("xy",)


def test_a_lexicon_without_a_word_to_write_is_refused():
    with pytest.raises(ConfigError, match=r"no word that the model can write: it knows the characters ' abc'"):
        Lexicon.of(["xyz"], TOKENS)


def test_an_entry_is_one_word():
    with pytest.raises(ConfigError, match="'a b', which is several words"):
        Lexicon.of(["a b"], TOKENS)


def test_a_file_has_a_word_a_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Zero\r\n\n one \nzéro\n", "utf-8")
    assert read(path) == ("zero", "one", "zéro")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot be read: No such file or directory; give a text file"),
        (b"\xff\xfe\x00", "cannot be read: it is no UTF-8 text"),
        (b"one\nzero  Z IH R OW\n", "line 2: 'zero z ih r ow' is several words"),
        (b"\n \n", "holds no word"),
    ],
)
def test_a_file_that_is_no_list_of_words_is_refused(tmp_path, content, line):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=line):
        read(path)
