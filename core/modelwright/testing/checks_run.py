"""Checks of whole runs: resume and ranks. Knows the trainer; knows no command line."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from modelwright.config import OptimizerConfig, TaskConfig
from modelwright.data import Facts
from modelwright.events import CheckpointSaved, Event
from modelwright.hookspecs import TaskEntry
from modelwright.testing.checks_model import check_losses_add_up
from modelwright.testing.kit import Failed, NotOffered
from modelwright.testing.subject import CPU, Subject
from modelwright.training import distributed
from modelwright.training.randomness import generator, seed_everything
from modelwright.training.steps import Supervised
from modelwright.training.trainer import Trainer

STEPS = 5
BATCH_NORM = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage] - the base of all kinds
DROPOUT = nn.modules.dropout._DropoutNd  # pyright: ignore[reportPrivateUsage] - the base of all kinds


def check_resume_is_exact(subject: Subject) -> None:
    """A run stopped at a random step and gone on with ends with the weights of one that was not, bit for bit."""
    config = _short(subject.config)
    stop = int(generator(subject.config.seed, subject.entry.name, "stop").integers(1, STEPS))
    whole, cut = subject.folder / "whole", subject.folder / "cut"

    def copy(event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == stop:
            shutil.copytree(whole, cut)

    first = train(subject.entry, config, subject.facts, whole, observer=copy)
    second = train(subject.entry, config, subject.facts, cut)
    for name, value in first.items():
        if not torch.equal(value, second[name]):
            raise Failed(f"'{name}' differs after a stop at step {stop} of {STEPS}: some state is not saved")


def check_ranks_agree(subject: Subject) -> None:
    """One process and two, with the same batches, end with the same weights up to rounding."""
    model = subject.model()
    if any(isinstance(module, BATCH_NORM) for module in model.modules()):
        raise NotOffered("batch normalisation: statistics are of each rank's own share")
    try:
        check_losses_add_up(subject)
    except Failed as reason:
        raise NotOffered("losses that do not add up over batches cannot over ranks: see losses_add_up") from reason
    # Adam would blow the rounding noise of a gradient that is truly zero up to whole steps.
    config = _short(subject.config, optimizer=OptimizerConfig(name="SGD", lr=0.01))
    one = train(subject.entry, config, subject.facts, subject.folder / "one", still=True)
    folder = subject.folder / "two"
    _on_two_ranks(subject.entry, config, subject.facts, folder)
    two = weights(folder)
    for name, value in one.items():
        if not torch.allclose(value.float(), two[name].float(), rtol=1e-3, atol=1e-4):
            gap = float((value.float() - two[name].float()).abs().max())
            raise Failed(
                f"'{name}' differs by {gap:.3g} between one rank and two: what a sample contributes must depend on "
                "the sample alone, and augment draw from `keyed` only"
            )


def train(
    entry: TaskEntry,
    config: TaskConfig,
    facts: Facts,
    folder: Path,
    *,
    observer: Callable[[Event], None] = lambda event: None,
    still: bool = False,
) -> Mapping[str, Tensor]:
    """A short run with the real trainer; its final weights.

    Args:
        still: switch dropout off, whose masks are each rank's own.
    """
    task = entry.build(config.model_copy(deep=True))
    task.facts = facts
    datasets = task.datasets()
    seed_everything(config.seed, "model")
    step = Supervised(task)
    for module in step.modules() if still else []:
        if isinstance(module, DROPOUT):
            module.p = 0.0
    trainer = Trainer(
        task,
        config,
        step,
        train=datasets["train"],
        valid=None,
        folder=folder,
        name=entry.name,
        device=CPU,
        observer=observer,
        warn=lambda line: None,
    )
    trainer.fit()
    return weights(folder)


def weights(folder: Path) -> dict[str, Tensor]:
    """The final weights of a run."""
    (last,) = folder.glob("last-*")
    return load_file(last / "model.safetensors")


def _short(config: TaskConfig, **further: Any) -> TaskConfig:
    changed: dict[str, Any] = {"steps": STEPS, "minutes": None, "checkpoint_every": 1, "log_every": 1, "accumulate": 1}
    changed |= further
    return config.model_copy(deep=True, update={"train": config.train.model_copy(update=changed)})


def _on_two_ranks(entry: TaskEntry, config: TaskConfig, facts: Facts, folder: Path) -> None:
    """The short run in two processes that work together.

    Raises:
        Failed: one of them did.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if "forkserver" in multiprocessing.get_all_start_methods():
        # A server that imported torch once starts each rank; a plain fork may hang in a process with thread pools.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["modelwright.training.trainer", "torch._dynamo"])  # optimizers import it
    else:
        context = multiprocessing.get_context("spawn")
    ranks: list[BaseProcess] = []
    try:
        for rank in range(2):
            ranks.append(context.Process(target=_rank, args=(rank, port, entry, config, facts, folder), daemon=True))
            ranks[-1].start()
        _wait(ranks)
    finally:
        for process in ranks:  # the other one would wait for its partner
            if process.is_alive():
                process.kill()
                process.join()
    if any(process.exitcode for process in ranks):
        # The first error is the cause; the other rank may then miss its partner. A script without that line is run
        # again by each rank, and ends there before anything is written.
        errors = sorted(folder.parent.glob("rank-*.error"), key=lambda path: path.stat().st_mtime_ns)
        if not errors:
            raise Failed("a rank did not start: in a script, call this below `if __name__ == '__main__':`")
        raise Failed(errors[0].read_text(encoding="utf-8"))


def _wait(ranks: Sequence[BaseProcess]) -> None:
    """Until all are done, or one failed."""
    while any(process.is_alive() for process in ranks) and not any(process.exitcode for process in ranks):
        wait([process.sentinel for process in ranks if process.is_alive()])


def _rank(rank: int, port: int, entry: TaskEntry, config: TaskConfig, facts: Facts, folder: Path) -> None:
    os.dup2(2, 1)  # stdout belongs to the result of `modelwright check --json`
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with ExitStack() as group:
        try:
            group.enter_context(distributed.process_group(CPU))
            train(entry, config, facts, folder, still=True)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; the parent tells it
            # Before the group is left: that breaks the connection, and the other rank fails for want of a partner.
            said = f"one of two ranks fails with {type(error).__name__}: {error}"
            (folder.parent / f"rank-{rank}.error").write_text(said, encoding="utf-8")
            raise SystemExit(1) from None
