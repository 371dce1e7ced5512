"""Figures within the page: SVG elements that share it, in its own colours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xentbench.report.style import INK, PAPER, RULE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xentbench.report.view import View

INHERITED: Final = {INK: "currentColor", PAPER: "var(--paper)", RULE: "var(--rule)"}
"""Colours of a figure that follow the page's light or dark scheme."""


_GLYPHS: Final = re.compile(r"<defs>\s*((?:<path id=\"[A-Za-z]+-[0-9a-f]+\"[^>]*/>\s*)+)</defs>")
_REFERENCE: Final = re.compile(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)')


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure within the page.

    Attributes:
        phase: whose numbers it shows, empty where it stands for all.
        svg: the element.
        first: whether it is shown at once.
    """

    phase: str
    svg: str
    first: bool


def inlined(view: View, vectors: Mapping[str, str]) -> tuple[str, dict[str, list[Drawn]]]:
    """Return an element with the letters that all figures share, and the figures of each section.

    Those of the headline phase, and those that stand for all phases, are shown at once.
    """
    letters: dict[str, str] = {}
    found: dict[str, list[Drawn]] = {"summary": []}
    for place, (name, vector) in enumerate(vectors.items()):
        section, _, phase = name.partition("-")
        words = phase.removesuffix("-classes")
        element = inline(vector, f"f{place}", f"{section} {phase}".strip(), letters)
        found.setdefault(section, []).append(Drawn(words, element, not words or words == view.headline))
    shared = "".join(letters[name] for name in sorted(letters))
    return f'<svg class="letters" aria-hidden="true"><defs>{shared}</defs></svg>', found


def inline(vector: str, prefix: str, label: str, letters: dict[str, str]) -> str:
    """Return an SVG file's element for use within HTML.

    Letters go into `letters`, by their identifiers, once for all figures; other identifiers that are referred to get
    `prefix`, and what nobody refers to goes. Styles that repeat become rules. Ink, paper and rules take the page's
    colours; comments, which repeat strangers' text, go.
    """
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", vector, flags=re.DOTALL)
    for colour, inherited in INHERITED.items():
        body = body.replace(colour, inherited)
    body = _GLYPHS.sub(lambda found: _kept(found[1], letters), body)
    body = _renamed(body, prefix, letters)
    body, rules = _styled(re.sub(r"\s*\n\s*", "\n", body), prefix)
    name = re.sub(r"[^\w+ -]", "", label)
    width = re.search(r'\bwidth="([\d.]+)pt"', body)
    style = f' style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    opening = re.compile(r'<svg\b[^>]*?(viewBox="[^"]+")[^>]*>')
    return opening.sub(
        lambda found: f'<svg {found[1]} role="img" aria-label="{name}"{style}><style>{rules}</style>',
        body.strip(),
        count=1,
    )


def _kept(paths: str, letters: dict[str, str]) -> str:
    for path in re.findall(r"<path [^>]*/>", paths):
        letters[path.partition('id="')[2].partition('"')[0]] = re.sub(r"\s*\n\s*", " ", path)
    return ""


def _renamed(body: str, prefix: str, letters: dict[str, str]) -> str:
    """Return the figure with short identifiers of its own, and without those that nothing refers to."""
    wanted = dict.fromkeys(one or other for one, other in _REFERENCE.findall(body))
    names = {name: name if name in letters else f"{prefix}-{place}" for place, name in enumerate(wanted)}
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", body)
    body = re.sub(r'xlink:href="#([^"]+)"', lambda found: f'href="#{names[found[1]]}"', body)
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{names[found[1]]})", body)


def _styled(body: str, prefix: str) -> tuple[str, str]:
    """Return the figure with a class for each style, and the rules of these classes."""
    styles: dict[str, str] = {}

    def classed(found: re.Match[str]) -> str:
        return f' class="{styles.setdefault(found[1], f"{prefix}s{len(styles)}")}"'

    body = re.sub(r' style="([^"]*)"', classed, body)
    return body, "".join(f".{name}{{{style}}}" for style, name in styles.items())
