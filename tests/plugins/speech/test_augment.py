"""Training sound is changed as its key says, by no more than the settings allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.speech.sounds_made import RATE, encoded, tone, write

from modelwright.data import Key
from modelwright.errors import DataError
from modelwright_speech.augment import Augmenter, coloured, fast_size, faster, mixed, reverberated, synthetic_room
from modelwright_speech.config import AugmentConfig

OFF = {"speed": 0.0, "gain": 0.0, "noise": 0.0, "room": 0.0}
SOUND = tone(1.0)


def changed(key, sound=SOUND, **settings):
    return Augmenter(AugmentConfig(**{**OFF, **settings}), RATE)(sound, key)


def rng(seed=0):
    return np.random.default_rng(seed)


@given(seed=st.integers(0, 99), epoch=st.integers(0, 99), index=st.integers(0, 99))
def test_the_same_key_gives_the_same_change(seed, epoch, index):
    augmenter = Augmenter(AugmentConfig(noise=1.0, room=1.0), RATE)
    key = Key(seed, epoch, 100, index)
    once, again = augmenter(SOUND, key), augmenter(SOUND, key)
    assert np.array_equal(once, again)
    assert once.dtype == np.float32
    assert np.isfinite(once).all()
    assert np.abs(once).max() <= 1 + 1e-6
    assert RATE / 1.1 - 1 <= len(once) <= RATE / 0.9 + 1


def test_seed_epoch_and_utterance_each_matter():
    keys = [Key(0, 0, 9, 0), Key(1, 0, 9, 0), Key(0, 1, 9, 0), Key(0, 0, 9, 1)]
    gains = {float(changed(key, gain=6.0).max()) for key in keys}
    assert len(gains) == 4


def test_off_is_off():
    assert np.array_equal(changed(Key(0, 0, 1, 0)), SOUND)


def test_one_change_does_not_move_another():
    key = Key(0, 3, 9, 5)
    alone = changed(key, noise=1.0) - SOUND
    louder = changed(key, noise=1.0, gain=6.0)
    factor = float(np.dot(louder, SOUND + alone) / np.dot(SOUND + alone, SOUND + alone))
    assert np.allclose(louder, factor * (SOUND + alone), atol=1e-6)


def test_gain_keeps_to_its_limits():
    ratios = [np.abs(changed(Key(0, 0, 1, index), gain=6.0)).max() / np.abs(SOUND).max() for index in range(200)]
    assert 10 ** (-6 / 20) <= min(ratios) < 0.6
    assert 1.8 < max(ratios) <= 10 ** (6 / 20)


def test_the_input_is_left_alone():
    sound = SOUND.copy()
    sound.flags.writeable = False
    changed(Key(0, 0, 1, 0), sound, speed=0.1, gain=6.0, noise=1.0, room=1.0)
    assert np.array_equal(sound, SOUND)


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_speed_moves_length_and_pitch(factor):
    times = np.arange(RATE) / RATE
    sound = np.sin(2 * np.pi * 1000 * times).astype(np.float32)
    fast = faster(sound, factor, RATE)
    assert len(fast) == pytest.approx(RATE / factor, abs=1)
    peak = np.abs(np.fft.rfft(fast * np.hanning(len(fast)))).argmax() * RATE / len(fast)
    assert peak == pytest.approx(1000 * factor, abs=2)


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_is_as_loud_as_asked_for(snr):
    noise = mixed(SOUND, coloured(rng(), len(SOUND), 1.0), snr) - SOUND
    assert 10 * np.log10(np.sum(SOUND**2) / np.sum(noise**2)) == pytest.approx(snr, abs=0.01)


def test_silence_stays_silent():
    silence = np.zeros(100, np.float32)
    assert not changed(Key(0, 0, 1, 0), silence, noise=1.0, room=1.0, gain=6.0).any()
    assert np.array_equal(mixed(SOUND, np.zeros_like(SOUND), 10.0), SOUND)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_colour_of_noise(exponent):
    power = np.mean([np.abs(np.fft.rfft(coloured(rng(seed), 16384, exponent))) ** 2 for seed in range(20)], axis=0)
    low, high = power[50:150].mean(), power[500:1500].mean()
    assert np.log10(low / high) == pytest.approx(exponent, abs=0.15)


def test_a_room_neither_delays_nor_lengthens():
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    heard = reverberated(click, synthetic_room(rng(), RATE))
    assert len(heard) == RATE
    assert np.abs(heard[:1000]).max() < 1e-6
    assert np.abs(heard).argmax() == 1000
    assert np.sum(heard**2) == pytest.approx(np.sum(click**2), rel=1e-4)
    assert len(reverberated(click[:0], click)) == 0


def test_a_room_is_a_convolution():
    response = synthetic_room(rng(), 8000)
    wanted = np.convolve(SOUND[:500], response)[:500]
    heard = reverberated(SOUND[:500], response)
    assert np.allclose(heard / np.abs(heard).max(), wanted / np.abs(wanted).max(), atol=1e-4)


@given(st.integers(1, 10**6))
def test_lengths_that_are_quick_to_transform(size):
    length = fast_size(size)
    assert size <= length < 1.34 * size + 2
    odd = length
    while odd % 2 == 0:
        odd //= 2
    assert odd in (1, 3, 5)


# Recordings ----------------------------------------------------------------------------------------------------------


def test_noises_and_rooms_of_folders(tmp_path):
    room = np.zeros(800, np.float32)
    room[[100, 500]] = 0.8, 0.4  # the sound is there after 100 samples, its echo 400 later
    write(tmp_path / "rooms", {"a.wav": encoded(room, subtype="FLOAT"), "readme.txt": "rooms"})
    write(tmp_path / "noises", {"deep/a.flac": encoded(tone(0.3, number=5), kind="FLAC"), "b.wav": encoded(tone(3.0))})
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    heard = changed(Key(0, 0, 1, 0), click, room=1.0, room_path=str(tmp_path / "rooms"))
    assert np.flatnonzero(np.abs(heard) > 1e-4).tolist() == [1000, 1400]
    for index in range(9):
        noisy = changed(Key(0, 0, 1, index), noise=1.0, snr=(10.0, 10.0), noise_path=str(tmp_path / "noises"))
        noise = noisy - SOUND * np.dot(noisy, SOUND) / np.dot(SOUND, SOUND)
        assert len(noise) == RATE
        assert np.abs(noise).max() > 0.01


@pytest.mark.parametrize("what", ["noise", "room"])
def test_folders_that_are_of_no_use(tmp_path, what):
    def settings(path):
        return AugmentConfig(**{what: 1.0, f"{what}_path": str(path)})

    with pytest.raises(DataError, match=rf"is no folder: check augment\.{what}_path"):
        Augmenter(settings(tmp_path / "no"), RATE)
    with pytest.raises(DataError, match="holds no sound"):
        Augmenter(settings(tmp_path), RATE)
    write(tmp_path / "silent", {"a.wav": encoded(np.zeros(100, np.float32))})
    with pytest.raises(DataError, match=r"a\.wav in augment\..*_path is silent"):
        Augmenter(settings(tmp_path / "silent"), RATE)
    write(tmp_path / "text", {"a.wav": "no sound at all, a text"})
    with pytest.raises(DataError, match="no sound that can be read"):
        Augmenter(settings(tmp_path / "text"), RATE)
