"""Trains the same recognizer with the engine and with a loop written by hand, and compares losses and processor time.

    python benchmarks/speech_parity.py                                                        on the embedded demo
    python benchmarks/speech_parity.py --recipe digits data.path=runs/speech/strings/manifest.csv   on digits

Both have the same network, weights, batches, changes to the sound, SpecAugment, dropout and schedule. The engine is the
real `Trainer`, with its logs and its guard; the loop is what a good engineer would write: PyTorch, sounds in memory,
texts encoded once, nothing but the steps. Losses of the first steps must be the same, or speeds could not be compared.
Then the two take turns, a segment of steps each, on the same batches. A round is two turns: in one the engine is the
first to see a batch, in the other the loop. What counts is the ratio of each round, and the median over all rounds of
all processes (where memory happens to lie makes one of them some percent quicker for as long as a process lives). Times
are processor time of one thread: the machine may be busy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modelwright import events
from modelwright.data import Key
from modelwright.plugins import discover, settings_of
from modelwright.training.randomness import fold, generator, uniform
from modelwright.training.steps import Supervised
from modelwright.training.trainer import Trainer
from modelwright_speech import batching
from modelwright_speech.conv import ConvCtc
from modelwright_speech.datasets import TrainClips
from modelwright_speech.features import LogMel
from modelwright_speech.masks import blanked
from modelwright_speech.task import SpeechTask
from modelwright_speech.tokens import Tokens

TASK = "speech-recognition"
FIRST = 20
"""Steps whose losses are compared one by one."""
TOLERANCE = 1e-5
"""Largest relative difference of two losses that are the same."""


class HandLoop:
    """A training loop by hand; ``loop(steps)`` does that many further steps.

    Args:
        clips: the training utterances.
        tokens: what the network writes.
        start: the weights to begin with.
        config: the run's settings: what a loop by hand would have as constants.
        steps: of the whole run.
    """

    def __init__(self, clips: TrainClips, tokens: Tokens, start: dict[str, Tensor], config: Any, *, steps: int) -> None:
        self.clips, self.config, self.steps, self.step = clips, config, steps, 0
        rate, train, network = config.data.rate, config.train, config.model
        self.features = LogMel(rate, network.mels or (40 if rate <= 8000 else 80))
        sizes = {"width": network.width, "blocks": network.blocks, "dropout": network.dropout}
        self.model = ConvCtc(self.features, tokens=tokens.size, **sizes)
        self.model.load_state_dict(start)
        self.texts = [torch.tensor(tokens.encode(text)) for text in clips.texts]
        flat = [p for p in self.model.parameters() if p.ndim <= 1]
        deep = [p for p in self.model.parameters() if p.ndim > 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": deep}, {"params": flat, "weight_decay": 0.0}],
            lr=train.optimizer.lr,
            betas=tuple(train.optimizer.options["betas"]),
            weight_decay=train.optimizer.weight_decay,
            fused=True,  # as the engine asks for it; unfused sums round otherwise
        )
        self.parameters = list(self.model.parameters())
        self.losses: list[float] = []
        self.batches = self._batches()
        self.model.train()

    def __call__(self, steps: int) -> None:
        train, augment = self.config.train, self.config.augment
        warm = train.schedule.warmup * self.steps
        for _ in range(steps):
            epoch, epochs, rows = next(self.batches)
            sounds = [
                torch.from_numpy(np.asarray(self.clips[Key(self.config.seed, epoch, epochs, row)].raw))
                for row in rows.tolist()
            ]
            lengths = torch.tensor([len(sound) for sound in sounds])
            samples = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
            targets = [self.texts[row] for row in rows.tolist()]
            counts = torch.tensor([len(each) for each in targets])
            if self.step < warm:
                rate = (self.step + 1) / (warm + 1)
            else:
                rate = 0.5 * (1 + math.cos(math.pi * (self.step - warm) / (self.steps - warm)))
            for group in self.optimizer.param_groups:
                group["lr"] = train.optimizer.lr * rate
            torch.default_generator.manual_seed(fold(self.config.seed, self.step, 0, 0) & 0x7FFFFFFFFFFFFFFF)
            frames, size = self.features.frames(lengths), int(self.features.frames(torch.tensor([samples.shape[1]])))
            mels = torch.full_like(frames, self.features.mels)

            def drawn(name: str, count: int, epoch: int = epoch, rows: np.ndarray = rows) -> np.ndarray:
                return uniform(self.config.seed, epoch, rows, name, 2 * count)

            time_draws = drawn("time-masks", augment.time_masks)
            mel_draws = drawn("mel-masks", augment.mel_masks)
            keep_frames = ~blanked(time_draws, frames, size=size, width=augment.time_width)
            keep_mels = ~blanked(mel_draws, mels, size=self.features.mels, width=augment.mel_width)
            self.optimizer.zero_grad()
            outputs = self.model(samples, lengths, keep_frames, keep_mels)
            log_probs = outputs["logits"].log_softmax(dim=2).transpose(0, 1)
            padded = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True)
            each = F.ctc_loss(log_probs, padded, outputs["frames"], counts, reduction="none", zero_infinity=True)
            loss = each.sum() / len(rows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, train.clip)
            self.optimizer.step()
            self.losses.append(loss.item())
            self.step += 1

    def _batches(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """The engine's order: a pure function of seed and epoch."""
        train, seed = self.config.train, self.config.seed

        def listed(epoch: int, epochs: int) -> list[np.ndarray]:
            return batching.order(
                self.clips.durations,
                batch_size=train.batch_size,
                curriculum=train.curriculum,
                epoch=epoch,
                epochs=epochs,
                rng=generator(seed, epoch, "order"),
            )

        epochs = -(-self.steps // len(listed(0, 1)))
        for epoch in range(epochs):
            for rows in listed(epoch, epochs):
                yield epoch, epochs, rows


def compared(recipe: str, settings: list[str], *, rounds: int, segment: int) -> dict[str, Any]:
    """Losses of the first steps, and processor seconds of a step in each round of two turns, after one to warm up."""
    entry = discover().task(TASK)
    steps = 2 * segment * (rounds + 1)
    settings = [*settings, f"train.steps={steps}", f"train.checkpoint_every={steps}", "train.device=cpu"]
    config: Any = settings_of(entry, recipe=recipe, settings=[*settings, f"train.log_every={segment}"])
    torch.set_num_threads(1)
    task: Any = entry.build(config)
    assert isinstance(task, SpeechTask)
    datasets = task.datasets()
    task.facts = task.find_facts(datasets)
    clips: Any = datasets["train"]
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in task.model().state_dict().items()}
    tokens = Tokens.of(task.facts.values["tokens"])

    def loop() -> HandLoop:
        return HandLoop(clips, tokens, start, config, steps=steps)

    # While losses are compared each step is logged; while time is taken, a step now and then, as in any run.
    first = settings_of(entry, recipe=recipe, settings=[*settings, "train.log_every=1"])
    said: list[float] = []
    by_hand = loop()
    by_hand(FIRST)

    class Enough(Exception):
        """So many steps were seen."""

    def listen(event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            said.append(event.loss)
            if len(said) == FIRST:
                raise Enough

    with contextlib.suppress(Enough):
        _fit(task, first, clips, start, listen)
    apart = max(abs(a - b) / abs(b) for a, b in zip(said, by_hand.losses, strict=True))

    other, turns = loop(), {"engine": list[float](), "hand": list[float]()}
    mark = time.process_time()

    def taken(name: str) -> None:
        nonlocal mark
        turns[name].append((time.process_time() - mark) / segment)
        mark = time.process_time()

    def observe(event: events.Event) -> None:
        nonlocal mark
        if not isinstance(event, events.StepDone) or event.step % segment:
            return
        taken("engine")
        # Who is first at a batch's shape pays for making its convolutions: in turn, one and the other.
        for _ in range(2 if len(turns["engine"]) % 2 and event.step < steps else 0):
            other(segment)
            taken("hand")
        mark = time.process_time()

    _fit(task, config, clips, start, observe)
    pairs = {name: [sum(each[at : at + 2]) / 2 for at in range(2, steps // segment, 2)] for name, each in turns.items()}
    return {"losses": [said, by_hand.losses], "apart": apart, "turns": pairs}


def _fit(
    task: SpeechTask, config: Any, clips: Any, start: dict[str, Tensor], observe: Callable[[events.Event], None]
) -> None:
    """The engine's own training."""
    step = Supervised(task)
    step.model.load_state_dict(start)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            task,
            config,
            step,
            train=clips,
            valid=None,
            folder=Path(folder),
            name="parity",
            device=torch.device("cpu"),
            observer=observe,
            warn=print,
        )
        trainer.fit()


def main() -> None:
    """Parses, compares, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="key=value, on top of the recipe")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--launches", type=int, default=3, help="processes, each with its rounds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--segment", type=int, default=8, help="steps of a turn")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    if arguments.alone:
        found = compared(arguments.recipe, arguments.settings, rounds=arguments.rounds, segment=arguments.segment)
        print(json.dumps(found))
        return
    command = [sys.executable, __file__, "--alone", "--recipe", arguments.recipe, "--rounds", str(arguments.rounds)]
    command += ["--segment", str(arguments.segment), *arguments.settings]
    launches = [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        for _ in range(arguments.launches)
    ]
    if arguments.json:
        print(json.dumps(launches))
        return
    apart = max(each["apart"] for each in launches)
    verdict = "the same" if apart <= TOLERANCE else "NOT the same"
    print(f"losses of the first {FIRST} steps: {verdict} (largest relative difference {apart:.1e})")
    ours, theirs = ([value for each in launches for value in each["turns"][name]] for name in ("engine", "hand"))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    print(
        f"CPU ms a step: engine {1000 * statistics.median(ours):.1f}, by hand {1000 * statistics.median(theirs):.1f}; "
        f"engine : by hand {middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds of 2 x "
        f"{arguments.segment} steps in {arguments.launches} processes)"
    )


if __name__ == "__main__":
    main()
