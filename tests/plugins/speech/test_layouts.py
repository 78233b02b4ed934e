"""The same utterances are found in every layout, in folders and archives; what is odd is told by file and line."""

from __future__ import annotations

import numpy as np
import pytest
from tests.plugins.speech.sounds_made import KINDS, RATE, encoded, lines, loaded, manifest, tone, write

from modelwright.data import Key
from modelwright.errors import ConfigError, DataError

SAID = {"train": ["one two", "three", "two one", "three three"], "valid": ["two"], "test": ["one", "three two"]}
"""What is said in each split."""


def sound(split, place) -> bytes:
    return encoded(tone(0.5 + 0.1 * place, number=hash_of(split) + place))


def hash_of(split) -> int:
    return {"train": 0, "valid": 100, "test": 200}[split]


def all_of():
    return [(split, place, text) for split, texts in SAID.items() for place, text in enumerate(texts)]


def manifest_files():
    rows = [
        {"audio_filepath": f"wav/{split}{place}.wav", "text": text.upper(), "speaker": f"{split}-s", "split": split}
        for split, place, text in all_of()
    ]
    return {"all.jsonl": lines(rows), **{f"wav/{s}{p}.wav": sound(s, p) for s, p, _ in all_of()}}


def csv_files():
    table = "path,text,speaker,split\n" + "".join(f"{s}{p}.wav,{t},{s}-s,{s}\n" for s, p, t in all_of())
    return {"all.csv": table, **{f"{s}{p}.wav": sound(s, p) for s, p, _ in all_of()}}


def librispeech_files():
    names = {"train": "train-clean-100", "valid": "dev-clean", "test": "test-other"}
    files = {}
    for split, texts in SAID.items():
        folder = f"LibriSpeech/{names[split]}/{split}/7"
        said = [f"{split}-7-{place:04} {text.upper()}" for place, text in enumerate(texts)]
        files[f"{folder}/{split}-7.trans.txt"] = "\n".join(said)
        files |= {f"{folder}/{split}-7-{place:04}.wav": sound(split, place) for place in range(len(texts))}
    return files


def common_voice_files():
    files = {}
    for base, split in (("train", "train"), ("dev", "valid"), ("test", "test")):
        rows = "".join(f"{split}-s\t{split}{place}.wav\t{text}\t2\n" for place, text in enumerate(SAID[split]))
        files[f"cv/en/{base}.tsv"] = "client_id\tpath\tsentence\tup_votes\n" + rows
        files |= {f"cv/en/clips/{split}{place}.wav": sound(split, place) for place in range(len(SAID[split]))}
    return files


def folder_files():
    names = {"train": "train", "valid": "dev", "test": "test"}
    files = {}
    for split, place, text in all_of():
        files[f"{names[split]}/{place}.wav"] = sound(split, place)
        files[f"{names[split]}/{place}.{'txt' if place else 'lab'}"] = f"{text}\n"
    return files


LAYOUTS = {
    "manifest": manifest_files,
    "csv": csv_files,
    "librispeech": librispeech_files,
    "common-voice": common_voice_files,
    "folder": folder_files,
}


def same_as_said(sets):
    for split, texts in SAID.items():
        dataset = sets[split]
        assert dataset.texts == texts
        for place in range(len(texts)):
            wanted = tone(0.5 + 0.1 * place, number=hash_of(split) + place)
            assert np.abs(dataset.samples(place) - wanted).max() < 1e-4
            assert dataset.durations[place] == len(wanted) / RATE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_in_folders_and_archives(tmp_path, layout, kind):
    path = write(tmp_path / kind, LAYOUTS[layout]())
    sets = loaded("manifest" if layout == "csv" else layout, path)
    same_as_said(sets)
    if layout != "folder":
        assert {clip.speaker.removesuffix("-s") for clip in sets["train"].clips} == {"train"}
    example = sets["test"][Key(0, 0, 1, 1)]
    assert example.raw.dtype == np.float32
    assert example.targets["text"] == "three two"


@pytest.mark.parametrize("kind", KINDS)
def test_sound_that_does_not_fit_into_memory_is_read_when_needed(tmp_path, kind):
    path = write(tmp_path / kind, manifest_files())
    sets = loaded("manifest", path, memory=0)
    same_as_said(sets)
    assert sets["train"].kept == 0
    assert any("do not fit into data.memory=0" in note for note in sets.notes)


def test_a_manifest_beside_an_archive(tmp_path):
    files = manifest_files()
    listing = write(tmp_path, {"all.jsonl": files.pop("all.jsonl")}) / "all.jsonl"
    archive = write(tmp_path / "sound.tar.xz", files)
    same_as_said(loaded("manifest", [listing, archive]))
    same_as_said(loaded("manifest", tmp_path))  # a folder with both
    inside = write(tmp_path / "packed.zip", {f"an4/{name}": data for name, data in files.items()})
    same_as_said(loaded("manifest", [listing, inside]))  # a folder around all


