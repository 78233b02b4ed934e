"""The published data that a project has at hand are read as they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tests.plugins.speech.sounds_made import RATE, loaded

from modelwright.data import Key
from modelwright_speech.sounds import to_samples

pytestmark = [pytest.mark.real_data, pytest.mark.once]
ROOT = Path(__file__).parents[3]


def folder(name):
    found = Path(os.environ.get("MODELWRIGHT_DATA") or ROOT.parent / "shared" / "data") / name
    if not found.is_dir():
        pytest.skip(f"no {found}: set MODELWRIGHT_DATA to the folder of real data")
    return found


def test_an4():
    sets = loaded("manifest", folder("an4"), frames_per_second=25)
    assert [len(sets[split]) for split in ("train", "valid", "test")] == [870, 78, 130]
    assert [len({clip.speaker for clip in sets[split].clips}) for split in ("train", "valid", "test")] == [68, 6, 10]
    assert sum(len(text.split()) for text in sets["test"].texts) == 773
    assert not any(word in note for note in sets.notes for word in ("equal", "clipped", "speakers of"))
    assert sets["train"][Key(0, 0, 1, 0)].raw.dtype == np.float32


def test_noises_and_rooms(tmp_path, monkeypatch):
    extra = folder("speech_aux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = {"augment__noise_path": str(extra / "noise"), "augment__room_path": str(extra / "RIRs")}
    sets = loaded("spoken", utterances=20, **settings, augment__noise=1.0, augment__room=1.0)
    for index in range(len(sets["train"])):
        sound = sets["train"][Key(0, 0, 1, index)].raw
        assert np.isfinite(sound).all()
        assert 0.01 < np.abs(sound).max() <= 1 + 1e-6


def test_stereo_flac_of_24_bits():
    assert to_samples(folder("speech_aux") / "jfk" / "jfk.flac", RATE).shape == (11 * RATE,)
