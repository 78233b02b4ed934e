"""The README's example is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

README = Path(__file__).parents[3] / "README.md"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 5 - 1
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(README), "exec"), {})
    assert re.match(r"0\.9\d\d \(0\.9\d\d to \d\.\d{3}\), see runs/digits/report\.html", capsys.readouterr().out)
    assert (tmp_path / "runs" / "digits" / "report.html").is_file()
