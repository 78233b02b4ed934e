"""docs/writing-a-plugin.md works as it is printed: its blocks are written to files, built, installed and used."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.authors.blocks import Block, blocks_of
from tests.third_party.outside import Outside

from modelwright.testing.kit import all_checks

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = blocks_of(DOCS / "writing-a-plugin.md")
ELSEWHERE = ("pip", "pytest")
"""Commands that are no `modelwright ...`: installing is done by hand here, pytest by its module."""


def files() -> dict[str, str]:
    """The files of the project, each put together from its blocks."""
    found: dict[str, str] = {}
    for block in GUIDE:
        if match := re.match(r"# (\S+\.(?:py|toml|yaml))(, going on)?$", block.lines[0]):
            name, going_on = match.groups()
            assert (name in found) == bool(going_on), f"{name} is printed twice, or goes on before it began"
            code = "\n".join(block.lines[1:]) if going_on else block.text
            found[name] = f"{found[name]}\n{code}\n" if going_on else f"{code}\n"
    return found


def commands() -> list[list[str]]:
    """What the reader is told to type, in order."""
    return [shlex.split(line[2:]) for block in GUIDE if block.kind == "console" for line in block.lines]


class Reader:
    """Somebody who follows the guide. `project`: the files as printed; `outside`: the project, installed."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "modelwright-language"
        for name, text in files().items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text, encoding="utf-8")
        self.outside = Outside(folder / "site")
        self.outside.build_and_install(self.project)
        # What is imported is what was packed: recipes and entry point included.
        shutil.rmtree(self.project / "modelwright_language")

    def types(self, *command: str) -> str:
        """Runs a command in the project's folder; what it says on stdout."""
        tool, *arguments = command
        done = self.outside.python("-m", tool, *arguments, cwd=self.project)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_every_block_is_a_file_a_command_or_a_picture():
    plain = [block for block in GUIDE if not block.kind]
    named = [block for block in GUIDE if re.match(r"# \S+\.(py|toml|yaml)", block.lines[0])]
    typed = [block for block in GUIDE if block.kind == "console"]
    assert len(plain) + len(named) + len(typed) == len(GUIDE)
    assert all(line.startswith("$ ") for block in typed for line in block.lines)
    assert {command[0] for command in commands()} == {"modelwright", *ELSEWHERE}


def test_the_files_are_those_that_the_guide_lists():
    (listed,) = [block.text for block in GUIDE if not block.kind and "modelwright-language/" in block.text]
    assert {Path(name).name for name in files()} - {"quick.yaml", "kit.yaml"} <= set(re.findall(r"[\w.]+\.\w+", listed))


def test_the_example_is_as_short_as_promised():
    promised = re.search(r"about (\d+)\s+lines of Python", (DOCS / "writing-a-plugin.md").read_text(encoding="utf-8"))
    assert promised is not None
    code = [text for name, text in files().items() if name.startswith("modelwright_") and name.endswith(".py")]
    written = sum(bool(line.strip()) for text in code for line in text.splitlines())
    assert written <= 1.05 * int(promised[1]), f"{written} lines"


def test_what_the_reader_types_works_and_the_task_is_learned(reader: Reader):
    said = {}
    for command in commands():
        if command[0] == "modelwright" and command[1] != "check":  # the checks run below
            said[command[1]] = reader.types(*command)
    assert "text-language" in said["tasks"]
    assert "modelwright-language 0.1.0" in said["tasks"]
    assert "# Numbers per byte." in said["config"]
    assert said["train"].splitlines()[-1].endswith("runs/first")
    found = json.loads(said["evaluate"])
    assert found["metrics"]["accuracy"]["value"] > 0.9
    assert "accuracy/german" in found["metrics"]
    assert (reader.project / "runs" / "first" / "report.html").is_file()


def test_every_check_is_a_test_of_the_reader(reader: Reader):
    (command,) = [command for command in commands() if command[0] == "pytest"]
    listed = reader.types(*command, "-q", "-p", "no:cacheprovider", "--collect-only")
    assert {check for check in all_checks() if f"[{check}]" in listed} == set(all_checks())
    # That they pass is seen below, where the command runs them; here, that pytest tells what came of them.
    said = reader.types(*command, "-q", "-p", "no:cacheprovider", "-k", "nothing_to_find or loss_is_finite")
    assert re.search(r"1 passed, 1 skipped, \d+ deselected", said)


def test_the_command_that_checks_passes(reader: Reader):
    (command,) = [command for command in commands() if command[:2] == ["modelwright", "check"]]
    assert "resume_is_exact" in reader.types(*command)


def test_a_misspelt_setting_is_answered_as_the_guide_says(reader: Reader):
    (misspelt,) = [word for word in (DOCS / "writing-a-plugin.md").read_text().split() if "epoch=3" in word]
    assert "'epochs'" in reader.outside.error_of("train", "text-language", misspelt.strip("`"))


def test_a_link_leads_somewhere():
    for page in (DOCS / "writing-a-plugin.md", DOCS / "how-do-i.md"):
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            text = (DOCS / file if file else page).read_text(encoding="utf-8")
            headings = [
                re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^#+ (.*)", text, re.M)
            ]
            assert not anchor or anchor in headings, target


def test_a_block_knows_its_heading_and_its_kind(tmp_path: Path):
    (tmp_path / "page.md").write_text("# Title\n\n```python\nx = 1\n```\n\n## Part\n\n```\nplain\n```\n")
    assert blocks_of(tmp_path / "page.md") == [Block("Title", "python", "x = 1"), Block("Part", "", "plain")]
