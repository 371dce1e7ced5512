"""What every form of a report starts from: a run's rows, complete, typed and in one order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd

from xentbench.report.text import count_bytes, plain, quantity
from xentbench.spec import DTYPE_BYTES, Phase, Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TEXT_COLUMNS: Final = (
    *("implementation", "problem", "label", "size_label", "dtype", "device", "logits", "reduction"),
    *("phase", "status", "reason", "labels", "grade", "verdict", "limit_by", "clock", "cold_reason"),
)
NUMBER_COLUMNS: Final = (
    *("batch_size", "num_classes", "elements", "ratio", "ratio_low", "ratio_high"),
    *("latency_s", "latency_p05_s", "latency_p95_s", "baseline_latency_s", "canary_low", "canary_high"),
    *("other_ratio", "other_low", "other_high", "empty_call_s", "baseline_minor_faults"),
    *("cold_ratio", "cold_low", "cold_high", "cold_latency_s", "cold_minor_faults"),
    *("rounds", "workers", "cpu_share", "minor_faults"),
    *("peak_bytes", "saved_bytes", "peak_resident_bytes", "minimum_bytes"),
    *("floor_s", "limit_s", "reached_ratio", "setup_s"),
)
PROBLEM_COLUMNS: Final = (
    *("label", "size_label", "dtype", "device", "logits", "reduction", "batch_size", "num_classes", "elements"),
)
VERDICT_TEXT: Final = (
    *("implementation", "problem", "label", "dtype", "logits", "status", "grade", "reason", "deviations"),
    *("labels", "reproduce"),
)
# Structured, and so kept as they came.
VERDICT_OBJECTS: Final = ("failures",)
VERDICT_NUMBERS: Final = ("checks", "bound_ratio", "error_ulp")
TRAINING_TEXT: Final = ("implementation", "workload", "status", "reason", "reproduce")
TRAINING_NUMBERS: Final = (*("steps", "curve_ratio", "weights_ratio", "held_out_loss", "held_out_accuracy", "wall_s"),)
TRAINING_OBJECTS: Final = ("losses", "losses_low", "losses_high")
KEYS: Final = ["implementation", "problem", "phase"]
MISSING: Final = "missing"
"""Shown as the status of a cell that a run should have and has not: never a blank."""
MACHINE: Final = (
    *(("read_bytes_per_s", "reads", "B"), ("copy_bytes_per_s", "copies", "B"), ("exp_per_s", "exponentiates", "")),
)
"""What a run's info tells of a device, as it is shown, with its unit a second."""
MISSING_REASON: Final = "no record of this cell: the run ended before it"


