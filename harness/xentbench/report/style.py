"""How every figure looks: one look a name, ink that a page can recolour, a foot that says where numbers come from."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from xentbench.report.hints import Sheet
from xentbench.report.text import REPLACEMENT, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xentbench.report.view import View

INK: Final = "#1f2328"
"""Text and axes. The page replaces exactly this colour, `RULE` and `PAPER` by its own, for light and for dark."""
RULE: Final = "#d5d9de"
PAPER: Final = "#ffffff"

# Okabe and Ito's palette for colour-blind readers (jfly.uni-koeln.de/color); its yellow and black, which vanish on
# white or on black, are replaced by violet and grey.
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7a5cc7", "#8a8a8a")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "d", "*", "8", "H")
LINES: Final = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
"""Eight colours, fifteen markers and four lines: no two of the first 120 names look alike."""

FONT: Final = "DejaVu Sans"
MIN_WIDTH: Final = 10.5
"""Inches that the longest subtitle takes."""
LIMIT: Final = 34
"""Longest name in a figure, in characters."""
SETTINGS: Final[dict[Any, Any]] = {
    "font.family": [FONT],
    "font.size": 9.0,
    # A name such as `$x$` is a name, not a formula; a bad one would even raise while drawing.
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    # Paths rather than text: the figure looks the same where this font is not installed.
    "svg.fonttype": "path",
    # Identifiers in the file follow from this instead of from the clock: equal runs give equal bytes.
    "svg.hashsalt": "xentbench",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one implementation is drawn, everywhere.

    Attributes:
        colour: `#rrggbb`.
        marker: matplotlib's name of it.
        line: matplotlib's line style.
    """

    colour: str
    marker: str
    line: Any


def looks(view: View) -> dict[str, Look]:
    """Return the look of each implementation, by its place in the run."""
    colours, markers, lines = len(COLOURS), len(MARKERS), len(LINES)
    return {
        name: Look(COLOURS[n % colours], MARKERS[n % markers], LINES[n // colours % lines])
        for n, name in enumerate(view.implementations)
    }


@contextmanager
def settings() -> Iterator[None]:
    """Draw with this project's settings, whatever a user's `matplotlibrc` says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        yield


@cache
def _drawable() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont(FONT)).get_charmap())


def drawn(value: object, limit: int = LIMIT) -> str:
    """Return `value` on one line of at most `limit` characters, all of which the font has."""
    text = "".join(char if ord(char) in _drawable() else REPLACEMENT for char in plain(value, limit))
    # Matplotlib leaves a label out of the legend when it begins with an underscore.
    return f" {text}" if text.startswith("_") else text


def sheet(view: View, size: tuple[float, float], title: str, subtitle: str = "") -> Sheet:
    """Return an empty figure of `size` inches with title, subtitle and the foot that every figure has."""
    figure = Sheet(figsize=size)
    wide, high = size
    top, bottom = 0.62 if subtitle else 0.4, 0.32
    room = (0.1 / wide, bottom / high, 1 - 0.25 / wide, 1 - (top + bottom) / high)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=room, wspace=0.04, hspace=0.06))
    left = 0.12 / wide
    figure.text(left, 1 - 0.12 / high, drawn(title, 120), fontsize=13, fontweight="bold", va="top")
    figure.text(left, 1 - 0.38 / high, drawn(subtitle, int(wide * 14)), fontsize=9, va="top")
    figure.text(left, 0.1 / high, drawn(foot(view), int(wide * 18)), fontsize=7, va="bottom", alpha=0.75)
    return figure


def foot(view: View) -> str:
    """Return run, device, processor, threads and versions, as far as they are known."""
    threads = view.fact("threads")
    device = view.fact("device") or ", ".join(dict.fromkeys(filter(None, view.problems["device"])))
    parts = [
        f"run {view.id}" if view.id else "",
        device,
        view.fact("cpu"),
        f"{threads} thread{'' if threads == '1' else 's'}" if threads else "",
        *(f"{name} {view.fact(name)}" for name in ("torch", "xentbench") if view.fact(name)),
    ]
    return "  ·  ".join(filter(None, parts))
