"""Any sound becomes one channel at one rate; what cannot be read is one clear line; long ones are read in pieces."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.speech.sounds_made import RATE, encoded, tone

from modelwright.errors import DataError
from modelwright_speech.sounds import blocks, seconds_of, to_samples


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("kind", "subtype", "near"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 2e-2),
        ("WAV", "FLOAT", 1e-6),
        ("FLAC", "PCM_24", 1e-6),
        ("MP3", None, 5e-2),
        ("OGG", "VORBIS", 5e-2),
        ("OGG", "OPUS", 1e-1),
        ("AIFF", "PCM_16", 1e-4),
    ],
)
def test_every_format_gives_the_same_sound(tmp_path, kind, subtype, near):
    sound = tone(0.5, loud=0.4)
    data = encoded(np.stack([sound, sound], axis=1), kind=kind, subtype=subtype)
    path = tmp_path / "x.sound"
    path.write_bytes(data)
    for raw in (data, path, str(path)):
        read = to_samples(raw, RATE)
        assert read.dtype == np.float32
        assert read.shape == sound.shape
        assert np.abs(read - sound)[800:-800].max() < near


def test_channels_are_averaged():
    left, right = tone(0.2, number=1), tone(0.2, number=2)
    both = np.stack([left, right], axis=1)
    assert np.allclose(to_samples((both, RATE), RATE), (left + right) / 2, atol=1e-6)
    assert np.allclose(to_samples(encoded(both, subtype="FLOAT"), RATE), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_any_rate_is_resampled_to_the_one_asked_for(rate):
    times = np.arange(rate) / rate
    sound = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
    read = to_samples((sound, rate), RATE)
    assert len(read) == RATE
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    assert np.abs(read - wanted)[500:-500].max() < 1e-3


def test_eight_kilohertz_stay_eight():
    sound = tone(0.3, rate=8000)
    assert np.array_equal(to_samples((sound, 8000), 8000), sound)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([0, -32768, 16384], np.int16), [0, -1, 0.5]),
        (np.array([128, 0, 192], np.uint8), [0, -1, 0.5]),
        (np.array([0, -(2**31), 2**30], np.int32), [0, -1, 0.5]),
        (np.array([0, -1, 0.5]), [0, -1, 0.5]),
    ],
)
def test_integers_fill_the_range_from_minus_one_to_one(array, wanted):
    assert to_samples(array, RATE).tolist() == wanted
    assert to_samples((array[:, None], RATE), RATE).tolist() == wanted


def test_a_part_of_a_file(tmp_path):
    sound = tone(1.0)
    path = tmp_path / "x.wav"
    path.write_bytes(encoded(sound, subtype="FLOAT"))
    assert np.array_equal(to_samples(path, RATE, offset=0.25, duration=0.5), sound[4000:12000])
    assert np.array_equal(to_samples(path, RATE, offset=0.75), sound[12000:])
    # A duration that was rounded down must not cost the end of the last word.
    assert np.array_equal(to_samples(path, RATE, duration=0.97), sound)
    with pytest.raises(DataError, match="holds no sound after 2 s"):
        to_samples(path, RATE, offset=2.0)


@given(seconds=st.floats(0.01, 1.5), rate=st.sampled_from([8000, 16000, 44100]))
def test_pieces_are_the_whole(seconds, rate):
    sound = (tone(1.0, rate=rate), rate)
    pieces = list(blocks(sound, RATE, seconds))
    assert all(len(piece) == max(round(seconds * RATE), 1) for piece in pieces[:-1])
    assert np.array_equal(np.concatenate(pieces), to_samples(sound, RATE))


def test_how_long_a_file_is_says_its_header():
    assert seconds_of(encoded(tone(0.5)), RATE) == 0.5
    assert seconds_of(np.zeros(8000), RATE) == 0.5


# What cannot be read -------------------------------------------------------------------------------------------------


def test_a_text_called_wav(tmp_path):
    (tmp_path / "x.wav").write_text("this is a text and no sound\n" * 9)
    with pytest.raises(DataError, match=r"x\.wav is no sound that can be read") as error:
        to_samples(tmp_path / "x.wav", RATE)
    assert "convert it" in one_line(error)


@pytest.mark.parametrize("kept", [5, 12, 20, 30, 43])
def test_a_wav_cut_in_its_header(kept):
    with pytest.raises(DataError, match=r"cut off in its header|no sound that can be read") as error:
        to_samples(encoded(tone())[:kept], RATE, where="x.wav")
    assert one_line(error).startswith("x.wav ")


def test_a_wav_cut_in_a_chunk_before_its_sound():
    data = encoded(tone(0.1))
    longer = data[:36] + b"LIST" + (1000).to_bytes(4, "little") + data[36:40]
    with pytest.raises(DataError, match="cut off in its header"):
        to_samples(longer, RATE)


def test_a_wav_that_ends_before_its_header_says():
    data = encoded(tone())
    with pytest.raises(DataError, match=r"cut off: its header promises 32,000 bytes, 15,978 are there"):
        to_samples(data[: len(data) // 2], RATE)


def test_a_wav_that_was_written_as_it_was_recorded():
    data = bytearray(encoded(tone()))
    data[40:44] = b"\xff\xff\xff\xff"
    assert len(to_samples(bytes(data), RATE)) == RATE


@pytest.mark.parametrize("kind", ["FLAC", "MP3", "OGG"])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_other_files_that_are_cut_off(kind, share):
    data = encoded(tone(4.0), kind=kind)
    with pytest.raises(DataError) as error:
        to_samples(data[: round(share * len(data))], RATE, where="x")
    assert one_line(error).startswith("x ")


def test_nothing_in_a_file(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        to_samples(tmp_path / "x.wav", RATE)


def test_a_sound_of_no_length():
    empty = encoded(np.zeros(0, np.float32))
    with pytest.raises(DataError, match="holds no sound"):
        to_samples(empty, RATE)
    with pytest.raises(DataError, match="holds no sound"):
        to_samples(np.zeros(0), RATE)
    with pytest.raises(DataError, match="holds no sound"):
        list(blocks(empty, RATE, 1.0))


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"no\.wav cannot be read \(no such file or directory\)"):
        to_samples(tmp_path / "no.wav", RATE)
    with pytest.raises(DataError, match="is a directory"):
        to_samples(tmp_path, RATE)


def test_numbers_that_are_none():
    with pytest.raises(DataError, match="no numbers"):
        to_samples(encoded(np.array([0.0, np.nan, 0.1]), subtype="FLOAT"), RATE)
    with pytest.raises(DataError, match="no numbers"):
        to_samples(np.array([0.0, np.inf]), RATE)


def test_arrays_that_are_no_sound():
    with pytest.raises(DataError, match="channels first"):
        to_samples(np.zeros((2, 100)), RATE)
    with pytest.raises(DataError, match="is no sound"):
        to_samples(np.zeros((2, 2, 100)), RATE)
    with pytest.raises(DataError, match="is no sound"):
        to_samples(np.array(["a"]), RATE)
    with pytest.raises(DataError, match="is no rate"):
        to_samples((np.zeros(100), 0), RATE)


@pytest.mark.once
def test_a_long_recording_takes_little_more_memory_than_its_samples(tmp_path):
    path = tmp_path / "half-hour.flac"
    minute = tone(60.0, rate=22050)
    with soundfile.SoundFile(path, "w", 22050, 1) as file:
        for _ in range(30):
            file.write(minute)
    script = (
        "import resource, sys; from modelwright_speech.sounds import blocks, to_samples\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = most(); count = sum(map(len, blocks(sys.argv[1], 16000, 20.0))); between = most()\n"
        "assert count == len(to_samples(sys.argv[1], 16000)) == 1800 * 16000\n"
        "print(between - before, most() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    streamed, whole = map(float, done.stdout.split())
    assert streamed < 60
    assert whole < 250


def test_reading_sound_needs_no_torch():
    script = "import sys, modelwright_speech.sounds; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
