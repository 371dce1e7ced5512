"""Measure what the README shows, and replace its two figures: `python benchmarks/readme_figures.py` (15 minutes).

Conditions: whatever machine this runs on, quiet or not; the figures carry the run's id, processor and torch version.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
SHOWN = {"default": ("summary", "summary"), "small": ("latency-forward+backward", "latency")}


def main() -> None:
    """Run one bench a grid and keep the one figure of it that is shown."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for grid, (figure, shown) in SHOWN.items():
            told = Path(folder) / f"{grid}.json"
            command = ["xentbench", "bench", "--grid", grid, "--results", folder, "--json", str(told)]
            subprocess.run([*command, *sys.argv[1:]], check=True)  # noqa: S603 - our own command
            path = Path(json.loads(told.read_text(encoding="utf-8"))["path"])
            shutil.copy(path / "figures" / f"{figure}.png", FIGURES / f"{shown}.png")
            print(f"{grid}: {FIGURES / shown}.png")


if __name__ == "__main__":
    main()