def test_one_manifest_per_split(tmp_path):
    files = {f"{s}{p}.wav": sound(s, p) for s, p, _ in all_of()}
    for split, base in (("train", "train"), ("valid", "dev"), ("test", "eval")):
        rows = [{"path": f"{split}{place}.wav", "text": text} for place, text in enumerate(SAID[split])]
        files[f"{base}.json"] = lines(rows)
    write(tmp_path, files)
    same_as_said(loaded("manifest", tmp_path))
    same_as_said(loaded("manifest", [tmp_path / "train.json", tmp_path / "dev.json", tmp_path / "eval.json"]))


def test_one_archive_per_split(tmp_path):
    for split, name in (("train", "train-clean"), ("valid", "dev-clean"), ("test", "test-clean")):
        files = {f"0/{p}.wav": sound(s, p) for s, p, _ in all_of() if s == split}
        texts = "\n".join(f"{place} {text}" for place, text in enumerate(SAID[split]))
        write(tmp_path / f"{name}.tar.gz", {**files, "0/0.trans.txt": texts})
    same_as_said(loaded("librispeech", tmp_path))
    same_as_said(loaded("librispeech", [tmp_path / f"{name}-clean.tar.gz" for name in ("train", "dev", "test")]))


def test_a_csv_of_splits(tmp_path):
    files = csv_files()
    files["all.csv"] = "\n".join(line.rpartition(",")[0] for line in files["all.csv"].splitlines())
    write(tmp_path / "set", files)
    table = "path,split\n" + "".join(f"{s}{p}.wav,{s}\n" for s, p, _ in all_of())
    splits = write(tmp_path, {"splits.csv": table}) / "splits.csv"
    same_as_said(loaded("manifest", tmp_path / "set", split=str(splits)))
    splits.write_text(table.replace("valid0.wav,valid\n", ""))
    with pytest.raises(DataError, match="gives no split to 1 of 7 utterances"):
        loaded("manifest", tmp_path / "set", split=str(splits))


def test_parts_of_a_long_recording(tmp_path):
    whole = tone(4.0)
    rows = [{"path": "x.flac", "text": f"part {n}", "offset": n, "duration": 1.0} for n in range(4)]
    write(tmp_path, {"all.jsonl": lines(rows), "x.flac": encoded(whole, kind="FLAC", subtype="PCM_24")})
    sets = loaded("manifest", tmp_path / "all.jsonl", valid=0.0, test=0.0)
    assert [len(sets["train"].samples(n)) for n in range(4)] == [RATE] * 4
    assert np.abs(sets["train"].samples(2) - whole[2 * RATE : 3 * RATE]).max() < 1e-5
    assert sets["train"].name_of(2).endswith("x.flac from 2 s")


def test_speech_commands(tmp_path):
    files = {f"{word}/{who}_nohash_{n}.wav": encoded(tone(0.4, number=hash((word, who, n)) % 10**6))
             for word in ("yes", "no") for who in ("a1", "b2", "c3") for n in (0, 1)}  # fmt: skip
    files |= {
        "validation_list.txt": "yes/b2_nohash_0.wav\nno/b2_nohash_0.wav\n",
        "testing_list.txt": "yes/c3_nohash_0.wav\nno/gone_nohash_0.wav\n",
        "_background_noise_/tap.wav": encoded(tone(2.0)),
    }
    for kind in ("set", "set.tar.gz"):
        sets = loaded("speech-commands", write(tmp_path / kind, files))
        assert [len(sets[split]) for split in ("train", "valid", "test")] == [9, 2, 1]
        assert set(sets["train"].texts) == {"yes", "no"}
        assert {clip.speaker for clip in sets["valid"].clips} == {"b2"}
        notes = "\n".join(sets.notes)
        assert "1 sounds of _background_noise_ are left out" in notes
        assert "1 sounds of its lists are not there" in notes


def test_common_voice_with_only_validated(tmp_path):
    rows = "".join(f's{n % 5}\t{n}\tit is "{n % 3}\tx\n' for n in range(15))
    files = {"validated.tsv": f"client_id\tpath\tsentence\tage\n{rows}"}
    files |= {f"clips/{n}.mp3": encoded(tone(1.0, number=n), kind="MP3") for n in range(15)}
    sets = loaded("common-voice", write(tmp_path / "set", files))
    assert [len(sets[split]) for split in ("train", "valid", "test")] == [9, 3, 3]
    assert sets["train"].texts[0].startswith('it is "')


# What is wrong -----------------------------------------------------------------------------------------------------


