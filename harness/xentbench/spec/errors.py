"""What a person is told: errors of usage and of environment, each one sentence."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong input from a person: one sentence that says what was expected, what came and what to try (exit code 2)."""


class AbsentError(UsageError):
    """What was named does not exist where it was looked for, though the place does: a function, a file in a revision.

    A worker tells of it by the name of this class.
    """


class EnvironmentMismatchError(RuntimeError):
    """Not the environment that was asked for (exit code 3)."""


def nearest(word: str, choices: Iterable[str], *, brief: bool = False) -> str:
    """Return `expected one of …` for an error message, led by the closest choice to `word` where one is close.

    A choice is close too where it begins much like the word. With `brief` the closest one stands alone where there is
    one.
    """
    known = list(choices)
    close = difflib.get_close_matches(word, [str(choice) for choice in known], n=1) or [
        str(choice) for choice in known if difflib.get_close_matches(word, [str(choice)[: len(word) + 1]], cutoff=0.8)
    ]
    hint = f"did you mean {close[0]!r}? " if close else ""
    if brief and close:
        return hint.rstrip()
    return f"{hint}expected one of: {', '.join(known)}"
