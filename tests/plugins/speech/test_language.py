"""Probabilities of words: they sum to one, back off as written, and files are read or refused in one line."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwright.errors import ConfigError, DataError
from modelwright_speech import language
from modelwright_speech.language import END, START, UNKNOWN, Arpa, Bigram

texts = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=10)

FILE = """
made by hand

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.3
-1.0\t</s>
-0.5\tTHE\t-0.2
-0.8\tcat\t-0.4
-2.0\t<unk>

\\2-grams:
-0.1\t<s> the\t-0.6
-0.7\tthe cat
-0.9\tcat </s>

\\3-grams:
-0.05\t<s> the cat

\\end\\
"""


@given(texts, st.sampled_from([*"abcdefg", START]))
def test_probabilities_of_a_bigram_sum_to_one(found, before):
    model = Bigram.counted(found)
    assert sum(math.exp(model.score((before,), word)[0]) for word in model.words) == pytest.approx(1.0)
    assert len(set(model.words)) == len(model.words)


def test_a_bigram_is_witten_and_bells():
    model = Bigram.counted(["a b", "A  a"])
    # Single: a 3, b 1, end 2, of 6 with 3 kinds; a share of 3 for them and the unknown, 3/4 each.
    single = (1 + 3 / 4) / (6 + 3)
    # After a: b 1, a 1, end 1.
    assert math.exp(model.score(("a",), "b")[0]) == pytest.approx((1 + 3 * single) / (3 + 3))
    assert math.exp(model.score(("never",), "b")[0]) == pytest.approx(single)
    assert model.score(("a",), "new")[0] == model.score(("a",), UNKNOWN)[0]
    assert model.score(model.start, "a")[1] == ("a",)


@given(texts, st.lists(st.sampled_from("abcx"), max_size=5))
def test_settings_are_json_and_give_the_same_bigram(found, words):
    model = Bigram.counted(found)
    again = language.of(json.loads(json.dumps(model.settings())))
    assert again == model
    state = model.start
    for word in [*words, END]:
        assert again.score(state, word) == model.score(state, word)
        state = model.score(state, word)[1]


def test_texts_without_a_word_are_not_counted():
    with pytest.raises(DataError, match="no word to count"):
        Bigram.counted(["", " "])


def arpa(tmp_path, content=FILE, name="model.arpa"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return path


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("the", -0.1),
        ("the cat", -0.1 - 0.05),  # the trigram
        ("the cat </s>", -0.1 - 0.05 + (0.0 - 0.9)),  # "the cat" has no back-off: 0
        ("cat", -0.3 - 0.8),
        ("cat the", -0.3 - 0.8 + (-0.4 - 0.5)),  # "<s> cat" is unknown: only the one of "cat" counts
        ("the the", -0.1 + (-0.6 - 0.2 - 0.5)),  # both back-offs
        ("dog", -0.3 - 2.0),
        ("dog cat", -0.3 - 2.0 - 0.8),
    ],
)
def test_a_file_backs_off_as_counted_by_hand(tmp_path, name, words, expected):
    model = Arpa.read(arpa(tmp_path, name=name))
    assert model.order == 3
    for each in (model, language.of(json.loads(json.dumps(model.settings())))):
        state, total = each.start, 0.0
        for word in words.split():
            score, state = each.score(state, word)
            total += score
        np.testing.assert_allclose(total / math.log(10), expected)


def test_a_file_of_single_words_has_no_memory(tmp_path):
    content = "\\data\\\nngram 1=3\n\n\\1-grams:\n-0.5 a\n-0.9 A\n-1.5 </s>\n\\end\\\n"
    model = Arpa.read(arpa(tmp_path, content))
    score, state = model.score(model.start, "a")
    assert score == pytest.approx(-0.5 * math.log(10))  # the likelier of those that differ in case
    assert state == ()
    assert model.score(state, "z")[0] == pytest.approx(-1.5 * math.log(10))  # as the rarest


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a text\nof two lines\n", r"line 2: no \\data\\ section"),
        (FILE.replace("ngram 1=5", "ngram one"), r"line 5: no such number of sequences"),
        (FILE.replace("-0.7\tthe cat", "x\tthe cat"), r"line 18: not a number, 2 words and at most one more number"),
        (FILE.replace("-0.7\tthe cat", "-0.7\tcat"), r"line 18: not a number, 2 words"),
        (FILE.replace("-0.7\tthe cat", "-0.7 the cat -1 -1"), r"line 18: not a number, 2 words"),
        (FILE.replace("-0.7\tthe cat\n", ""), r"the file ends early"),
        (FILE.replace("\\end\\", ""), r"the file ends early"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path, content, line):
    with pytest.raises(ConfigError, match=line):
        Arpa.read(arpa(tmp_path, content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Arpa.read(tmp_path / "none.arpa")
    for name, content in (("cut.gz", gzip.compress(FILE.encode())[:40]), ("no.gz", b"text"), ("bytes", b"\xff\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="damaged or no UTF-8"):
            Arpa.read(tmp_path / name)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="no language model of kind 'neural'; there are bigram, arpa"):
        language.of({"kind": "neural"})