def test_no_path(tmp_path):
    with pytest.raises(ConfigError, match=r"needs data\.path"):
        loaded("manifest")
    with pytest.raises(DataError, match="does not exist"):
        loaded("manifest", tmp_path / "no")
    with pytest.raises(ConfigError, match=r"does not go with data\.name=spoken"):
        loaded("spoken", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manifest", "has no manifest"),
        ("librispeech", r"has no \*\.trans\.txt"),
        ("common-voice", r"has no train\.tsv"),
        ("speech-commands", "has no folder of a word"),
        ("folder", "holds no sound"),
    ],
)
def test_nothing_of_the_layout(tmp_path, name, message):
    write(tmp_path, {"readme.md": "hello"})
    with pytest.raises((DataError, ConfigError), match=message):
        loaded(name, tmp_path)


def test_manifests_that_are_none(tmp_path):
    for text, message in (
        (b"\xff\xfe\x00", "is no UTF-8 text"),
        ("path,words\na.wav,hello\n", r"has no column text \(it has path, words\)"),
        ("text\nhello\n", "has no column path"),
        ("[{]", "line 1 is no JSON"),
        ("path,text\n", "lists nothing"),
        ("path,text,split\na.wav,b,nowhere\n", "line 2: 'nowhere' is no split"),
        ("path,text\na.wav,b\rc\x00\n" + '"' + "x" * 200_000 + '",y\n', "is no CSV"),
    ):
        write(tmp_path, {"all.csv": text})
        with pytest.raises(DataError, match=message):
            loaded("manifest", tmp_path / "all.csv")


def test_too_many_manifests(tmp_path):
    paths = [write(tmp_path, {f"{name}.csv": "path,text\na.wav,b\n"}) / f"{name}.csv" for name in "abcd"]
    with pytest.raises(ConfigError, match="lists 4 places"):
        loaded("manifest", paths)


def test_bad_lines_are_all_told_at_once(tmp_path):
    files = manifest(12)
    bad = [
        '{"path": "wav/0.wav"}',
        '{"path": "wav/0.wav", "text": "  "}',
        '{"text": "hello"}',
        '{"path": "wav/gone.wav", "text": "a"}',
        '{"path": "wav/0.wav", "text": "a", "offset": "soon"}',
        '{"path": "wav/0.wav", "text": "a", "duration": -1}',
        '{"path": ',
        "[1]",
    ]
    write(tmp_path, {**files, "all.jsonl": str(files["all.jsonl"]) + "\n".join(bad)})
    with pytest.raises(DataError) as error:
        loaded("manifest", tmp_path)
    told = str(error.value)
    assert told.startswith("8 of 20 utterances cannot be used: ")
    assert "\n" not in told
    for line, reason in (
        (13, "it has no text"),
        (14, "it has no text"),
        (15, "no path"),
        (16, "wav/gone.wav is not there"),
        (17, "offset 'soon' is no number"),
        (18, "duration -1 is no length of time"),
        (19, "no JSON"),
        (20, "no JSON object"),
    ):
        assert f"all.jsonl line {line}" in told
        assert reason in told
    assert told.endswith("mend them, or set data.on_bad=skip to leave them out")
    sets = loaded("manifest", tmp_path, on_bad="skip")
    assert sum(len(sets[split]) for split in ("train", "valid", "test")) == 12
    assert any(note.startswith("8 of 20 utterances cannot be used") for note in sets.notes)


def test_librispeech_lines_without_sound_and_sound_without_lines(tmp_path):
    files = librispeech_files()
    del files["LibriSpeech/train-clean-100/train/7/train-7-0001.wav"]
    files["LibriSpeech/dev-clean/valid/7/valid-7-0009.wav"] = sound("valid", 9)
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"train-7\.trans\.txt line 2: no sound train-7-0001 is beside it"):
        loaded("librispeech", tmp_path)
    sets = loaded("librispeech", tmp_path, on_bad="skip")
    assert any("1 sounds are in no transcript" in note for note in sets.notes)


def test_folders_without_transcripts(tmp_path):
    files = folder_files()
    write(tmp_path / "one", {name: data for name, data in files.items() if name != "train/1.txt"})
    with pytest.raises(DataError, match=r"1\.wav: no transcript is beside it"):
        loaded("folder", tmp_path / "one")
    write(tmp_path / "all", {name: data for name, data in files.items() if name.endswith("wav")})
    with pytest.raises(DataError, match="has no transcript beside its 7 sounds"):
        loaded("folder", tmp_path / "all")
    write(tmp_path / "odd", {**files, "train/1.txt": b"\xff\xfe\x00"})
    with pytest.raises(DataError, match=r"1\.txt: it is no UTF-8 text"):
        loaded("folder", tmp_path / "odd")


def test_common_voice_without_a_clip(tmp_path):
    files = common_voice_files()
    del files["cv/en/clips/train1.wav"]
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"train\.tsv line 3: train1\.wav is not in cv/en/clips"):
        loaded("common-voice", tmp_path)


def test_data_without_training_utterances(tmp_path):
    files = {name: data for name, data in folder_files().items() if not name.startswith("train")}
    with pytest.raises(DataError, match="have no train split"):
        loaded("folder", write(tmp_path, files))
