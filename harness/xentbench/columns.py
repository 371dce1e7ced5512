"""The columns of a run's tables: what each means, what kind of value it holds, and a frame with exactly these.

Units are in the names. Three kinds: text (the dtype that this pandas gives strings), whole numbers (`Int64`) and other
numbers (`float64`); lists and records stay as they came (`object`). What was not measured is missing: `isna()` tells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CELL_COLUMNS: Final[Mapping[str, str]] = {
    "implementation": "name of the entrant",
    "problem": "canonical key of the problem",
    "label": "the problem as people write it",
    "size_label": "shape of the logits, with the workload's name",
    "batch_size": "N; missing when unbatched",
    "num_classes": "C",
    "elements": "number of logits",
    "dtype": "dtype of the logits",
    "device": "where the tensors are",
    "logits": "family of logits, or the recorded workload",
    "reduction": "mean, sum or none",
    "phase": "forward-no-grad, forward, backward or forward+backward",
    "status": "how the cell ended",
    "reason": "what qualifies the status or an inconclusive comparison",
    "labels": "what is honest but must be known, comma-separated",
    "grade": "accuracy grade of this problem's answers",
    "ratio": "time over the baseline's, call by call in the same process",
    "ratio_low": "lower end of its interval",
    "ratio_high": "upper end of its interval",
    "clock": "which time decides and gives the ratio: wall, or cpu (calls of 1 ms and more, one thread)",
    "other_ratio": "the ratio by the other of the two (on a device: by its own events), where calls take 0.1 ms",
    "other_low": "lower end of its interval",
    "other_high": "upper end of it",
    "worker_log_ratios": "of every worker, the median of its bursts' medians of log(ratio); a list",
    "worker_quickest_log_ratios": "of every worker, log of its quickest call over the baseline's quickest; a list",
    "verdict": "faster, slower, same or inconclusive",
    "latency_s": "median time of a call, seconds",
    "latency_p05_s": "5th percentile",
    "latency_p95_s": "95th percentile",
    "baseline_latency_s": "median time of the baseline in the same workers",
    "empty_call_s": "median time of a call that does nothing, which every time here contains, seconds",
    "canary_low": "lower end of the interval of the baseline's twin over the baseline (must hold 1)",
    "canary_high": "upper end of it",
    "rounds": "rounds kept, over all workers",
    "workers": "processes that measured",
    "cpu_share": "CPU time over wall time of the timed calls",
    "minor_faults": "page faults of a typical call",
    "baseline_minor_faults": "the same of the baseline",
    "cold_ratio": "the ratio with the default allocator (--allocator both)",
    "cold_low": "lower end of its interval",
    "cold_high": "upper end of it",
    "cold_latency_s": "median time of a call with the default allocator, seconds",
    "cold_minor_faults": "page faults of a typical call with it",
    "cold_reason": "what qualifies the comparison with it",
    "peak_bytes": "peak extra memory of the phase, by torch's allocator",
    "saved_bytes": "what a forward with grad keeps for its backward, less the loss; missing for forward-no-grad",
    "peak_resident_bytes": "growth of the process's resident size at its highest; missing below 16 MiB of logits",
    "minimum_bytes": "least possible peak",
    "floor_s": "bytes that must be moved, over this machine's best measured bandwidth: no right answer takes less",
    "limit_s": "the floor, or the time of the least exponentials at this machine's measured rate where it is longer",
    "limit_by": "which of the two the limit is: bytes or exp",
    "reached_ratio": "limit over median time: 1 is all that memory and the libraries' exponentials allow",
    "setup_s": "cold set-up (compilation) for this problem, all phases, seconds",
}
"""The columns of `Run.cells`: one row a cell (implementation, problem, phase); missing where not measured."""

VERDICT_COLUMNS: Final[Mapping[str, str]] = {
    "implementation": "name of the entrant",
    "problem": "canonical key of the problem",
    "label": "the problem as people write it",
    "dtype": "dtype of the logits",
    "logits": "family of logits, or the recorded workload",
    "status": "passed, or the first thing that is wrong",
    "grade": "the worst over the quantities; missing where nothing could be judged",
    "reason": "one line on what is wrong, or why it was not asked",
    "checks": "quantities that were compared",
    "bound_ratio": "largest error in units of the rounding-error bound (1 or less passes)",
    "error_ulp": "largest error of the loss in units in the last place of its dtype",
    "deviations": "codes of the declared deviations that explain all that is wrong, comma-separated",
    "labels": "what is honest but must be known, comma-separated",
    "failures": "everything that is wrong: records of quantity, message, counterexample, snippet; a list",
    "setup_s": "cold set-up (compilation) for this problem, seconds",
    "reproduce": "the command that asks this problem again",
}
"""The columns of `Run.verdicts` and `Run.accuracies`: one row an (implementation, problem)."""

TRAINING_COLUMNS: Final[Mapping[str, str]] = {
    "implementation": "name of the entrant whose loss trained the model",
    "workload": "digits or text: data, model and recipe",
    "status": "passed, trains-differently, or how it ended otherwise",
    "reason": "what qualifies the status",
    "steps": "optimiser steps that were made",
    "losses": "of every step, the true mean loss of the batch (by F.cross_entropy in float64); a list",
    "losses_low": "of every step, the lower end of what right implementations come to; a list",
    "losses_high": "of every step, the upper end of it; a list",
    "curve_ratio": "largest distance of the curve from the baseline's, in units of the bound (1 or less passes)",
    "weights_ratio": "distance of the final weights from the baseline's, in units of the bound",
    "held_out_loss": "mean loss of rows that were not trained on, at the end",
    "held_out_accuracy": "share of them that is classified right",
    "wall_s": "time that training took, set-up included, seconds",
    "reproduce": "the command that trains so again",
}
"""The columns of `Run.trainings`: one row an (implementation, workload)."""

TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "cells": CELL_COLUMNS,
    "verdicts": VERDICT_COLUMNS,
    "accuracies": VERDICT_COLUMNS,
    "trainings": TRAINING_COLUMNS,
}
"""The tables of a run by name, each with its columns."""

WHOLE: Final = frozenset(
    {
        *("batch_size", "num_classes", "elements", "rounds", "workers", "checks", "steps"),
        *("peak_bytes", "saved_bytes", "peak_resident_bytes", "minimum_bytes"),
    }
)
"""Columns of whole numbers."""
STRUCTURED: Final = frozenset(
    {"worker_log_ratios", "worker_quickest_log_ratios", "failures", "losses", "losses_low", "losses_high"}
)
"""Columns of lists."""
NUMBERS: Final = frozenset(
    {
        *("ratio", "ratio_low", "ratio_high", "other_ratio", "other_low", "other_high", "canary_low", "canary_high"),
        *("latency_s", "latency_p05_s", "latency_p95_s", "baseline_latency_s", "empty_call_s", "cpu_share"),
        *("minor_faults", "baseline_minor_faults", "cold_minor_faults"),
        *("cold_ratio", "cold_low", "cold_high", "cold_latency_s"),
        *("floor_s", "limit_s", "reached_ratio", "setup_s", "bound_ratio", "error_ulp"),
        *("curve_ratio", "weights_ratio", "held_out_loss", "held_out_accuracy", "wall_s"),
    }
)
"""Columns of other numbers; every column that is in none of the three is text."""
_LARGEST: Final = 2**63
_TEXT: Final = pd.Series(["text"]).dtype
"""`str` from pandas 3 on, `object` before."""


def frame(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> pd.DataFrame:
    """Return the rows as a table of exactly these columns, each of its kind; a value of another kind is missing.

    Args:
        rows: one mapping a row, of any keys.
        columns: names, as the mappings above document them.
    """
    listed = list(rows)
    return pd.DataFrame({name: _column(name, [row.get(name) for row in listed]) for name in columns})


def _column(name: str, values: list[Any]) -> pd.Series[Any]:
    if name in STRUCTURED:
        return pd.Series([value if isinstance(value, list | tuple) else None for value in values], dtype=object)
    if name in WHOLE:
        return pd.Series([int(value) if _is_whole(value) else None for value in values], dtype="Int64")
    if name in NUMBERS:
        return pd.Series([float(value) if _is_number(value) else math.nan for value in values], dtype=float)
    return pd.Series([value if isinstance(value, str) else None for value in values], dtype=_TEXT)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:  # noqa: ANN401 - of a journal, which may hold anything
    return _is_number(value) and math.isfinite(value) and abs(value) < _LARGEST and value == int(value)
