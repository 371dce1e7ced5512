"""Words that sentences for a person are put together from."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 problem`, `2 problems`, `0 problems`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
