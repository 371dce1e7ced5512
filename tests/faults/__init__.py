"""Losses with one fault each, of the kind that spoils a naive run, and the status in which each has to end.

Themes are plugin files of several faults that show when the loss is called. What fails while its module is imported
has a file of its own, which `importing` holds as text.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

from faults.fault import Fault
from faults.importing import IMPORTING

THEMES: Final = (
    *("crashes", "exits", "hangs", "kin", "kinds", "memory", "pipes", "prints", "raises", "surroundings", "values"),
)
FOLDER: Final = Path(__file__).parent


def called() -> dict[str, Fault]:
    """Return the faults that show in a call, by name, each with the theme that it is in."""
    return {fault.name: fault for theme in THEMES for fault in import_module(f"faults.{theme}").FAULTS.listed}


__all__ = ["FOLDER", "IMPORTING", "THEMES", "Fault", "called"]
