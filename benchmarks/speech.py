"""Trains recognizers from scratch on spoken digits, AN4 and the embedded demo, and scores them with and without words.

    python benchmarks/speech.py --out runs/speech fsdd an4 spoken       three seeds of each (half an hour of one core)
    python benchmarks/speech.py --out runs/speech an4 --seeds 0         one seed
    python benchmarks/speech.py --out runs/speech fsdd-speakers models an4-long
    python benchmarks/speech.py --out runs/speech int8 served           need seed 0 of fsdd and of an4
    python benchmarks/speech.py --out runs/speech pauses                needs spoken
    python benchmarks/speech.py --out runs/speech --table               only the tables

Each training is a process of its own with one thread; its CPU seconds are the engine's own count, without evaluation.
Every run is scored on its test split three times: best path (greedy), beam search within the words of the training
texts (lexicon), and that with the bigram of the training texts (bigram). What was made is not made again.

Strings of digits are composed of the published Free Spoken Digit Dataset, 8 kHz: two to eight recordings of one speaker
with short pauses. Test strings are made of the published test recordings (0-4), validation strings of 5-9, training
strings of 10-49. `fsdd-speakers` leaves one speaker out: all strings of that speaker, of all recordings, are the test.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TASK = "speech-recognition"
SEEDS = (0, 1, 2)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000
STRINGS = {"train": 4000, "valid": 200, "test": 400}
"""Strings of digits in each split."""
TAKES = {"test": range(5), "valid": range(5, 10), "train": range(10, 50)}
"""Which recordings of a speaker and digit they are made of; 0 to 4 are the published test."""
LENGTHS = (2, 8)
PAUSES = (0.0, 0.2)
"""Digits of a string, and seconds between two of them: from, to."""
TOGETHER = 6
"""Utterances of a recording with pauses."""
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
EQUAL = 60.0
"""CPU seconds of each network in `models`."""
LONG: dict[str, Any] = {"model.width": 192, "model.blocks": 7, "train.steps": 8000, "train.evaluate_every": 8}
DECODERS: dict[str, dict[str, Any]] = {
    "greedy": {"evaluate.decoder": "greedy"},
    "lexicon": {"evaluate.decoder": "beam", "evaluate.lexicon": "training"},
    "bigram": {"evaluate.decoder": "beam", "evaluate.lexicon": "training", "evaluate.language": "bigram"},
}


def data_root() -> Path:
    """Where the real data lie."""
    return Path(os.environ.get("MODELWRIGHT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


# Strings of digits ----------------------------------------------------------------------------------------------------


def recordings() -> dict[tuple[str, int, int], np.ndarray]:
    """Samples, float32, of each (speaker, digit, take)."""
    import soundfile

    folder = data_root() / "fsdd"
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["path"]: (row["speaker"], int(row["digit"]), int(row["index"])) for row in csv.DictReader(file)}
    found: dict[tuple[str, int, int], np.ndarray] = {}
    with tarfile.open(folder / "recordings.tar.xz") as archive:
        for member in archive:
            if member.name in rows:
                content = archive.extractfile(member)
                assert content is not None
                found[rows[member.name]] = soundfile.read(io.BytesIO(content.read()), dtype="float32")[0]
    return found


def strings(out: Path, *, left_out: str | None = None) -> Path:
    """Composed strings as sound files; gives the manifest. `left_out`: this speaker is the test, and only that."""
    import soundfile

    folder = out / ("strings" if left_out is None else f"strings-without-{left_out}")
    if (folder / "manifest.csv").exists():
        return folder / "manifest.csv"
    sounds = recordings()
    speakers = sorted({speaker for speaker, _, _ in sounds})
    lines: list[dict[str, str]] = []
    for number, (split, count) in enumerate(STRINGS.items()):
        rng = np.random.default_rng([0, number])
        heard, takes = speakers, list(TAKES[split])
        if left_out is not None:
            heard = [each for each in speakers if (each == left_out) == (split == "test")]
            takes = list({"train": range(5), "valid": range(5, 10), "test": range(50)}[split])
            takes += list(range(10, 50)) if split == "train" else []
        (folder / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            speaker = str(rng.choice(heard))
            said = rng.integers(10, size=rng.integers(LENGTHS[0], LENGTHS[1] + 1)).tolist()
            parts = [pause(rng)]
            for digit in said:
                parts += [sounds[speaker, digit, int(rng.choice(takes))], pause(rng)]
            name = f"{split}/{index:05d}.flac"
            soundfile.write(folder / name, np.concatenate(parts), RATE)
            text = " ".join(DIGITS[digit] for digit in said)
            lines.append({"path": name, "text": text, "speaker": speaker, "split": split})
    with (folder / "manifest.part").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return (folder / "manifest.part").rename(folder / "manifest.csv")


def pause(rng: np.random.Generator) -> np.ndarray:
    """A moment of silence."""
    return np.zeros(round(float(rng.uniform(*PAUSES)) * RATE), np.float32)


# One training ---------------------------------------------------------------------------------------------------------


def one(folder: Path, recipe: str, settings: Mapping[str, Any]) -> None:
    """Trains and scores; found.json keeps what came of it."""
    import modelwright as mw

    run = mw.train(TASK, recipe=recipe, settings=dict(settings), out=folder / "run", overwrite=True)
    training = run.results["training"]
    wer = {split: scored(run.folder, split) for split in ("valid", "test")}
    events = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [[e["step"], e["metrics"]["wer"]] for e in events if e["event"] == "evaluation" and e["split"] == "valid"]
    line = {"recipe": recipe, "settings": dict(settings), "training": training, "curve": curve, "wer": wer}
    (folder / "found.json").write_text(json.dumps(line, indent=1) + "\n", encoding="utf-8")


def scored(run: Path, split: str) -> dict[str, dict[str, float | None]]:
    """Word error rate of a run by decoder, each with its interval and the other scores."""
    import torch

    from modelwright import folder
    from modelwright.config import build_config
    from modelwright.evaluation.evaluator import evaluate
    from modelwright.plugins import discover
    from modelwright.run import load_model

    _, entry, config = folder.read_config(run, discover())
    facts = folder.read_facts(run)
    assert facts is not None
    found: dict[str, dict[str, float | None]] = {}
    data: Any = None
    for name, changed in DECODERS.items():
        task = entry.build(build_config(type(config), layers=[config.model_dump(), changed]))
        task.facts = facts
        data = data or task.datasets()
        model, _ = load_model(task, run, config, torch.device("cpu"), warn=print)
        network, size = task.served(model).eval(), config.evaluate.batch_size
        scores = evaluate(task, network, data[split], batch_size=size, resamples=1000, seed=0)
        wer = scores.metrics["wer"]
        found[name] = {**wer.as_json(), "cer": scores.metrics["cer"].value, "exact": scores.metrics["exact"].value}
    return found


def trained(out: Path, name: str, recipe: str, settings: Mapping[str, Any]) -> Path:
    """A finished training in a process of its own; made, or there already."""
    folder = out / name
    if (folder / "found.json").exists():
        return folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    shown = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    print(f"modelwright train {TASK} --recipe {recipe} {shown} --out {folder / 'run'}", flush=True)
    command = [sys.executable, __file__, "--out", str(folder), "--one", recipe, json.dumps(settings)]
    with (folder / "log.txt").open("wb") as log:
        done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log, check=False)
    if done.returncode:
        print(f"{name} failed: see {folder / 'log.txt'}", flush=True)
    return folder / "run"


# Experiments ----------------------------------------------------------------------------------------------------------

Arguments = argparse.Namespace


def fsdd(out: Path, arguments: Arguments) -> None:
    """Strings of digits, the published split."""
    for seed in arguments.seeds:
        trained(out, f"fsdd-{seed}", "digits", {"data.path": str(strings(out)), "seed": seed})


def an4_data() -> dict[str, Any]:
    """AN4 where it lies."""
    folder = data_root() / "an4"
    return {"data.path": [str(folder / "manifest.csv"), str(folder / "an4.tar.xz")]}


def an4(out: Path, arguments: Arguments) -> None:
    """The published test of AN4."""
    for seed in arguments.seeds:
        trained(out, f"an4-{seed}", "an4", {**an4_data(), "seed": seed})


def spoken(out: Path, arguments: Arguments) -> None:
    """The embedded demo: voices that training did not hear."""
    for seed in arguments.seeds:
        trained(out, f"spoken-{seed}", "quick", {"seed": seed})


def an4_long(out: Path, _: Arguments) -> None:
    """AN4 for as long as 25 minutes of one core: a larger network."""
    trained(out, "an4-long-0", "an4", {**an4_data(), **LONG, "seed": 0})


def fsdd_speakers(out: Path, arguments: Arguments) -> None:
    """Strings of digits of a speaker that training did not hear, each of six in turn; fewer steps."""
    for speaker in SPEAKERS:
        settings = {"data.path": str(strings(out, left_out=speaker)), "train.steps": 1200, "seed": 0}
        trained(out, f"fsdd-without-{speaker}", "digits", settings)


def models(out: Path, _: Arguments) -> None:
    """The networks of this plugin in equal processor time on strings of digits: how many steps that is, is timed."""
    for name in ("conv-ctc", "bilstm-ctc", "conformer-ctc"):
        settings = {"data.path": str(strings(out)), "model.name": name, "seed": 0, "train.evaluate_every": 100}
        timed = trained(out, f"timing-{name}", "digits", {**settings, "train.steps": 60, "train.curriculum": 0.0})
        kept = timed.parent / "found.json"
        if kept.exists():
            training = json.loads(kept.read_text(encoding="utf-8"))["training"]
            steps = round(EQUAL / training["cpu_seconds"] * training["steps"])
            trained(out, f"models-{name}", "digits", {**settings, "train.steps": steps})


def int8(out: Path, _: Arguments) -> None:
    """8 bits in advance (the plugin's recipe) and at run time (the core's), of seed 0 of digits and of AN4."""
    import modelwright as mw

    for run in (out / "fsdd-0" / "run", out / "an4-0" / "run"):
        for recipe in ("quick", "dynamic"):
            if run.exists():
                print(f"modelwright compress {run} --recipe {recipe}", flush=True)
                mw.compress(run, recipe=recipe)


def served(out: Path, _: Arguments) -> None:
    """An hour of AN4's test, transcribed by a bundle in a process of its own, as a user would."""
    import modelwright as mw

    wav, text = hour(out)
    for variant in ("original", "int8"):
        run, target = out / "an4-0" / "run", out / f"served-{variant}.json"
        names = [variant] if variant == "original" else [path.name for path in (run / "variants").glob("quick-*")]
        for name in names if not target.exists() else []:
            bundle = mw.export(run, variant=name, out=out / f"bundle-{variant}", overwrite=True)
            command = [sys.executable, __file__, "--out", str(out), "--transcribe", str(bundle), str(wav)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(printed.splitlines()[-1])
            found["wer"] = word_errors(text.read_text(encoding="utf-8"), found.pop("text"))
            target.write_text(json.dumps(found) + "\n", encoding="utf-8")


def pauses(out: Path, arguments: Arguments) -> None:
    """The demo's test, several utterances a recording with quiet between them, heard by bundles."""
    import soundfile

    import modelwright as mw
    from modelwright.config import build_config
    from modelwright_speech.config import SpeechConfig
    from modelwright_speech.task import SpeechTask

    test = SpeechTask(build_config(SpeechConfig, overrides=["data.name=spoken"])).datasets()["test"]
    folder = out / "pauses"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    said: list[str] = []
    for start in range(0, len(test), TOGETHER):
        these = range(start, min(start + TOGETHER, len(test)))
        quiet = [np.zeros(round(float(rng.uniform(0.3, 1.5)) * test.rate), np.float32) for _ in these]
        parts = [part for index, silence in zip(these, quiet, strict=True) for part in (test.samples(index), silence)]
        soundfile.write(folder / f"{len(said):03d}.wav", np.concatenate(parts), test.rate)
        said.append(" ".join(test.texts[index] for index in these))
    for seed in arguments.seeds:
        bundle = mw.export(out / f"spoken-{seed}" / "run", out=out / f"bundle-spoken-{seed}", overwrite=True)
        heard = [mw.load(bundle, threads=1).predict(path)["text"] for path in sorted(folder.glob("*.wav"))]
        wer = word_errors(" ".join(said), " ".join(heard))
        print(f"spoken-{seed}: {percent(wer)} % of words wrong in {len(said)} recordings with pauses", flush=True)


def hour(out: Path) -> tuple[Path, Path]:
    """An hour's recording in one file, and what is said in it: AN4's test again and again."""
    import soundfile

    wav, said = out / "hour.wav", out / "hour.txt"
    if said.exists():
        return wav, said
    folder = data_root() / "an4"
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["path"]: row["text"] for row in csv.DictReader(file) if row["split"] == "test"}
    sounds: dict[str, np.ndarray] = {}
    with tarfile.open(folder / "an4.tar.xz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name in texts:
                content = archive.extractfile(member)
                assert content is not None
                sounds[name] = soundfile.read(io.BytesIO(content.read()), dtype="int16")[0]
    words: list[str] = []
    written = 0
    with soundfile.SoundFile(wav, "w", 16000, 1, "PCM_16") as file:
        while written < 3600 * 16000:
            for name, sound in sounds.items():
                file.write(sound)
                written += len(sound)
                words.append(texts[name])
    said.write_text(" ".join(words).lower() + "\n", encoding="utf-8")
    return wav, said


def transcribe(bundle: str, wav: str) -> None:
    """Prints what a bundle hears in a file, how long that took and how much memory; torch is not imported."""
    import modelwright as mw

    opened = mw.load(bundle, threads=1)
    wall, cpu = time.perf_counter(), time.process_time()
    record = opened.predict(wav)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = int(Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    found = {"seconds": record["seconds"], "wall": wall, "cpu": cpu, "peak_mib": peak, "text": record["text"]}
    print(json.dumps({**found, "torch": "torch" in sys.modules}))


def word_errors(true: str, said: str) -> float:
    """Word error rate of one long text."""
    import jiwer

    return float(jiwer.wer(" ".join(true.split()), said))


EXPERIMENTS: dict[str, Callable[[Path, Arguments], None]] = {
    "fsdd": fsdd,
    "an4": an4,
    "spoken": spoken,
    "an4-long": an4_long,
    "fsdd-speakers": fsdd_speakers,
    "models": models,
    "int8": int8,
    "served": served,
    "pauses": pauses,
}


# Tables ---------------------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.2f}"


def table(out: Path) -> str:
    """What was found, as Markdown."""
    lines = [f"| run | steps | CPU s | parameters | {' | '.join(f'WER {name}' for name in DECODERS)} |"]
    lines += ["|---" * (4 + len(DECODERS)) + "|"]
    groups: dict[str, list[list[float]]] = {}
    for path in sorted(out.glob("*/found.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        training, test = found["training"], found["wer"]["test"]
        name, steps, seconds = path.parent.name, training["steps"], training["cpu_seconds"]
        wer = [test[name]["value"] for name in DECODERS]
        groups.setdefault(name.rpartition("-")[0], []).append([seconds, *wer])
        lines.append(
            f"| {name} | {steps} | {seconds:.0f} | {training['parameters']:,} | "
            + " | ".join(
                f"{percent(test[way]['value'])} ({percent(test[way]['low'])} to {percent(test[way]['high'])})"
                for way in DECODERS
            )
            + " |"
        )
    for name, rows in groups.items():
        if len(rows) > 1:
            columns: list[Sequence[float]] = list(zip(*rows, strict=True))
            said = [f"{percent(statistics.mean(each))} (sd {percent(statistics.stdev(each))})" for each in columns[1:]]
            seconds = statistics.mean(columns[0])
            lines.append(f"| **{name}**, mean of {len(rows)} | | {seconds:.0f} | | {' | '.join(said)} |")
    for path in sorted(out.glob("served-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines.append(
            f"- {path.stem}: {found['seconds']:.0f} s of sound in {found['cpu']:.1f} CPU s (real-time factor "
            f"{found['cpu'] / found['seconds']:.4f}, reading, features and decoding included), peak "
            f"{found['peak_mib']:.0f} MiB, WER {percent(found['wer'])}"
        )
    return "\n".join([*lines, "", *receipts(out)])


def receipts(out: Path) -> list[str]:
    """Every receipt under `out`, as Markdown; times are of ONNX Runtime in 8 bits over ONNX Runtime in fp32."""
    lines = ["| run | variant | WER | lost | 95 % interval | bytes | batch 1 | batch 32 |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for path in sorted(out.glob("*/run/variants/*/receipt.json")):
        receipt = json.loads(path.read_text(encoding="utf-8"))
        if not receipt.get("drop") or receipt["variant"] == "original":
            continue
        rows = [row for row in receipt["latency"] if row["runtime"].lower().replace(" ", "") == "onnxruntime"]
        times = {(row["model"], row["batch"]): row["ratio"] for row in rows}
        ratios = [times["variant", batch] / times["original", batch] for batch in (1, 32)]
        drop, wer = receipt["drop"], receipt["metrics"]["wer"]
        lines.append(
            f"| {path.parents[3].name} | {receipt['variant']} | {percent(wer['variant'])} | {percent(drop['value'])} "
            f"| {percent(drop['low'])} to {percent(drop['high'])} | {receipt['bytes']['ratio']:.3f} "
            f"| {ratios[0]:.3f} | {ratios[1]:.3f} |"
        )
    return lines


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="make nothing")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--transcribe", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if arguments.one:
        one(out, arguments.one[0], json.loads(arguments.one[1]))
        return
    if arguments.transcribe:
        transcribe(*arguments.transcribe)
        return
    if unknown := set(arguments.names) - set(EXPERIMENTS):
        parser.error(f"no experiment {sorted(unknown)}; there are: {', '.join(EXPERIMENTS)}")
    out.mkdir(parents=True, exist_ok=True)
    for name in [] if arguments.table else arguments.names:
        EXPERIMENTS[name](out, arguments)
    print(table(out))


if __name__ == "__main__":
    main()
