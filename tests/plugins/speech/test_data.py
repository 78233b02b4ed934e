"""Sound is checked before training; facts come from the training texts; what is known needs no other split."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from tests.plugins.speech.sounds_made import RATE, config, encoded, lines, loaded, manifest, tone, write

from modelwright.data import Facts, Key
from modelwright.errors import DataError
from modelwright_speech.data import Known, find_facts
from modelwright_speech.language import Bigram
from modelwright_speech.tokens import Tokens


def with_rows(tmp_path, *extra, count=12):
    """A manifest with further rows, each (row, bytes of its sound)."""
    files = manifest(count)
    rows = []
    for place, (row, data) in enumerate(extra):
        name = f"extra{place}.wav"
        rows.append({"path": name, "speaker": "s0", **row})
        files[name] = data
    return write(tmp_path, {**files, "all.jsonl": str(files["all.jsonl"]) + lines(rows)})


CLIPPED = np.clip(3 * tone(1.0, number=77), -1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a text and no sound" * 9, "no sound that can be read"),
        (encoded(tone())[:20], "cut off in its header"),
        (encoded(tone())[:9000], "cut off: its header promises"),
        (b"", r"empty \(0 bytes\)"),
        (encoded(np.zeros(0, np.float32)), "holds no sound"),
        (encoded(np.zeros(RATE, np.float32)), "it is silent"),
        (encoded(np.full(RATE, 0.25, np.float32)), "it is silent"),
        (encoded(tone(0.01)), "it lasts only 0.010 s"),
        (encoded(tone(3.5)), "it lasts 3.5 s, longer than data.longest=3"),
    ],
)
def test_sound_that_cannot_be_used(tmp_path, data, message):
    with_rows(tmp_path, ({"text": "word a"}, data))
    settings = {"longest": 3.0, "valid": 0.0, "test": 0.0}
    with pytest.raises(DataError, match=rf"1 of 13 utterances.*extra0\.wav \(.*all\.jsonl line 13\): .*{message}"):
        loaded("manifest", tmp_path, **settings)
    sets = loaded("manifest", tmp_path, on_bad="skip", **settings)
    assert len(sets["train"]) == 12
    assert "they are left out" in sets.notes[0]


def test_text_for_more_sound_than_there_is(tmp_path):
    with_rows(tmp_path, ({"text": "word a", "offset": 0.5, "duration": 2.0}, encoded(tone(1.0))))
    with pytest.raises(DataError, match=r"its text is for 2\.00 s, the sound has 0\.50 s"):
        loaded("manifest", tmp_path)


def test_more_characters_than_frames(tmp_path):
    with_rows(tmp_path, ({"text": "word a word b"}, encoded(tone(0.5, number=9))))
    with pytest.raises(DataError, match=r"takes 13 frames, its 0\.50 s give 12: more text than can be said"):
        loaded("manifest", tmp_path, valid=0.0, test=0.0, frames_per_second=25)
    loaded("manifest", tmp_path, valid=0.0, test=0.0, frames_per_second=26)
    loaded("manifest", tmp_path, valid=0.0, test=0.0)


def test_repeated_letters_take_a_frame_more(tmp_path):
    with_rows(tmp_path, ({"text": "woood"}, encoded(tone(0.5, number=9))))
    with pytest.raises(DataError, match="takes 7 frames"):
        loaded("manifest", tmp_path, valid=0.0, test=0.0, frames_per_second=12)


def test_held_out_texts_count_even_if_they_do_not_fit(tmp_path):
    files = manifest(12)
    rows = [{"path": f"wav/{n}.wav", "text": "word abc" if n < 9 else "word " * 30, "split": s} for n, s in
            enumerate(["train"] * 9 + ["test"] * 3)]  # fmt: skip
    write(tmp_path, {**files, "all.jsonl": lines(rows)})
    sets = loaded("manifest", tmp_path, frames_per_second=25)
    assert len(sets["test"]) == 3
    assert any(note.startswith("test: 3 texts do not fit into the frames") for note in sets.notes)


def test_letters_that_training_never_saw(tmp_path):
    files = manifest(12)
    rows = [{"path": f"wav/{n}.wav", "text": "word" if n < 10 else "wörd ñ", "split": "test" if n > 8 else "train"}
            for n in range(12)]  # fmt: skip
    write(tmp_path, {**files, "all.jsonl": lines(rows)})
    with pytest.raises(
        DataError, match=r"2 of 12 utter.*10\.wav \(.*line 11\): its text has a space, ñ, ö, which no training"
    ):
        loaded("manifest", tmp_path)
    sets = loaded("manifest", tmp_path, on_bad="skip")
    assert len(sets["test"]) == 1


def test_what_is_odd_is_told(tmp_path):
    files = manifest(12)
    rows = [{"path": f"wav/{n}.wav", "text": "word", "speaker": f"s{n % 3}", "split": "test" if n > 8 else "train"}
            for n in range(12)]  # fmt: skip
    rows[1]["text"] = "other word"
    files |= {"all.jsonl": lines(rows), "wav/1.wav": files["wav/0.wav"], "wav/9.wav": files["wav/2.wav"]}
    files["wav/3.wav"] = encoded(CLIPPED)
    write(tmp_path, files)
    notes = "\n".join(loaded("manifest", tmp_path, valid=0.0).notes)
    assert "train: 9 utterances, 0.1 min (0.5 to 1.0 s, 0.7 s on average), 3 speakers" in notes
    assert "train: 1 of 9 sounds are clipped" in notes
    assert "train: 1 sounds are equal to another" in notes
    assert "train: 1 equal sounds have different texts" in notes
    assert "1 sounds of test are in train too, which flatters the score" in notes
    assert "3 of 3 speakers of test are in train too (s0, s1, s2): the score is for known voices" in notes


def test_the_same_sound_in_another_format_is_the_same(tmp_path):
    files = manifest(12)
    numbers = (30000 * tone(0.5, number=0)).astype(np.int16)
    files["wav/0.wav"], flac = encoded(numbers), encoded(numbers, kind="FLAC")
    row = {"path": "twin.flac", "text": "word a", "speaker": "s0"}
    write(tmp_path, {**files, "twin.flac": flac, "all.jsonl": str(files["all.jsonl"]) + lines([row])})
    notes = "\n".join(loaded("manifest", tmp_path, valid=0.0, test=0.0).notes)
    assert "1 sounds are equal to another" in notes


def test_a_split_of_which_nothing_can_be_used(tmp_path):
    files = manifest(12)
    rows = [{"path": f"wav/{n}.wav", "text": "" if n > 8 else "word", "split": "test" if n > 8 else "train"}
            for n in range(12)]  # fmt: skip
    write(tmp_path, {**files, "all.jsonl": lines(rows)})
    with pytest.raises(DataError, match="the test split has no utterance that can be used"):
        loaded("manifest", tmp_path, on_bad="skip")


# Facts and what is known ---------------------------------------------------------------------------------------------


def test_facts_of_the_training_texts(tmp_path):
    write(tmp_path, manifest(12))
    sets = loaded("manifest", tmp_path, valid=0.0, test=0.0)
    facts = find_facts(sets["train"], config())
    assert Tokens.of(facts.values["tokens"]).missing("word abc") == set()
    assert facts.values["words"] == ["a", "b", "c", "word"]
    assert facts.values["rate"] == RATE
    assert facts.values["utterances"] == 12
    assert facts.values["longest"] == pytest.approx(1.05)
    assert Bigram(facts.values["bigram"]).pairs["word"] == {"a": 4, "b": 4, "c": 4}


def test_pieces_of_words(tmp_path):
    write(tmp_path, manifest(12))
    sets = loaded("manifest", tmp_path, valid=0.0, test=0.0, model__tokens="bpe", model__vocabulary=16)
    tokens = find_facts(sets["train"], config(model__tokens="bpe", model__vocabulary=16)).values["tokens"]
    assert tokens["kind"] == "bpe"


def test_a_model_with_tokens_of_its_own(tmp_path):
    write(tmp_path, manifest(12))
    sets = loaded("manifest", tmp_path)
    facts = find_facts(sets["train"], config(), own_tokens=True)
    assert "tokens" not in facts.values
    assert Known.of(facts) == Known(None)
    assert Known.of(Facts()) is None


def test_facts_of_foreign_data():
    with pytest.raises(TypeError, match="none of this plugin's datasets"):
        find_facts([], config())


def test_with_facts_each_split_is_read_when_asked_for(tmp_path):
    write(tmp_path, manifest(12))
    first = loaded("manifest", tmp_path)
    facts = find_facts(first["train"], config())
    again = loaded("manifest", tmp_path, known=facts)
    assert not any(note.startswith("test:") for note in again.notes)
    assert again["test"].texts == first["test"].texts
    assert any(note.startswith("test:") for note in again.notes)
    assert np.array_equal(again["train"].durations, first["train"].durations)


# Items ---------------------------------------------------------------------------------------------------------------


def test_training_sound_is_changed_and_its_plain_is_not(tmp_path):
    write(tmp_path, manifest(12))
    train = loaded("manifest", tmp_path, valid=0.0, test=0.0)["train"]
    assert len(train) == len(train.plain) == len(train.durations) == 12
    first, again, later = (train[Key(0, epoch, 9, 3)].raw for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, later)
    plain = train.plain[Key(0, 0, 9, 3)]
    assert np.array_equal(plain.raw, train.samples(3))
    assert plain.targets == {"text": "word a", "speaker": "s3"}
    with pytest.raises(ValueError, match="read-only"):
        plain.raw[0] = 1


@pytest.mark.parametrize("memory", [0.0, 1.0])
def test_a_worker_with_a_copy_gives_the_same(tmp_path, memory):
    write(tmp_path / "set.tar.xz", manifest(12))
    train = loaded("manifest", tmp_path / "set.tar.xz", memory=memory, valid=0.0, test=0.0)["train"]
    copy = pickle.loads(pickle.dumps(train))
    for index in (7, 3):
        assert np.array_equal(copy[Key(1, 2, 3, index)].raw, train[Key(1, 2, 3, index)].raw)


def test_memory_for_some_changes_nothing_but_speed(tmp_path):
    write(tmp_path / "set.tar.gz", manifest(12))
    whole, some = (
        loaded("manifest", tmp_path / "set.tar.gz", memory=memory, valid=0.0, test=0.0)["train"]
        for memory in (1.0, 200_000 / 2**30)
    )
    assert whole.kept == 12
    assert 0 < some.kept < 12
    for index in range(12):
        assert np.array_equal(whole[Key(1, 2, 3, index)].raw, some[Key(1, 2, 3, index)].raw)
