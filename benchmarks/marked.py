"""Text of a documentation page that a script writes: it stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def insert(page: Path, name: str, text: str) -> None:
    """Replace what stands between the two marks of a page.

    Raises:
        ValueError: a mark is missing.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, opened, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        msg = f"{page} must hold {begin!r} and {end!r} in this order, got neither or one of them"
        raise ValueError(msg)
    write_atomically(page, f"{before}{begin}\n{text}\n{end}{after}")
