"""The codec: sounds in any shape, texts with times, long recordings in windows, subtitles; no torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from modelwright.bundle.codecs import describe, restore
from modelwright.codec import Columns, merged
from modelwright.errors import DataError
from modelwright_speech.codec import SEQUENCE, SpeechCodec
from modelwright_speech.language import Bigram
from modelwright_speech.tokens import Tokens

RATE, STRIDE = 8000, 320
TOKENS = Tokens.characters(["one two three"])


def codec(**fields):
    usual = {"rate": RATE, "stride": STRIDE, "least": 800, "longest": 4.0, "window": 2.0, "overlap": 0.5}
    return SpeechCodec("characters", TOKENS.pieces, **{**usual, **fields})


def spelt(text, frames, *, first=2, each=2):
    """Logits (frames, tokens) that say a text: each character for a frame, blanks between."""
    logits = np.zeros((frames, TOKENS.size), np.float32)
    logits[:, 0] = 5.0
    for place, number in enumerate(TOKENS.encode(text)):
        logits[first + each * place, number] = 10.0
    return logits


def answered(made, raws, graph, *, size=4):
    parts = []
    for arrays, context in made.batches(raws, size=size):
        parts.append(made.decode(graph(arrays), context).with_ids(context.rows))
    return merged(made, Columns.join(parts))


def test_sounds_are_padded_and_their_lengths_kept():
    raws = [np.ones(1000, np.float32), np.ones((500, 2), np.float32), (np.ones(100, np.int16), RATE)]
    arrays, context = codec().collate(codec().prepare(raws))
    assert arrays["samples"].shape == (3, 1000)
    assert arrays["lengths"].tolist() == [1000, 500, 100]
    assert not arrays["samples"][1, 500:].any()
    assert context.rows.tolist() == [0, 1, 2]
    short, _ = codec().collate(codec().prepare(raws[2:]))
    assert short["samples"].shape == (1, 800)


def test_files_are_resampled(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    (sample,) = codec().prepare([tmp_path / "a.wav"])
    assert len(sample.arrays["samples"]) == RATE


def test_what_is_no_sound_is_one_line(tmp_path):
    (tmp_path / "text.wav").write_text("this is no sound, but a text of some length")
    with pytest.raises(DataError, match=r"text\.wav"):
        codec().prepare([tmp_path / "text.wav"])


def test_scores_become_text_and_words_with_times():
    frames = 40
    context = codec().collate(codec().prepare([np.zeros(frames * STRIDE, np.float32)]))[1]
    found = codec().decode({"logits": spelt("one two", frames)[None], "frames": np.array([frames])}, context)
    assert found["text"] == ["one two"]
    (record,) = codec().records(found)
    assert record["text"] == "one two"
    assert record["seconds"] == pytest.approx(frames * STRIDE / RATE)
    assert [word["word"] for word in record["words"]] == ["one", "two"]
    one, two = record["words"]
    assert one["start"] == pytest.approx(2 * STRIDE / RATE)
    assert one["end"] <= two["start"]
    assert one["confidence"] > 0.9


def test_what_lies_beyond_the_frames_is_not_read():
    logits = np.stack([spelt("one", 20), spelt("one", 20)])
    found = codec().decode({"logits": logits, "frames": np.array([20, 6])}, None)
    assert found["text"] == ["one", "on"]


def test_training_and_scoring_ask_for_no_times():
    made = codec()
    context = made.collate(made.whole([np.zeros(6000, np.float32), np.zeros(90000, np.float32)]))[1]
    assert context.rows.tolist() == [0, 1]  # as a whole, however long
    logits = np.stack([spelt("one", 20)] * 2)
    found = made.decode({"logits": logits, "frames": np.array([20, 20])}, context)
    assert found["text"] == ["one", "one"]
    assert found["words"] == [[], []]


def test_a_lexicon_mends_what_is_misheard():
    logits = spelt("one tww", 40)
    logits[2 + 2 * 6, TOKENS.encode("o")[0]] = 9.0
    outputs = {"logits": logits[None], "frames": np.array([40])}
    assert codec().decode(outputs, None)["text"] == ["one tww"]
    assert codec(decoder="beam").decode(outputs, None)["text"] == ["one tww"]
    words = ("one", "three", "two")
    assert codec(decoder="beam", lexicon=words).decode(outputs, None)["text"] == ["one two"]
    language = json.dumps(Bigram.counted(["one three"] * 50 + ["two two"]).settings())
    made = codec(decoder="beam", lexicon=words, language=language, weight=0.1, hotwords=(("two", 1.0),))
    assert made.decode(outputs, None)["text"] == ["one two"]


def test_a_long_recording_is_cut_and_joined_without_a_seam(tmp_path):
    """Each window is heard through a graph that says what stands in its samples."""
    text = "one two three one two three one two"
    frames = 6 * RATE // STRIDE
    logits = spelt(text, frames, first=3, each=4)
    samples = np.repeat(np.arange(frames, dtype=np.float32) / 1000, STRIDE)
    soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="FLOAT")

    def graph(arrays):
        starts = np.rint(arrays["samples"][:, 0] * 1000).astype(int)
        counts = arrays["lengths"] // STRIDE
        rows = np.zeros((len(starts), counts.max(), TOKENS.size), np.float32)
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            rows[row, :count] = logits[start : start + count]
        return {"logits": rows, "frames": counts}

    short = samples[: 2 * RATE]
    found = answered(codec(), [short, tmp_path / "long.wav", short], graph)
    assert found.rows == 3
    assert found["text"][1] == text
    assert found["seconds"][1] == pytest.approx(6.0)
    assert found["text"][0] == found["text"][2]
    ends = [word[2] for word in found["words"][1]]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx((3 + 4 * (len(text) - 1) + 1) * STRIDE / RATE, abs=0.1)


def test_a_recording_is_cut_at_its_pauses_and_times_are_those_of_the_whole(tmp_path):
    heard = []

    def graph(arrays):
        counts = arrays["lengths"] // STRIDE
        heard.extend((arrays["lengths"] / RATE).tolist())
        rows = np.zeros((len(counts), counts.max(), TOKENS.size), np.float32)
        for row, count in enumerate(counts):
            rows[row, :count] = spelt("one", count)
        return {"logits": rows, "frames": counts}

    tone, quiet = np.sin(np.arange(RATE) / 9).astype(np.float32), np.zeros(2 * RATE, np.float32)
    twice = np.concatenate([quiet, tone, quiet, tone])
    once = np.concatenate([quiet, tone, quiet])
    found = answered(codec(), [twice, once], graph)
    assert found["text"] == ["one one", "one"]
    assert found["seconds"] == pytest.approx([6.0, 5.0])
    assert [round(start) for _, start, _, _ in found["words"][0]] == [2, 5]
    assert [round(start) for _, start, _, _ in found["words"][1]] == [2]
    assert heard == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    assert answered(codec(), [once], graph)["text"] == ["one"]  # alone: nothing is merged


def test_windows_of_one_file_are_few_in_memory(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.sin(np.arange(60 * RATE) / 9), RATE)
    batches = codec().batches([tmp_path / "long.flac"], size=1)
    sizes = [arrays["samples"].shape[1] for arrays, _ in batches]
    assert len(sizes) > 30
    assert max(sizes) <= 2 * RATE


def test_a_network_that_writes_tokens_is_read_by_its_tokenizer(tmp_path):
    from tests.plugins.speech.speech_made import tiny_whisper

    from modelwright_speech.whisper import encoded

    model = (tiny_whisper(tmp_path / "published") / "tokenizer.json").read_text()

    made = SpeechCodec(SEQUENCE, (), model, rate=RATE, stride=STRIDE, least=800, longest=2.0, window=2.0)
    numbers = encoded(model, "Hello you")
    logits = np.eye(300, dtype=np.float32)[numbers]
    outputs = {"logits": logits[None], "frames": np.array([len(numbers)])}
    found = made.decode(outputs, None)
    assert found["text"] == ["hello you"]
    assert made.records(found)[0]["words"] == []
    assert b"hello you" in made.formats()["srt"].write("a.wav", None, found)[1]

    def graph(arrays):
        count = len(arrays["lengths"])
        return {"logits": logits[None].repeat(count, 0), "frames": np.full(count, len(numbers))}

    twice = answered(made, [np.ones(4 * RATE, np.float32)], graph)
    assert twice["text"] == ["hello you hello you"]


def test_formats_name_their_files_after_the_sound():
    found = codec().decode({"logits": spelt("one two", 40)[None], "frames": np.array([40])}, None)
    written = {name: each.write("talks/a.b.wav", None, found) for name, each in codec().formats().items()}
    assert written["txt"] == ("a.b.txt", b"one two\n")
    assert written["srt"][0] == "a.b.srt"
    assert written["srt"][1].startswith(b"1\n00:00:00,080 --> ")
    assert written["vtt"][1].startswith(b"WEBVTT\n")


def test_it_travels_as_json():
    made = codec(decoder="beam", lexicon=("one", "two"), hotwords=(("two", 1.5),))
    assert restore(json.loads(json.dumps(describe(made)))) == made


def test_silence_says_nothing():
    outputs = {"logits": spelt("", 10)[None], "frames": np.array([10])}
    for made in (codec(), codec(decoder="beam", lexicon=("one",))):
        found = made.decode(outputs, None)
        assert made.records(found)[0]["text"] == ""
        assert found["words"] == [[]]