class RunLike(Protocol):
    """What a report needs of a run; `xentbench.results.Run` is one."""

    @property
    def path(self) -> Path:
        """Folder of the run."""

    @property
    def id(self) -> str:
        """Name of the run."""

    @property
    def info(self) -> dict[str, Any]:
        """What was run, when, where."""

    @property
    def cells(self) -> pd.DataFrame:
        """One row a (implementation, problem, phase)."""

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row a (implementation, problem)."""


@dataclass(frozen=True, slots=True)
class View:
    """A run made ready for reading; whatever was absent from it is empty here, never absent.

    Attributes:
        id: name of the run.
        info: as the run's.
        cells: all columns, one row for each of implementations x problems x phases in that order, and derived
            `speedup`, `speedup_low`, `speedup_high` (baseline's time over its own), `memory_ratio` and `saved_ratio`
            (peak memory, and what is saved for the backward, over the analytic minimum of the peak; NaN where that is
            less than one row of logits, as the scalar that a forward returns: a factor of it would say nothing).
        verdicts: all columns, one row a judged (implementation, problem).
        implementations: names, in plan order.
        problems: one row a problem in plan order, indexed by key, with a unique `name` for tables and figures.
        phases: in the order of `Phase`.
        damage: notes about lines that could not be read.
        accuracies: as `verdicts`, of problems that were asked for accuracy alone.
        trainings: all columns, one row a trained (implementation, workload).
    """

    id: str
    info: dict[str, Any]
    cells: pd.DataFrame
    verdicts: pd.DataFrame
    implementations: tuple[str, ...]
    problems: pd.DataFrame
    phases: tuple[str, ...]
    damage: tuple[str, ...] = ()
    accuracies: pd.DataFrame = field(default_factory=pd.DataFrame)
    trainings: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def of(cls, run: RunLike | View) -> View:
        """Return the view of `run`; a view is returned as it is."""
        if isinstance(run, View):
            return run
        info = run.info if isinstance(run.info, dict) else {}
        cells = _typed(run.cells, TEXT_COLUMNS, NUMBER_COLUMNS).drop_duplicates(KEYS, keep="last")
        verdicts = _typed(run.verdicts, VERDICT_TEXT, VERDICT_NUMBERS, VERDICT_OBJECTS)
        accuracies = _typed(getattr(run, "accuracies", None), VERDICT_TEXT, VERDICT_NUMBERS, VERDICT_OBJECTS)
        trained = getattr(run, "trainings", None)
        trainings = _typed(trained, TRAINING_TEXT, TRAINING_NUMBERS, TRAINING_OBJECTS)
        asked = [frame["implementation"] for frame in (cells, verdicts, accuracies, trainings)]
        names = _implementations(info, dict.fromkeys(itertools.chain(*asked)))
        problems = _problems(cells, verdicts)
        phases = tuple(sorted(set(cells["phase"]) - {""}, key=_phase_rank))
        complete = _derive(_complete(cells, verdicts, info, (names, tuple(problems.index), phases)))
        damage = tuple(plain(note) for note in getattr(run, "damage", ()))
        return cls(
            *(plain(run.id), info, complete, verdicts, names, problems, phases, damage),
            accuracies=accuracies,
            trainings=trainings,
        )

    @property
    def headline(self) -> str:
        """The phase that speaks for all: forward+backward, else the last that was run; empty where none was."""
        return Phase.FORWARD_BACKWARD if Phase.FORWARD_BACKWARD in self.phases else "".join(self.phases[-1:])

    def phase(self, phase: str) -> pd.DataFrame:
        """Return the cells of one phase, indexed by (implementation, problem), both unique."""
        return self.cells[self.cells["phase"] == phase].set_index(["implementation", "problem"])

    def fact(self, name: str) -> str:
        """Return one fact of the run's environment as text, empty where it is unknown."""
        environment = self.info.get("environment")
        return plain(environment.get(name)) if isinstance(environment, dict) else ""

    def facts(self) -> dict[str, str]:
        """Return all facts of the run's environment."""
        environment = self.info.get("environment")
        items = environment.items() if isinstance(environment, dict) else ()
        return {plain(key): plain(value) for key, value in items}

    def machine(self) -> dict[str, str]:
        """Return what each device was seen to do, as texts: bandwidths by working set, rates of exponentials."""
        told = self.info.get("machine")
        devices = told.items() if isinstance(told, dict) else ()
        return {
            f"{plain(device)} {title}": rates
            for device, seen in devices
            for key, title, unit in MACHINE
            if isinstance(seen, dict) and (rates := _rates(seen.get(key), unit))
        }

    def lines(self, name: str) -> list[str]:
        """Return a list of texts from the run's info, e.g. `warnings`; empty where it is absent."""
        value = self.info.get(name)
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else []

    def described(self) -> list[dict[str, str]]:
        """Return the descriptions of implementations as texts."""
        listed = self.info.get("implementations")
        records = listed if isinstance(listed, (list, tuple)) else ()
        return [{str(k): plain(v) for k, v in record.items()} for record in records if isinstance(record, dict)]


def _rates(rates: object, unit: str) -> str:
    """Return `105 GB/s at 1.05 MB, …` of `{size or dtype: per second}`; a rate that is no number is left out."""
    pairs = sorted(rates.items(), key=_size) if isinstance(rates, dict) else ()
    return ", ".join(
        f"{quantity(rate, unit)}/s {'at ' + count_bytes(float(key)) if str(key).isdigit() else plain(key)}"
        for key, rate in pairs
        if isinstance(rate, (int, float))
    )


def _size(pair: tuple[object, object]) -> int:
    """Return the size that a rate was measured at: a journal's keys are texts, in the order of texts."""
    return int(str(pair[0])) if str(pair[0]).isdigit() else 0


def is_wrong(status: str) -> bool:
    """Return whether a status means that something is wrong; so does a word that is no `Status`, save `missing`."""
    try:
        return Status(status).is_wrong
    except ValueError:
        return status not in ("", MISSING)


def _typed(
    frame: pd.DataFrame | None, texts: Iterable[str], numbers: Iterable[str], objects: Iterable[str] = ()
) -> pd.DataFrame:
    source = frame if isinstance(frame, pd.DataFrame) else pd.DataFrame()
    columns: dict[str, pd.Series[Any]] = {}
    for name in texts:
        values = source[name] if name in source else pd.Series("", index=source.index)
        columns[name] = pd.Series([plain(value) for value in values], index=source.index, dtype=object)
    for name in numbers:
        values = source[name] if name in source else pd.Series(np.nan, index=source.index)
        number = pd.to_numeric(values, errors="coerce").astype(float)
        columns[name] = number.where(np.isfinite(number))
    for name in objects:
        columns[name] = source[name] if name in source else pd.Series(None, index=source.index, dtype=object)
    return pd.DataFrame(columns).reset_index(drop=True)


def _implementations(info: dict[str, Any], asked: dict[str, None]) -> tuple[str, ...]:
    listed = info.get("implementations")
    records = [record for record in listed if isinstance(record, dict)] if isinstance(listed, (list, tuple)) else []
    planned = [
        name
        for record in records
        if (name := plain(record.get("name"))) in asked or record.get("status", Status.PASSED) != Status.PASSED
    ]
    return tuple(name for name in dict.fromkeys([*planned, *asked]) if name)


def _problems(cells: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    rows = pd.concat([cells[["problem", *PROBLEM_COLUMNS]], verdicts[["problem", "label"]]])
    rows = rows[rows["problem"] != ""].drop_duplicates("problem").set_index("problem")
    rows = rows.fillna(dict.fromkeys(set(PROBLEM_COLUMNS) & set(TEXT_COLUMNS), ""))
    labels = [str(label or key) for key, label in rows["label"].items()]
    # Two problems may differ only in what a label leaves out; a column each still needs a name of its own.
    repeats = [labels[:place].count(label) for place, label in enumerate(labels)]
    names = [f"{label} #{n + 1}" if n else label for label, n in zip(labels, repeats, strict=True)]
    product = rows["batch_size"].fillna(1) * rows["num_classes"]
    return rows.assign(
        name=np.array(names, object), label=np.array(labels, object), elements=rows["elements"].fillna(product)
    )


def _phase_rank(phase: str) -> tuple[int, str]:
    order = [str(known) for known in Phase]
    return (order.index(phase) if phase in order else len(order), phase)


def _complete(
    cells: pd.DataFrame,
    verdicts: pd.DataFrame,
    info: dict[str, Any],
    axes: tuple[tuple[str, ...], tuple[Any, ...], tuple[str, ...]],
) -> pd.DataFrame:
    index = pd.MultiIndex.from_product(axes, names=KEYS)
    full = cells.set_index(KEYS).reindex(index).reset_index()
    texts = [name for name in TEXT_COLUMNS if name not in KEYS]
    full[texts] = full[texts].fillna("")
    blank = full["status"] == ""
    explained = _explanations(verdicts, info)
    for row in full[blank].itertuples():
        name, problem = str(row.implementation), str(row.problem)
        status, reason = explained.get((name, problem)) or explained.get((name, "")) or (MISSING, MISSING_REASON)
        full.loc[row.Index, ["status", "reason"]] = [status, reason]
    return full


def _explanations(verdicts: pd.DataFrame, info: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return why (implementation, problem), or all of an implementation (problem `""`), has no cell."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    listed = info.get("implementations")
    for record in listed if isinstance(listed, (list, tuple)) else ():
        if isinstance(record, dict) and record.get("status", Status.PASSED) != Status.PASSED:
            found[plain(record.get("name")), ""] = plain(record.get("status")), plain(record.get("reason"))
    for row in verdicts.to_dict("records"):
        if row["status"] not in ("", Status.PASSED):
            found[row["implementation"], row["problem"]] = row["status"], row["reason"]
    return found


def _derive(cells: pd.DataFrame) -> pd.DataFrame:
    positive = cells[["ratio", "ratio_low", "ratio_high"]].where(lambda frame: frame > 0)
    row_bytes = cells["num_classes"] * cells["dtype"].map(DTYPE_BYTES)
    minimum = cells["minimum_bytes"].where((cells["minimum_bytes"] > 0) & ~(cells["minimum_bytes"] < row_bytes))
    return cells.assign(
        speedup=1 / positive["ratio"],
        speedup_low=1 / positive["ratio_high"],
        speedup_high=1 / positive["ratio_low"],
        memory_ratio=cells["peak_bytes"] / minimum,
        saved_ratio=cells["saved_bytes"] / minimum,
    )
