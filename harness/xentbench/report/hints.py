"""What a mark of a figure says when it is pointed at: SVG titles, put in after the figure is drawn."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from matplotlib.figure import Figure

from xentbench.report.text import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist

PREFIX: Final = "hint"
LIMIT: Final = 200
"""Longest hint, in characters."""
_NUMBER: Final = re.compile(r"-?\d+\.\d{3,}")
_PLACES: Final = re.compile(r'( d="|translate\(| [xy]=")([^")]*)')


class Sheet(Figure):
    """A figure whose marks may have hints.

    Attributes:
        hints: texts of the marks of one artist each, by the identifier that the artist has in the file.
    """

    def __init__(self, figsize: tuple[float, float]) -> None:
        """Take the size in inches."""
        super().__init__(figsize=figsize)
        self.hints: dict[str, tuple[str, ...]] = {}

    def hint(self, artist: Artist, texts: Sequence[str]) -> None:
        """Give the marks of `artist`, in the order in which they are drawn, a text each."""
        name = f"{PREFIX}{len(self.hints)}"
        artist.set_gid(name)
        self.hints[name] = tuple(plain(text, LIMIT) for text in texts)


def hinted(vector: str, figure: Figure) -> str:
    """Return an SVG file with the figure's hints as titles of its marks.

    An artist that was drawn with fewer or more marks than it has texts gets none: a wrong hint is worse.
    """
    hints = figure.hints if isinstance(figure, Sheet) else {}
    for name, texts in hints.items():
        head, start, rest = vector.partition(f'<g id="{name}">')
        body, end, tail = rest.partition('<g id="')
        vector = head + start + _titled(body, texts) + end + tail
    return vector


def _titled(body: str, texts: tuple[str, ...]) -> str:
    titles = [f"<title>{escape(text)}</title>" for text in texts]
    marks = list(re.finditer(r"(<use [^>]*)/>", body))
    if not marks and len(titles) == 1:
        return titles[0] + body
    if len(marks) != len(titles):
        return body
    left = iter(titles)
    return re.sub(r"(<use [^>]*)/>", lambda found: f"{found[1]}>{next(left)}</use>", body)


def rounded(vector: str) -> str:
    """Return an SVG file whose places have two decimals: a hundredth of a point, which nobody sees."""
    return _PLACES.sub(lambda part: part[1] + _NUMBER.sub(_short, part[2]), vector)


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
