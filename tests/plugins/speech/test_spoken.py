"""The embedded data sound the same each time; other voices in each split; what is missing or fails is one line."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from tests.plugins.speech.sounds_made import config, loaded

from modelwright.errors import ConfigError, DataError
from modelwright_speech import spoken

COUNTS = {"train": 8, "valid": 2, "test": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(spoken, "FEW", 0)  # these sets are small, and kept as the large ones are
    return tmp_path / "cache" / "modelwright"


def lines(counts=COUNTS, seed=0):
    return [line for each in spoken.plan(counts, seed=seed).values() for line in each]


def digest(said):
    return hashlib.sha256(b"".join(samples.tobytes() for samples in said.samples)).hexdigest()


# What is said --------------------------------------------------------------------------------------------------------


def test_a_line_depends_on_seed_split_and_number_only():
    short, long = spoken.plan({"test": 3}, seed=1)["test"], spoken.plan({"train": 9, "test": 5}, seed=1)["test"]
    assert short == long[:3]
    assert lines(seed=1) != lines(seed=2)


def test_no_split_has_a_voice_of_another():
    voices = {split: {line.voice for line in each} for split, each in
              spoken.plan({"train": 300, "valid": 50, "test": 100}, seed=0).items()}  # fmt: skip
    assert voices == {split: set(each) for split, each in spoken.VOICES.items()}
    assert not voices["train"] & (voices["valid"] | voices["test"])
    variants = {split: {voice.partition("+")[2] for voice in each} for split, each in voices.items()}
    assert not variants["train"] & (variants["valid"] | variants["test"])


def test_training_says_every_word_of_the_others():
    words = {split: {word for line in each for word in line.text.split()} for split, each in
             spoken.plan({"train": 2400, "valid": 300, "test": 300}, seed=0).items()}  # fmt: skip
    assert words["valid"] | words["test"] <= words["train"]
    assert set(spoken.DIGITS) <= words["test"]


# How it sounds -------------------------------------------------------------------------------------------------------


@pytest.mark.once
def test_it_sounds_the_same_each_time(cache, monkeypatch):
    first = spoken.speak(lines(), 16000)
    assert first.folder.parent == cache
    assert all(samples.dtype == np.int16 and len(samples) > 4000 for samples in first.samples)
    assert all(1000 < np.abs(samples).max() < 32767 for samples in first.samples)
    kept = spoken.speak(lines(), 16000)
    assert digest(kept) == digest(first)
    monkeypatch.setattr(spoken, "_render", lambda *_: pytest.fail("it was in the cache"))
    assert digest(spoken.speak(lines(), 16000)) == digest(first)


@pytest.mark.once
def test_it_sounds_the_same_in_another_process_and_cache(cache, tmp_path):
    script = (
        "import hashlib, time; from modelwright_speech import spoken\n"
        "spoken.FEW = 0\n"
        "plan = spoken.plan({'train': 8, 'valid': 2, 'test': 2}, seed=0)\n"
        "said = spoken.speak([line for each in plan.values() for line in each], 16000)\n"
        "print(hashlib.sha256(b''.join(samples.tobytes() for samples in said.samples)).hexdigest())"
    )
    found = {digest(spoken.speak(lines(), 16000))}
    for number in range(2):  # espeak-ng's own noise would follow the clock
        environment = {"XDG_CACHE_HOME": str(tmp_path / f"other{number}"), "TMPDIR": str(tmp_path), "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


@pytest.mark.once
def test_a_damaged_cache_is_spoken_anew(cache):
    first = spoken.speak(lines(), 16000)
    path = first.folder / "sound.flac"
    for data in (path.read_bytes()[:-100], b""):
        path.write_bytes(data)
        assert digest(spoken.speak(lines(), 16000)) == digest(first)
        assert path.read_bytes() != data
    (first.folder / "index.json").write_text("{")
    assert digest(spoken.speak(lines(), 16000)) == digest(first)
    assert not list(cache.glob(".spoken*"))


@pytest.mark.once
def test_a_few_lines_claim_no_place_in_the_cache(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(spoken, "FEW", 200)
    first = spoken.speak(lines(), 8000)
    assert (tmp_path / "temporary") in first.folder.parents
    assert not cache.exists()
    assert spoken.speak(lines(), 8000).folder == first.folder


@pytest.mark.once
def test_a_cache_that_cannot_be_written_is_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    said = spoken.speak(lines(), 8000)
    assert (tmp_path / "temporary") in said.folder.parents
    monkeypatch.setattr(spoken, "_roots", lambda few: iter([tmp_path / "file"]))
    with pytest.raises(DataError, match="set XDG_CACHE_HOME or TMPDIR"):
        spoken.speak(lines(), 8000)


@pytest.mark.once
def test_every_voice_is_another(cache):
    voices = [voice for each in spoken.VOICES.values() for voice in each]
    said = spoken.speak([spoken.Line("one two three", voice, 160, 50) for voice in voices], 16000)
    assert len({samples.tobytes() for samples in said.samples}) == len(voices) == len(set(voices))


@pytest.mark.once
def test_sets_used_long_ago_go(cache, monkeypatch):
    monkeypatch.setattr(spoken, "SETS", 2)
    first, second = (spoken.speak(lines({"train": count}), 8000).folder for count in (1, 2))
    os.utime(second, (0, 0))
    third = spoken.speak(lines({"train": 3}), 8000).folder
    assert first.exists()
    assert third.exists()
    assert not second.exists()


@pytest.mark.once
def test_settings_become_splits(cache):
    sets = loaded("spoken", utterances=40)
    assert [len(sets[split]) for split in ("train", "valid", "test")] == [32, 4, 4]
    for split in ("train", "valid", "test"):
        assert {clip.speaker for clip in sets[split].clips} <= set(spoken.VOICES[split])
    assert sets["test"].name_of(1) == "spoken/test[1]"
    assert "espeak-ng (GPL-3.0)" in sets.notes[-1]
    again = loaded("spoken", utterances=40)
    assert np.array_equal(sets["train"].samples(31), again["train"].samples(31))
    assert not loaded("spoken", utterances=20, valid=0.0).has("valid")


# What goes wrong -----------------------------------------------------------------------------------------------------


def test_nothing_left_to_train_on():
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        loaded("spoken", utterances=20, valid=0.5, test=0.5)


def test_without_the_extra(cache, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'Install it: pip install "modelwright\[speech-demo\]"'):
        spoken.speak(lines(), 16000)


@pytest.mark.once
def test_a_voice_that_is_not_there(cache):
    with pytest.raises(DataError, match=r"espeak-ng failed \(espeak-ng has no voice nobody\)") as error:
        spoken.speak([spoken.Line("one", "nobody", 150, 50)], 16000)
    assert "\n" not in str(error.value)


def test_a_split_by_csv_makes_no_sense():
    with pytest.raises(ConfigError, match=r"data\.split does not go with data\.name=spoken"):
        loaded("spoken", split="splits.csv")
    assert config("spoken").data.utterances == 3000
