"""Reports: a run's DataFrame becomes tables, figures and one HTML page. Nothing here measures or runs an entrant.

Everything that is printed may come from a stranger's plugin; it passes `xentbench.report.text.plain` first, and is
escaped again by the format that it goes into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.report.digest import compact
from xentbench.report.reasons import unanswered
from xentbench.report.regimes import reversals
from xentbench.report.screen import terminal
from xentbench.report.view import View

if TYPE_CHECKING:
    from pathlib import Path

    from xentbench.report.view import RunLike

__all__ = ["compact", "notes", "terminal", "write"]


def notes(run: RunLike) -> list[str]:
    """Return what a person must know besides the table: why cells have no answer; whose order the allocator decides."""
    view = View.of(run)
    return [*unanswered(view), *reversals(view)]


def write(run: RunLike, folder: Path) -> dict[str, Path]:
    """Write every form of the report into `folder`; see `xentbench.report.folder.write`."""
    from xentbench.report.folder import write as write_folder  # noqa: PLC0415 - tables alone need not pay for matplotlib

    return write_folder(run, folder)
