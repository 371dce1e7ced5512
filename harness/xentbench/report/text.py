"""Text for people: numbers with units, and strangers' words made inert."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
SIGNS: Final = {"faster": "▲", "slower": "▼", "same": "=", "inconclusive": "?"}
"""How a verdict is marked beside its colour, so that nobody needs the colour."""
ASCII_SIGNS: Final = {"faster": "+", "slower": "-", "same": "=", "inconclusive": "?"}
"""The same for terminals and logs that know no other characters."""

_PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_FORMULA_STARTS: Final = ("=", "+", "-", "@")


def plain(value: object, limit: int = 0) -> str:
    """Return `value` on one line, with no character that a terminal, browser or font would act upon.

    Args:
        value: anything; None and NaN give an empty string.
        limit: longest text, in characters, beyond which it ends in an ellipsis; 0 for no limit.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    line = " ".join(inert(value).split())
    return f"{line[: limit - 1]}…" if 0 < limit < len(line) else line


def inert(value: object) -> str:
    """Return text with the same spacing, in which no character is left that anything would act upon.

    Every kind of space becomes a plain one, line breaks among them.
    """
    # Categories C* hold control, bidirectional-override, surrogate and unassigned characters; Z* every kind of space.
    kinds = ((char, unicodedata.category(char)) for char in str(value))
    return "".join(
        " " if kind[0] == "Z" or char in "\t\n\r" else REPLACEMENT if kind[0] == "C" else char for char, kind in kinds
    )


def unbroken(name: str) -> str:
    """Return a problem's name that a line may break around its shape, not within."""
    return re.sub(r"\([\d, ]+\)", lambda shape: shape[0].replace(" ", "\N{NO-BREAK SPACE}"), name)


def csv_cell(value: object) -> str:
    """Return `value` such that a spreadsheet takes it for text: a leading formula sign gets an apostrophe before it."""
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def code_span(value: object) -> str:
    """Return `value` as Markdown code, in which no link, mention, tag or emphasis is alive; fit for table cells.

    A vertical bar becomes a broken bar, because the ways to escape it within a table differ between renderers.
    """
    text = plain(value).replace("|", "¦")
    if not text:
        return ""
    fence = "`" * (_longest_run(text, "`") + 1)
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def code_block(value: object, language: str = "") -> str:
    """Return `value` as a fenced Markdown block that its own text cannot close."""
    text = plain(value)
    fence = "`" * max(3, _longest_run(text, "`") + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str, char: str) -> int:
    longest = current = 0
    for other in text:
        current = current + 1 if other == char else 0
        longest = max(longest, current)
    return longest


def quantity(value: float | None, unit: str, *, digits: int = 3) -> str:
    """Return `value` with an SI prefix, e.g. `quantity(4.2e-06, "s") == "4.20 µs"`; empty for NaN and None."""
    if value is None or not math.isfinite(value):
        return ""
    if value == 0:
        return f"0 {unit}".strip()
    size = abs(value)
    # Compared after rounding, so that 999.7 ms reads 1.00 s rather than 1000 ms.
    fits = (pair for pair in _PREFIXES if float(f"{size / pair[0]:.{digits}g}") >= 1)
    factor, prefix = next(fits, _PREFIXES[-1])
    scaled = value / factor
    decimals = max(0, digits - 1 - max(0, math.floor(math.log10(float(f"{abs(scaled):.{digits}g}")))))
    return f"{scaled:.{decimals}f} {prefix}{unit}".rstrip()


def seconds(value: float | None) -> str:
    """Return a time with its unit, e.g. `4.20 µs`."""
    return quantity(value, "s")


def count_bytes(value: float | None) -> str:
    """Return a size with its unit in powers of 1000, e.g. `4.10 MB`."""
    if value is not None and 0 < value < 1000:  # noqa: PLR2004 - below the first prefix there is no fraction of a byte
        return f"{value:.0f} B"
    return quantity(value, "B")


def times(value: float | None) -> str:
    """Return a factor, e.g. `1.32x`: about three digits, never more than three decimals; empty for NaN and None."""
    if value is None or not math.isfinite(value):
        return ""
    decimals = next((d for bound, d in ((99.95, 0), (9.995, 1), (0.0995, 2)) if abs(value) >= bound), 3)
    return f"{value:.{decimals}f}x"


def factor_or_bytes(ratio: float | None, peak_bytes: float | None) -> str:
    """Return memory as a factor of the least possible, or in bytes where no factor of it would mean anything."""
    return times(ratio) or count_bytes(peak_bytes)


def percent(value: float | None) -> str:
    """Return a share, e.g. `34 %`, with one decimal below 10 %; empty for NaN and None."""
    if value is None or not math.isfinite(value):
        return ""
    if 0 < value < 0.0005:  # noqa: PLR2004 - reads as nothing when rounded
        return "<0.1 %"
    return f"{100 * value:.{0 if value >= 0.0995 else 1}f} %"  # noqa: PLR2004 - as it reads when rounded


def digits(value: float | None) -> str:
    """Return a bare number to two significant digits, e.g. `0.27`, `370`, `5e+07`; empty for NaN and None."""
    if value is None or not math.isfinite(value):
        return ""
    short = float(f"{value:.2g}")
    return f"{short:.0f}" if 100 <= abs(short) < 1e6 else f"{value:.2g}"  # noqa: PLR2004 - as people write numbers


def interval(low: float | None, high: float | None) -> str:
    """Return `[1.28, 1.37]`, or an empty string where either end is missing."""
    ends = [times(end).removesuffix("x") for end in (low, high)]
    return f"[{ends[0]}, {ends[1]}]" if all(ends) else ""


def listing(words: list[str], limit: int = 4) -> str:
    """Return `a, b and c`, or `a, b, c and 5 more` where there are more than `limit` words."""
    if len(words) > limit:
        return f"{', '.join(words[: limit - 1])} and {len(words) - limit + 1} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def tick(value: float, unit: str) -> str:
    """Return an axis label, e.g. `50 µs`: as `quantity`, without digits that say nothing."""
    number, _, name = quantity(value, unit).partition(" ")
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{short} {name}".rstrip()
