"""How accurate each implementation is, by dtype: verdict, grade, largest error, checks, and what it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xentbench.report.standing import worst_grade
from xentbench.report.text import listing
from xentbench.report.view import is_wrong
from xentbench.spec import Status

if TYPE_CHECKING:
    import pandas as pd

    from xentbench.report.view import View


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What was found of one implementation in one dtype; what a declared deviation explains is left out of all numbers.

    Attributes:
        name: of the implementation.
        dtype: of the logits.
        verdict: `right`, `wrong`, `declared` (wrong only as declared), `refused` or `not asked`.
        grade: the worst.
        bound_ratio: largest error in units of the rounding-error bound, NaN where nothing was compared.
        error_ulp: largest error of the loss in units in the last place, NaN as above.
        checks: numbers of quantities compared.
        refused: reasons for problems that it refused, with how many.
    """

    name: str
    dtype: str
    verdict: str
    grade: str
    bound_ratio: float
    error_ulp: float
    checks: int
    refused: str


def accuracy(view: View) -> tuple[Accuracy, ...]:
    """Return a row for every implementation and dtype of the run, in plan order."""
    dtypes = [dtype for dtype in dict.fromkeys(view.problems["dtype"]) if dtype]
    return tuple(_row(view, name, dtype) for name in view.implementations for dtype in dtypes)


def _row(view: View, name: str, dtype: str) -> Accuracy:
    keys = view.problems.index[view.problems["dtype"] == dtype]
    verdicts = view.verdicts
    judged = verdicts[(verdicts["implementation"] == name) & verdicts["problem"].isin(keys)]
    answered = judged[judged["status"] != Status.UNSUPPORTED]
    honest = answered[answered["deviations"] == ""]
    refused = _refused(view, name, set(keys))
    return Accuracy(
        name=name,
        dtype=dtype,
        verdict=_verdict(answered, honest) or ("refused" if refused else "not asked"),
        grade=worst_grade(honest.to_dict("records")),
        bound_ratio=_largest(honest["bound_ratio"]),
        error_ulp=_largest(honest["error_ulp"]),
        checks=int(answered["checks"].fillna(0).sum()),
        refused=refused,
    )


def _verdict(answered: pd.DataFrame, honest: pd.DataFrame) -> str:
    if not len(answered):
        return ""
    if honest["status"].map(is_wrong).astype(bool).any():
        return "wrong"
    return "declared" if len(honest) < len(answered) else "right"


def _largest(numbers: pd.Series[Any]) -> float:
    known = numbers.dropna()
    return float(known.max()) if len(known) else float(np.nan)


def _refused(view: View, name: str, keys: set[str]) -> str:
    """Return the reasons for which problems were refused, commonest first, each with its number of problems."""
    cells = view.cells
    mine = cells[(cells["implementation"] == name) & cells["problem"].isin(keys)]
    refused = mine[mine["status"] == Status.UNSUPPORTED].drop_duplicates("problem")
    counted = Counter(refused["reason"]).most_common()
    return listing([f"{reason or 'no reason given'} ({count})" for reason, count in counted])
