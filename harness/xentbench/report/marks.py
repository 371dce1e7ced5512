"""The mark of each implementation beside its name in tables: the figures' colours and shapes, as rules of style."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from xentbench.report.style import looks

if TYPE_CHECKING:
    from xentbench.report.view import View


def classes(view: View) -> dict[str, str]:
    """Return the class that a cell with an implementation's name has."""
    return {name: f"i{place}" for place, name in enumerate(view.implementations)}


def css(view: View) -> str:
    """Return a rule a class: its mark before the name, in its colour and shape."""
    named = classes(view)
    return "\n".join(
        f".{named[name]}::before {{ background: {look.colour}; clip-path: polygon({polygon(look.marker)}); }}"
        for name, look in looks(view).items()
    )


def polygon(marker: str) -> str:
    """Return the corners of one of matplotlib's filled markers within its box, as CSS writes them."""
    style = MarkerStyle(marker)
    # A curve becomes straight pieces at the scale that it is asked for: a tenth of a mark is smooth enough.
    shape = Affine2D(style.get_transform().get_matrix()).scale(10)
    corners = np.asarray(style.get_path().transformed(shape).to_polygons()[0], float)
    low, high = corners.min(axis=0), corners.max(axis=0)
    share = (corners - (low + high) / 2) / (high - low).max() + 0.5
    return ", ".join(f"{100 * x:.0f}% {100 * (1 - y):.0f}%" for x, y in share)
