"""What an experiment found: numbers for machines, Markdown and plots for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Outcome:
    """One experiment's numbers.

    `report` is what its JSON file holds, `text` are its tables in Markdown, `figures` its plots by file name (without
    a suffix), which nothing draws before they are saved.
    """

    report: Mapping[str, Any]
    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def save_figures(self, folder: Path) -> list[Path]:
        """Write every plot as PNG into a folder, which is made where it is missing; the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.png" for name in self.figures]
        for file, figure in zip(files, self.figures.values(), strict=True):
            figure.savefig(file, dpi=144, bbox_inches="tight")
        return files
