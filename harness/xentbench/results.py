"""The only reader and writer of results: a folder a run, an append-only journal in it, and the tables read from it.

A run's folder holds `run.json` (plan, environment, machine, seed), `journal.jsonl` (one line a finished cell or
verdict), `samples.jsonl` (every raw time), and the report that was made from them. A journal line is one JSON object:
`schema`, `run`, `contract`, `kind`, the fields of that kind, and `crc32` over the rest.

Schema history:
    1: first. Columns that were added since are null in older runs.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import secrets
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from xentbench.files import write_atomically
from xentbench.spec import CROSS_ENTROPY, Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA: Final = 1
JOURNAL, SAMPLES, HEAD = "journal.jsonl", "samples.jsonl", "run.json"
TRIAL: Final = "clock.json"
"""Beside the runs' folders: the latest self-test of the clock."""

CELL_COLUMNS: Final[Mapping[str, str]] = {
    "implementation": "name of the entrant",
    "problem": "canonical key of the problem",
    "label": "the problem as people write it",
    "size_label": "shape of the logits, with the workload's name",
    "batch_size": "N; None when unbatched",
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
    "saved_bytes": "what a forward with grad keeps for its backward, less the loss; None for forward-no-grad",
    "peak_resident_bytes": "growth of the process's resident size at its highest; None below 16 MiB of logits",
    "minimum_bytes": "least possible peak",
    "floor_s": "bytes that must be moved, over this machine's best measured bandwidth: no right answer takes less",
    "limit_s": "the floor, or the time of the least exponentials at this machine's measured rate where it is longer",
    "limit_by": "which of the two the limit is: bytes or exp",
    "reached_ratio": "limit over median time: 1 is all that memory and the libraries' exponentials allow",
    "setup_s": "cold set-up (compilation) for this problem, all phases, seconds",
}
"""The columns that `load` returns, one row a cell (implementation, problem, phase); NaN or None where not measured."""

