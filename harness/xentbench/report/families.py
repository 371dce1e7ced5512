"""Errors by dtype and by family of logits: what each implementation loses where numbers are hard."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from xentbench.report.standing import DECLARED, RIGHT, WRONG, worst_grade
from xentbench.report.view import is_wrong
from xentbench.spec import Status

if TYPE_CHECKING:
    from xentbench.report.view import View

NOT_ASKED: Final = "not asked"
REFUSED: Final = "refused"
LARGE_ULP: Final = 1000.0
SHAPE: Final = re.compile(r"\([\d, ]+\)")


@dataclass(frozen=True, slots=True)
class Loss:
    """What one implementation loses in one dtype on one family of logits; the worst, where there are several problems.

    Attributes:
        verdict: `right`, `wrong`, `declared`, `refused` or `not asked`.
        grade: the worst.
        error_ulp: largest error of the loss in units in the last place, NaN where nothing was compared.
        bound_ratio: largest error of anything in units of the rounding-error bound, NaN as above.
        reason: why it was refused or is wrong.
    """

    verdict: str = NOT_ASKED
    grade: str = ""
    error_ulp: float = np.nan
    bound_ratio: float = np.nan
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """The table of them.

    Attributes:
        dtypes: in the order in which they were asked.
        families: as above.
        entries: (implementation, dtype, family) to what was found; what is not there was not asked.
        shapes: of the logits, where problems were asked for accuracy alone; else these are the problems of the run.
    """

    dtypes: tuple[str, ...]
    families: tuple[str, ...]
    entries: dict[tuple[str, str, str], Loss]
    shapes: tuple[str, ...]

    def at(self, name: str, dtype: str, family: str) -> Loss:
        """Return what was found there."""
        return self.entries.get((name, dtype, family), Loss())

    @property
    def is_answered(self) -> bool:
        """Whether anybody answered anything: a picture of refusals alone would show nothing."""
        return any(entry.verdict != REFUSED for entry in self.entries.values())

    @property
    def is_cancelling(self) -> bool:
        """Whether an error is large in ulp and within its bound all the same, as where the true loss is next to 0."""
        return any(entry.verdict == RIGHT and entry.error_ulp > LARGE_ULP for entry in self.entries.values())

    def refusals(self, name: str) -> str:
        """Return why an implementation refused, each reason once."""
        mine = [entry for (who, *_), entry in self.entries.items() if who == name and entry.verdict == REFUSED]
        return "; ".join(dict.fromkeys(entry.reason or "no reason given" for entry in mine))

    def asked(self, dtype: str) -> tuple[str, ...]:
        """Return the families that were asked in a dtype."""
        there = {key[2] for key in self.entries if key[1] == dtype}
        return tuple(family for family in self.families if family in there)


def losses(view: View) -> Losses:
    """Return the errors of problems that were asked for accuracy alone, or where there are none, of all others."""
    apart = len(view.accuracies) > 0
    verdicts = view.accuracies if apart else _of_problems(view)
    verdicts = verdicts[(verdicts["dtype"] != "") & (verdicts["logits"] != "")]
    rows: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    for row in verdicts.to_dict("records"):
        rows.setdefault((row["implementation"], row["dtype"], row["logits"].partition("@")[0]), []).append(row)
    shapes = (SHAPE.search(label) for label in verdicts["label"])
    return Losses(
        tuple(dict.fromkeys(verdicts["dtype"])),
        tuple(dict.fromkeys(key[2] for key in rows)),
        {key: _loss(group) for key, group in rows.items()},
        tuple(dict.fromkeys(shape[0] for shape in shapes if shape)) if apart else (),
    )


def _of_problems(view: View) -> pd.DataFrame:
    """Return the verdicts on the run's problems, and a row for each that was refused: of these there is no verdict."""
    refused = view.cells[view.cells["status"] == Status.UNSUPPORTED].drop_duplicates(["implementation", "problem"])
    verdicts = pd.concat([view.verdicts, refused.reindex(columns=view.verdicts.columns).assign(deviations="")])
    known = view.problems.reindex(verdicts["problem"])
    return verdicts.assign(dtype=known["dtype"].to_numpy(), logits=known["logits"].to_numpy())


def _loss(rows: list[dict[Any, Any]]) -> Loss:
    answered = [row for row in rows if row["status"] != Status.UNSUPPORTED]
    if not answered:
        return Loss(REFUSED, reason=rows[0]["reason"])
    honest = [row for row in answered if not row["deviations"]]
    wrong = any(is_wrong(row["status"]) for row in honest)
    return Loss(
        WRONG if wrong else DECLARED if len(honest) < len(answered) else RIGHT,
        worst_grade(honest),
        _largest([row["error_ulp"] for row in answered]),
        _largest([row["bound_ratio"] for row in answered]),
        next(filter(None, (row["reason"] for row in answered)), ""),
    )


def _largest(numbers: list[float]) -> float:
    return max((number for number in numbers if number >= 0), default=np.nan)
