"""Answers for files: which ones are meant, what is in them, what a bundle says of each. Knows bundles; prints nothing.

One bad file never takes the others down: it becomes an answer that says why.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.bundle.runtime import Bundle
from modelwright.codec import Codec, Columns
from modelwright.errors import DataError, ModelwrightError


@dataclass(frozen=True)
class Answer:
    """What is said of one raw thing.

    Attributes:
        name: tells it from others: mostly the file's.
        raw: as the codec takes it.
        row: its prediction, one row; None where there is none.
        error: why there is none, in one line.
    """

    name: str
    raw: Any = None
    row: Columns | None = None
    error: str = ""


def answers(bundle: Bundle, paths: Iterable[str], *, explain: bool = False) -> Iterator[Answer]:
    """What a bundle says of everything in some files, in their order.

    Args:
        paths: files, folders (searched for files of the codec's endings) and patterns (``pictures/*.png``).
        explain: say why, too.

    Raises:
        BundleError: it cannot explain.
    """
    if explain:
        _ = bundle.explainer
    waiting: list[Answer] = []
    for each in _things(bundle.codec, paths):
        waiting.append(each)
        if len(waiting) == bundle.codec.batch_size:
            yield from _answered(bundle, waiting, explain=explain)
            waiting = []
    yield from _answered(bundle, waiting, explain=explain)


def _things(codec: Codec, paths: Iterable[str]) -> Iterator[Answer]:
    """The raw things in the files, not answered yet."""
    for path, problem in _files(paths, codec.suffixes):
        if problem:
            yield Answer(path, error=problem)
            continue
        try:
            for name, raw in codec.read(Path(path)):
                yield Answer(name, raw)
        except ModelwrightError as error:
            yield Answer(path, error=str(error))


def _files(paths: Iterable[str], suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each file with nothing, or a path with what is wrong with it."""
    for path in paths:
        found = [path]
        if glob.has_magic(path) and not Path(path).exists():
            found = sorted(glob.glob(path, recursive=True))
            if not found:
                yield path, f"no file is called like {path}: put the pattern in quotes, or check the folder"
        for each in found:
            if not Path(each).exists():
                yield each, f"there is no file {each}: check the path"
            elif Path(each).is_dir():
                inside = _inside(Path(each), suffixes)
                yield from ((file, "") for file in inside)
                if not inside:
                    yield each, f"{each} holds no file that ends in {', '.join(suffixes) or 'anything'}: name the files"
            else:
                yield each, ""


def _inside(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Files in a folder and in those below it, by name; hidden ones are left out."""
    return sorted(
        str(path)
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (not suffixes or path.name.lower().endswith(tuple(suffixes)))
    )


def _answered(bundle: Bundle, waiting: Sequence[Answer], *, explain: bool) -> Iterator[Answer]:
    """The same with predictions; a batch that fails is halved until it is known which of them it was."""
    good = [each for each in waiting if not each.error]
    try:
        raws = [each.raw for each in good]
        table = bundle.columns(raws, batch=max(len(good), 1), explain=explain) if good else Columns({})
        rows = iter([table.select([row]) for row in range(table.rows)])
    except DataError as error:
        if len(waiting) == 1:
            yield Answer(waiting[0].name, error=str(error))
        else:
            half = len(waiting) // 2
            yield from _answered(bundle, waiting[:half], explain=explain)
            yield from _answered(bundle, waiting[half:], explain=explain)
        return
    for each in waiting:
        yield each if each.error else Answer(each.name, each.raw, next(rows))
