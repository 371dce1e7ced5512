"""Why cells have no answer: what is wrong, inconclusive, skipped, or of somebody who answers nothing, by reason."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from xentbench.report.text import code_span, plain
from xentbench.report.view import is_wrong
from xentbench.spec import Comparison, Status, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from xentbench.report.view import View

KINDS: Final = 4
"""Of reasons that are told, the most frequent first."""
LONGEST: Final = 120
"""Characters of a reason."""
_MORE_TIME: Final = ("rounds", "half-width")
"""Kinds of reasons that go away where a cell is measured for longer."""


def unanswered(view: View, mark: Callable[[str], str] = plain) -> list[str]:
    """Return a line on each that is wrong, one on the inconclusive cells and one on the skipped, where there are such.

    And one on whoever offers nothing of what was asked: a package or a compiler may be missing, and the reason tells.

    Args:
        view: the run.
        mark: what a reason is passed through, e.g. `code_span` for Markdown.
    """
    cells = view.cells
    timed = cells["status"] == Status.PASSED
    unsupported = cells["status"] == Status.UNSUPPORTED
    offers_nothing = unsupported.groupby(cells["implementation"]).transform("all").astype(bool)
    groups = {
        "inconclusive": cells.loc[timed & (cells["verdict"] == Comparison.INCONCLUSIVE), "reason"],
        "skipped": cells.loc[cells["status"] == Status.SKIPPED, "reason"],
        "unsupported": cells.loc[offers_nothing, "reason"],
    }
    lines = [
        _line(word, [plain(one, LONGEST) for one in reasons], mark) for word, reasons in groups.items() if any(reasons)
    ]
    return [*_wrong(view, mark), *lines]


def unanswered_as_code(view: View) -> list[str]:
    """Return the same for Markdown: every reason is in a code span."""
    return unanswered(view, code_span)


def _wrong(view: View, mark: Callable[[str], str]) -> list[str]:
    """Return what is wrong of each implementation, its first reason told; a declared deviation is not."""
    own = ["implementation", "problem"]
    declared = set(view.verdicts.loc[view.verdicts["deviations"].map(bool), own].itertuples(index=False, name=None))
    first: dict[str, dict[Hashable, Any]] = {}
    for one in view.cells[view.cells["status"].map(is_wrong)].to_dict("records"):
        if (one["implementation"], one["problem"]) not in declared:
            first.setdefault(one["implementation"], one)
    lines = [
        f"{mark(plain(one['implementation']))} is {mark(plain(one['status']))} at {mark(plain(one['label']))}: "
        f"{mark(plain(one['reason'], LONGEST)) or 'no reason told'}"
        for one in list(first.values())[:KINDS]
    ]
    return lines + ([f"and {counted(len(first) - KINDS, 'other')} wrong"] if len(first) > KINDS else [])


def _line(word: str, reasons: list[str], mark: Callable[[str], str]) -> str:
    first: dict[str, str] = {}
    for reason in reasons:
        first.setdefault(_kind(reason), reason)
    counts = Counter(map(_kind, reasons))
    told = [f"{mark(first[kind]) or 'no reason told'} ({count})" for kind, count in counts.most_common(KINDS)]
    told += [f"and {counted(len(counts) - KINDS, 'other reason')}"] if len(counts) > KINDS else []
    is_alone = any("(one worker never" in reason for reason in reasons)
    more = "more workers decides (--workers 3)" if is_alone else "more time decides (--budget)"
    advice = f": a new run with {more}" if any(kind in _MORE_TIME for kind in counts) else ""
    return f"{counted(len(reasons), 'cell')} {word}: {'; '.join(told)}{advice}"


def _kind(reason: str) -> str:
    """Return the text before the first colon or number: of reasons of a kind, only what follows differs."""
    return re.split(r":|\d", reason, maxsplit=1)[0].strip()
