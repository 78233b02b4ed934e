"""Distributions as pip leaves them: a module and its metadata in a folder of the import path."""

from __future__ import annotations

from pathlib import Path


def install(site: Path, name: str, code: str, *, version: str = "1.2", metadata: bool = True) -> None:
    """Puts the distribution modelwright-`name` into `site`: one module, named as its entry point."""
    module = f"modelwright_{name}"
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code, encoding="utf-8")
    about = site / f"{module}-{version}.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_text(f"[modelwright]\n{name} = {module}\n", encoding="utf-8")
    if metadata:
        said = f"Metadata-Version: 2.1\nName: modelwright-{name}\nVersion: {version}\n"
        (about / "METADATA").write_text(said, encoding="utf-8")
