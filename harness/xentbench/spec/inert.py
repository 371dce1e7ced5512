"""Strangers' text made inert: one line of bounded length that no terminal acts upon."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
LONGEST: Final = 2000
"""Characters of one message."""
# ECMA-48: control sequences (colours, cursor), and strings (titles, links) up to their end.
_SEQUENCES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]", re.DOTALL)


def inert(text: str, longest: int = LONGEST) -> str:
    """Return text on one line, without escape sequences and without characters that a terminal or font acts upon.

    Args:
        text: anything, surrogates included.
        longest: most characters of the result; of longer text the beginning is returned.
    """
    shown = (_shown(char) for char in _SEQUENCES.sub(" ", text[: 4 * longest]))
    return " ".join("".join(shown).split())[:longest]


def _shown(char: str) -> str:
    # Categories C* hold control, bidirectional-override, surrogate and unassigned characters; Z* every kind of space.
    kind = unicodedata.category(char)[0]
    return " " if kind == "Z" or char in "\t\n\r\f\v" else REPLACEMENT if kind == "C" else char
