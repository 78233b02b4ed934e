"""The code blocks of a page of documentation. Knows Markdown's fences, nothing of what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A fenced block. `heading`: the one it stands under; `kind`: python, console, ... or nothing."""

    heading: str
    kind: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    found: list[Block] = []
    heading, kind, inside = "", "", None
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if inside is not None:
                found.append(Block(heading, kind, "\n".join(inside)))
            kind, inside = line.strip("`"), ([] if inside is None else None)
        elif inside is not None:
            inside.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return found
