"""A run in one sentence, one table and one line: a comment on a pull request, or the summary of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from xentbench.report.picks import spread
from xentbench.report.reasons import unanswered_as_code
from xentbench.report.standing import DECLARED, WRONG, Entry, Standing, answer, standings
from xentbench.report.text import SIGNS, code_span, plain
from xentbench.report.view import View
from xentbench.spec import counted

if TYPE_CHECKING:
    from xentbench.report.view import RunLike

ROWS: Final = 15
"""Implementations that are shown at most."""
COLUMNS: Final = 4
"""Problems that are shown at most."""
LONGEST: Final = 60
"""Characters of a name, or of all labels of one: with the two above all fits into half of a comment on GitHub."""
FACTS: Final = ("torch", "python", "xentbench")


@dataclass(frozen=True, slots=True)
class _Cut:
    """What is shown of a run.

    Attributes:
        stands: implementations: wrong ones first, then by their speed on the largest problem shown.
        problems: keys, in plan order.
        left_out: what is not, in a sentence; empty where all is.
    """

    stands: tuple[Standing, ...]
    problems: tuple[str, ...]
    left_out: str


def compact(run: RunLike | View) -> str:
    """Return `summary.md`: Markdown that fits a comment (65 536 characters) whatever the run; what is cut is told.

    Every word of a stranger is in a code span, where no link, mention, image or tag is alive.
    """
    view = View.of(run)
    stands = standings(view)
    parts = ["**Cross-entropy in PyTorch.** " + inert_answer(view, stands, LONGEST)]
    if stands:
        cut = _cut(view, stands)
        parts += [_lead(view), _table(view, cut), cut.left_out, *unanswered_as_code(view)]
    return "\n\n".join(filter(None, [*parts, _foot(view)])) + "\n"


def inert_answer(view: View, stands: tuple[Standing, ...], longest: int = 0) -> str:
    """Return the answer with every name in it as code, cut to `longest` characters (0: whole)."""
    text = answer(view, stands)
    # The sentence is ours, the names in it are not: each becomes code, longest first lest one be part of another.
    names = sorted({name for name in [*view.implementations, *view.problems["name"]] if name in text}, key=len)
    marks = {name: f"\N{START OF HEADING}{place}\N{END OF TEXT}" for place, name in enumerate(reversed(names))}
    for name, mark in marks.items():
        text = text.replace(name, mark)
    for name, mark in marks.items():
        text = text.replace(mark, code_span(plain(name, longest)))
    return text


def _cut(view: View, stands: tuple[Standing, ...]) -> _Cut:
    problems = tuple(map(str, spread(view.problems, COLUMNS).index))
    largest = max(problems, key=lambda key: (view.problems["elements"][key], problems.index(key)), default="")
    ranked = sorted(stands, key=lambda stand: _rank(stand, largest))
    shown, rest = tuple(ranked[:ROWS]), ranked[ROWS:]
    told = []
    if rest:
        wrong = sum(bool(stand.count(WRONG)) for stand in rest)
        of_them = f", {wrong} of them wrong or failing somewhere" if wrong else ""
        told.append(f"{len(rest)} of {counted(len(stands), 'implementation')}{of_them}")
    if len(problems) < len(view.problems):
        told.append(f"{len(view.problems) - len(problems)} of {len(view.problems)} problems")
    left_out = f"Not shown: {' and '.join(told)}; `report.md` and `report.html` have all." if told else ""
    return _Cut(shown, problems, left_out)


def _rank(stand: Standing, problem: str) -> tuple[bool, bool, float]:
    speedup = stand.entries.get(problem, Entry("")).speedup
    timed = bool(np.isfinite(speedup))
    return not stand.count(WRONG), not timed, -speedup if timed else 0.0


def _lead(view: View) -> str:
    if not view.headline:
        return ""
    signs = "▲ faster, ▼ slower, = same, ? inconclusive"
    return f"Speed-up over `F.cross_entropy` with confidence interval, {code_span(view.headline)}: {signs}."


def _table(view: View, cut: _Cut) -> str:
    heads = ["implementation", "grade", "right", *(_span(view.problems["name"][key]) for key in cut.problems)]
    heads += ["peak / minimum", "labels"]
    rules = [":--", ":-:", ":-:", *["--:"] * len(cut.problems), "--:", ":--"]
    rows = [
        [
            *(_span(stand.name), stand.grade, stand.right),
            *(entry(stand.entries[key]) for key in cut.problems),
            *(stand.memory, _span(", ".join(stand.labels))),
        ]
        for stand in cut.stands
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rules, *rows])


def entry(told: Entry) -> str:
    """Return a cell of a table: sign, speed-up and interval, or the word for why there is none."""
    if told.verdict:
        text = f"{SIGNS.get(told.verdict, '?')} {told.text}"
        return f"{f'**{text}**' if told.verdict == 'faster' else text} {told.interval}".rstrip()
    return _span(told.text) + (" (declared)" if told.kind == DECLARED else "")


def _foot(view: View) -> str:
    device = view.fact("device_model") or view.fact("cpu")
    facts = [f"run {_span(view.id)}", *([_span(device)] if device else [])]
    facts += [f"{name} {_span(view.fact(name))}" for name in FACTS if view.fact(name)]
    facts += _some(len(view.lines("warnings")), "warning") + _some(len(view.damage), "damaged line")
    return f"<sub>{' · '.join(facts)}</sub>"


def _some(count: int, noun: str) -> list[str]:
    return [counted(count, noun)] if count else []


def _span(value: object) -> str:
    return code_span(plain(value, LONGEST))