VERDICT_COLUMNS: Final = (
    "implementation",
    "problem",
    "label",
    "dtype",
    "status",
    "grade",
    "reason",
    "checks",
    "bound_ratio",
    "error_ulp",
    "deviations",
    "labels",
    "failures",
    "setup_s",
    "reproduce",
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was read: `cells` and `verdicts` in plan order, `info` as `run.json` holds it, `damage` as notes.

    `info` has run, contract, preset, seed, started, wall_s, grids, warnings, implementations, environment and machine
    (by device, what `machine.measure` saw).
    """

    path: Path
    id: str
    info: dict[str, Any]
    cells: pd.DataFrame
    verdicts: pd.DataFrame
    damage: tuple[str, ...] = ()


class Journal:
    """The writer of one run: every line is whole on the disk before the next cell begins."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run

    def cell(self, fields: Mapping[str, Any], samples: Mapping[str, Any] | None = None) -> None:
        """Append one finished cell, its raw times first: a cell's line implies its samples."""
        if samples is not None:
            named = {key: fields[key] for key in ("implementation", "problem", "phase")}
            self._append(SAMPLES, "samples", {**named, **samples})
        self._append(JOURNAL, "cell", fields)

    def verdict(self, fields: Mapping[str, Any]) -> None:
        """Append the judge's verdict on one implementation and problem."""
        self._append(JOURNAL, "verdict", fields)

    def head(self, info: Mapping[str, Any]) -> None:
        """Write or replace `run.json`."""
        write_atomically(self.folder / HEAD, json.dumps({"schema": SCHEMA, **info}, indent=1).encode())

    def _append(self, name: str, kind: str, fields: Mapping[str, Any]) -> None:
        line = sealed({"schema": SCHEMA, "run": self.run, "contract": CROSS_ENTROPY.name, "kind": kind, **fields})
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            os.fsync(fd)
        finally:
            os.close(fd)


def sealed(record: Mapping[str, Any]) -> bytes:
    """Return the record as one line with its checksum."""
    crc = f"{zlib.crc32(_canonical(record)):08x}"
    return _canonical({**record, "crc32": crc}) + b"\n"


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def unsealed(line: bytes) -> dict[str, Any]:
    """Return the record of one line.

    Raises:
        ValueError: torn, damaged, or of another schema.
    """
    record = json.loads(line)
    if not isinstance(record, dict):
        msg = "not an object"
        raise ValueError(msg)  # noqa: TRY004 - every damage is one kind of error
    crc = record.pop("crc32", None)
    if crc != f"{zlib.crc32(_canonical(record)):08x}":
        msg = "its checksum does not fit"
        raise ValueError(msg)
    if record.get("schema") != SCHEMA:
        msg = f"it has schema {record.get('schema')}, this version reads {SCHEMA}"
        raise ValueError(msg)
    return record


def check_writable(results: Path) -> None:
    """Refuse a results folder that cannot be made or written, before anything long starts; raises UsageError."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(b"room for a run")
    except OSError as error:
        msg = f"--results expected a folder that can be written, got {str(results)!r}: {error.strerror}; name another"
        raise UsageError(msg) from None


def create(results: Path) -> Journal:
    """Make the folder of a new run under `results/` and return its journal; raises UsageError as `check_writable`."""
    check_writable(results)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    run = f"{stamp}-{secrets.token_hex(2)}"
    folder = results / run
    folder.mkdir()
    return Journal(folder, run)


def save_trial(results: Path, record: Mapping[str, Any]) -> Path:
    """Keep what the clock's self-test on this machine came to, for the runs that follow; return the file."""
    check_writable(results)
    write_atomically(results / TRIAL, json.dumps({"schema": SCHEMA, **record}, indent=1).encode())
    return results / TRIAL


def trial(results: Path) -> dict[str, Any] | None:
    """Return the latest self-test of the clock that is kept beside the runs, or None."""
    try:
        record: dict[str, Any] = json.loads((results / TRIAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("schema") == SCHEMA else None


def find(run: str | Path, results: Path) -> Path:
    """Return the folder of a run: a path, a run's id, or `latest`.

    Raises:
        UsageError: there is none.
    """
    known = sorted(path.parent for path in results.glob(f"*/{HEAD}"))
    if str(run) == "latest" and known:
        return known[-1]
    for folder in (Path(run), results / str(run)):
        if (folder / HEAD).is_file():
            return folder
    msg = f"run {str(run)!r} was not found: expected a run's folder, its id under {results}, or latest; known: "
    raise UsageError(msg + (", ".join(path.name for path in known[-5:]) or "none"))


def read(folder: Path) -> Run:
    """Return everything that a run's folder holds; damaged lines are noted, never fatal.

    Raises:
        UsageError: no readable `run.json`, or one of another schema.
    """
    try:
        info = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"expected a run's folder with a readable {HEAD}, got {str(folder)!r}: {error}"
        raise UsageError(msg) from None
    if info.get("schema") != SCHEMA:
        schema = info.get("schema")
        msg = f"run {folder.name} has schema {schema}, this version reads {SCHEMA}: use the version that wrote it"
        raise UsageError(msg)
    lines, damage = _lines(folder / JOURNAL)
    cells = _frame((_cell_row(line) for line in lines if line["kind"] == "cell"), list(CELL_COLUMNS))
    verdicts = _frame((_verdict_row(line) for line in lines if line["kind"] == "verdict"), list(VERDICT_COLUMNS))
    return Run(folder, str(info.get("run", folder.name)), info, _in_plan_order(cells, info), verdicts, tuple(damage))


def load(run: str | Path) -> pd.DataFrame:
    """Return a run's cells as a tidy DataFrame: one row a cell, columns as `CELL_COLUMNS` documents them.

    Args:
        run: the run's folder.

    Raises:
        UsageError: no run there.
    """
    return read(find(run, Path("results/runs"))).cells


def samples(folder: Path) -> list[dict[str, Any]]:
    """Return the raw times of a run: implementation, problem, phase, and for each worker its bursts of rounds."""
    return _lines(folder / SAMPLES)[0]


def _lines(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the good records, and notes about the damaged ones; a torn last line is dropped without a word."""
    if not path.exists():
        return [], []
    raw = path.read_bytes().split(b"\n")
    good, damage = [], []
    for number, line in enumerate(raw[:-1], start=1):
        try:
            good.append(unsealed(line))
        except (ValueError, RecursionError) as error:
            damage.append(f"{path.name} line {number} is damaged and was left out: {error}")
    return good, damage


def _problem_fields(key: str) -> dict[str, Any]:
    problem = Problem.parse(key)
    names = ("label", "size_label", "batch_size", "num_classes", "elements", "dtype", "device", "logits", "reduction")
    return {name: getattr(problem, name) for name in names}


def _cell_row(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**_problem_fields(line["problem"]), **line, "labels": ",".join(line.get("labels") or [])}


def _verdict_row(line: Mapping[str, Any]) -> dict[str, Any]:
    joined = {name: ",".join(line.get(name) or []) for name in ("deviations", "labels")}
    return {**_problem_fields(line["problem"]), **line, **joined}


def _frame(rows: Iterable[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(list(rows)).reindex(columns=columns)


def _in_plan_order(cells: pd.DataFrame, info: Mapping[str, Any]) -> pd.DataFrame:
    """Sort rows as they were planned: they were run in random order."""
    plan = info.get("plan", {})
    ranks = {
        column: {value: rank for rank, value in enumerate(plan.get(key, []))}
        for column, key in (("problem", "problems"), ("implementation", "implementations"), ("phase", "phases"))
    }
    keys = pd.DataFrame({column: cells[column].map(rank) for column, rank in ranks.items()})
    return cells.loc[keys.sort_values(list(ranks), kind="stable").index].reset_index(drop=True)
