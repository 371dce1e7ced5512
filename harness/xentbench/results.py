"""The only reader of results: a folder a run, the union of the journals in it, and the tables read from them.

A run's folder holds what `journal` writes and the report that was made from it. Each cell counts once: of several good
lines the latest stands. What the sittings of a run told when they ended stands in its `info`.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import secrets
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from xentbench import columns, environment, settings
from xentbench.files import write_atomically
from xentbench.journal import HEAD, JOURNAL, READABLE, SAMPLES, Journal, lines, parts
from xentbench.spec import Phase, Problem, Status, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Row = Callable[[dict[str, Any]], dict[str, Any]]

CELL: Final = ("implementation", "problem", "phase")
"""What names a cell."""
TRAINING: Final = ("implementation", "workload")
"""What names a training."""
UNASKED: Final = (Status.SKIPPED, Status.UNSUPPORTED, Status.IMPORT_FAILED)
"""How cells may end that nobody was asked, and of which there is no verdict."""
SPENT: Final = "the budget of"
"""How the reason begins of cells whose turn came too late: the next sitting does them."""
RUNS: Final = Path("results/runs")
"""Where runs are kept if nothing else is said."""
TRIAL: Final = "clock.json"
"""Beside the runs' folders: the latest self-test of the clock."""
TRIAL_SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was read: `cells` and `verdicts` in plan order, `info` as `run.json` holds it, `damage` as notes.

    `info` has run, contract, preset, started, grids, warnings, implementations, environment, plan, and of its sittings
    wall_s (their sum), machine (by device, what `machine.measure` saw), seed (where all had the same) and sittings, a
    list: sitting, part, started, ended, seed, wall_s, machine. One that was killed told nothing after its start.
    `accuracies` are verdicts on problems that were asked for accuracy alone, by dtype and family of logits; `trainings`
    has the columns of `columns.TRAINING_COLUMNS`. Both are empty where nothing of the kind was asked.
    """

    path: Path
    id: str
    info: dict[str, Any]
    cells: pd.DataFrame
    verdicts: pd.DataFrame
    damage: tuple[str, ...] = ()
    accuracies: pd.DataFrame = field(default_factory=pd.DataFrame)
    trainings: pd.DataFrame = field(default_factory=pd.DataFrame)


def check_writable(results: Path) -> None:
    """Refuse a results folder that cannot be made or written, before anything long starts; raises UsageError."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(b"room for a run")
    except OSError as error:
        msg = f"--results expected a folder that can be written, got {str(results)!r}: {error.strerror}; name another"
        raise UsageError(msg) from None


def create(results: Path, run: str = "", part: str = "") -> Journal:
    """Return the journal of a part of a run under `results/`; its folder is made where there is none.

    Args:
        results: folder of all runs.
        run: name of the run; a new one of its own where empty.
        part: of a shard, else empty.

    Raises:
        UsageError: as `check_writable`, a name that is no plain one, or another process is writing this part.
    """
    check_writable(results)
    if run and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run):
        msg = (
            f"--run expected a plain name such as nightly-7, of letters, digits, dots, dashes, underscores, got {run!r}"
        )
        raise UsageError(msg)
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = results / (run or f"{stamp}-{secrets.token_hex(2)}")
    try:
        folder.mkdir(exist_ok=bool(run))
    except FileExistsError as error:
        msg = f"--run expected a name that is free or a run's, got {run!r}: {error.filename} is a file"
        raise UsageError(msg) from None
    return Journal(folder, folder.name, part)


def save_trial(results: Path, record: Mapping[str, Any]) -> Path:
    """Keep what the clock's self-test on this machine came to, for the runs that follow; return the file."""
    check_writable(results)
    write_atomically(results / TRIAL, json.dumps({"schema": TRIAL_SCHEMA, **record}, indent=1).encode())
    return results / TRIAL


def trial(results: Path) -> dict[str, Any] | None:
    """Return the latest self-test of the clock that is kept beside the runs, or None."""
    try:
        record: dict[str, Any] = json.loads((results / TRIAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("schema") == TRIAL_SCHEMA else None


def find(run: str | Path, results: Path) -> Path:
    """Return the folder of a run: a path, a run's id, or `latest`.

    Raises:
        UsageError: there is none.
    """
    known = sorted((path.parent for path in results.glob(f"*/{HEAD}")), key=lambda folder: (_started(folder), folder))
    if str(run) == "latest" and known:
        return known[-1]
    for folder in (Path(run), results / str(run)):
        if (folder / HEAD).is_file():
            return folder
    msg = f"run {str(run)!r} was not found: expected a run's folder, its id under {results}, or latest; known: "
    raise UsageError(msg + (", ".join(path.name for path in known[-5:]) or "none"))


def _started(folder: Path) -> str:
    """Return when a run was started, as text that sorts by time; the folder's name tells it of runs without a name."""
    try:
        return str(head(folder).get("started", ""))
    except UsageError:
        return ""


def head(folder: Path) -> dict[str, Any]:
    """Return what `run.json` holds.

    Raises:
        UsageError: it is not readable, or of another schema.
    """
    msg = f"expected a run's folder with a readable {HEAD}, got {str(folder)!r}"
    try:
        info = json.loads((folder / HEAD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{msg}: {error}") from None  # noqa: EM102 - the sentence above, with its cause
    if not isinstance(info, dict) or not isinstance(info.get("plan", {}), dict):
        raise UsageError(msg)
    if info.get("schema") not in READABLE:
        told = f"this version reads {' and '.join(map(str, READABLE))}: use the version that wrote it"
        msg = f"run {folder.name} has schema {info.get('schema')}, {told}"
        raise UsageError(msg)
    return info


def read(folder: Path) -> Run:
    """Return everything that a run's folder holds; damaged lines are noted, never fatal.

    Raises:
        UsageError: no readable `run.json`, or one of another schema.
    """
    info = head(folder)
    run = str(info.get("run", folder.name))
    records, damage = _records(folder, JOURNAL, run)
    sittings = _sittings(records)
    seeds = {sitting["sitting"]: sitting["seed"] for sitting in sittings}
    kinds: dict[str, tuple[Row, tuple[str, ...], Mapping[str, str]]] = {
        "cell": (_cell_row, CELL, columns.CELL_COLUMNS),
        "verdict": (lambda line: _verdict_row(line, seeds), CELL[:2], columns.VERDICT_COLUMNS),
        "accuracy": (lambda line: _verdict_row(line, seeds), CELL[:2], columns.VERDICT_COLUMNS),
        "training": (lambda line: {**line, **_again(line, seeds)}, TRAINING, columns.TRAINING_COLUMNS),
    }
    tables, notes = {}, list(damage)
    for kind, (row, keys, documented) in kinds.items():
        rows, odd = _rows((record for record in records if record["kind"] == kind), row, keys)
        tables[kind] = _in_plan_order(columns.frame(rows, documented), info)
        notes += odd
    return Run(
        folder,
        run,
        info | _summary(sittings),
        tables["cell"],
        tables["verdict"],
        (*notes, *_strangers(records, info)),
        accuracies=tables["accuracy"],
        trainings=tables["training"],
    )


def finished(run: Run) -> dict[tuple[str, str, Phase], Status]:
    """Return how each cell ended that no further sitting need do: all but those that came too late for a budget."""
    return ended(replace(run, cells=run.cells[~late(run.cells)]))


def late(cells: pd.DataFrame) -> pd.Series[bool]:
    """Return which cells came too late for their sitting's budget."""
    return (cells["status"] == Status.SKIPPED) & cells["reason"].fillna("").str.startswith(SPENT)


def ended(run: Run) -> dict[tuple[str, str, Phase], Status]:
    """Return how each cell of a run ended, by implementation, problem key and phase.

    One whose verdict was lost has not ended, unless nobody was asked: as of all of an implementation that could not be
    described, however that ended.
    """
    described = {entry.get("name"): entry.get("status") for entry in run.info.get("implementations", [])}
    unasked = {name for name, status in described.items() if status != Status.PASSED}
    judged = set(run.verdicts[[*CELL[:2]]].itertuples(index=False, name=None))
    rows = run.cells[[*CELL, "status"]].itertuples(index=False, name=None)
    return {
        (name, key, Phase(phase)): Status(status)
        for name, key, phase, status in rows
        if phase in set(Phase) and status in set(Status)
        if status in UNASKED or name in unasked or (name, key) in judged
    }


def graded(run: Run) -> frozenset[tuple[str, str]]:
    """Return the implementations and problem keys that were asked for accuracy alone."""
    return frozenset(run.accuracies[[*CELL[:2]]].itertuples(index=False, name=None))


def trained(run: Run) -> frozenset[tuple[str, str]]:
    """Return the implementations and workloads that were trained."""
    return frozenset(run.trainings[[*TRAINING]].itertuples(index=False, name=None))


def load(run: str | Path, table: str = "cells", *, results: str | Path | None = None) -> pd.DataFrame:
    """Return a table of a run as a tidy DataFrame, in plan order; `xentbench.columns.TABLES` documents the columns.

    Every column is there, whatever the run holds. What was not measured is missing (`isna()`). The frame's `attrs` tell
    the run, its contract, when it was started, and its environment.

    Args:
        run: its folder, its id, or `latest`.
        table: `cells`, one row a (implementation, problem, phase); `verdicts`, one row a judged (implementation,
            problem); `accuracies`, the same of problems that were asked for accuracy alone; `trainings`, one row a
            (implementation, workload).
        results: folder that runs are kept in; without it the `results` of `pyproject.toml`, else `results/runs`.

    Raises:
        UsageError: no such run or table.

    Example:
        >>> cells = xentbench.load("latest")  # doctest: +SKIP
        >>> cells[cells["phase"] == "forward"].pivot_table("ratio", "implementation", "label")  # doctest: +SKIP
    """
    if table not in columns.TABLES:
        msg = f"table {table!r} is unknown: {nearest(table, columns.TABLES)}"
        raise UsageError(msg)
    folder = Path(results) if results is not None else settings.results(RUNS)
    found = read(find(run, folder))
    told: pd.DataFrame = getattr(found, table).copy()
    told.attrs = {
        "run": found.id,
        "contract": found.info.get("contract"),
        "started": found.info.get("started"),
        "environment": found.info.get("environment", {}),
    }
    return told


def samples(folder: Path) -> list[dict[str, Any]]:
    """Return the raw times of a run: implementation, problem, phase, and for each worker its bursts of rounds."""
    records, _ = _records(folder, SAMPLES, str(head(folder).get("run", folder.name)))
    return _rows(records, dict, CELL)[0]


def _records(folder: Path, name: str, run: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the good records of all parts of a run, and notes about damaged lines."""
    good: list[dict[str, Any]] = []
    damage = []
    for path in parts(folder, name):
        for number, record in lines(path, run):
            if isinstance(record, dict) and isinstance(record.get("kind"), str):
                good.append({**record, "part": path.stem.partition("-")[2]})
            else:
                reason = record if isinstance(record, str) else "it says not what it is"
                damage.append(f"{path.name} line {number} is damaged and was left out: {reason}")
    return good, damage


def _rows(records: Iterable[dict[str, Any]], row: Row, keys: tuple[str, ...]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row for each key, made from its latest record, and notes about records that make no row."""
    latest: dict[tuple[str, ...], dict[str, Any]] = {}
    odd = []
    for record in records:
        try:
            latest[tuple(str(record[key]) for key in keys)] = row(record)
        except (KeyError, TypeError, ValueError) as error:
            told = f"{type(error).__name__}: {error}"
            odd.append(f"a line of kind {record['kind']} is not understood and was left out: {told}")
    return list(latest.values()), odd


def _sittings(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what each sitting told at its start and at its end, in the order of their starts."""
    told: dict[str, dict[str, Any]] = {}
    for record in records:
        sitting = told.setdefault(
            str(record.get("sitting", "")),
            {"part": record["part"], "started": "", "ended": None, "seed": None, "wall_s": None, "machine": {}},
        )
        if record["kind"] in ("sitting", "ended"):
            sitting |= {name: record[name] for name in sitting if name in record}
    named = [{"sitting": name, **fields} for name, fields in told.items() if name]
    return sorted(named, key=lambda one: (str(one["started"]), one["part"]))


def _strangers(records: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> list[str]:
    """Return notes about sittings of another plan or in another environment: shards that never met on one disk."""
    notes = []
    for record in records:
        settings = record.get("environment")
        if record["kind"] != "sitting" or not isinstance(settings, dict):
            continue
        unlike = environment.differences(info.get("environment", {}), settings, tuple(settings))
        told = [f"{name} (was {one}, is {other})" for name, (one, other) in unlike.items()]
        told += ["the plan or an implementation's source"] if record.get("digest") != info.get("digest") else []
        if told:
            where = f"shard {record['part']}" if record["part"] else "a sitting"
            notes.append(f"{where} is of another run than run.json tells, it differs in {', '.join(told)}")
    return list(dict.fromkeys(notes))


def _summary(sittings: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the sittings tell of the run as a whole."""
    if not sittings:
        return {}
    walls = [one["wall_s"] for one in sittings if isinstance(one["wall_s"], (int, float))]
    seeds = {one["seed"] if isinstance(one["seed"], int) else None for one in sittings}
    machines = [one["machine"] for one in sittings if isinstance(one["machine"], dict)]
    told: dict[str, Any] = {"sittings": sittings, "machine": {k: v for seen in machines for k, v in seen.items()}}
    return told | {"wall_s": sum(walls) if walls else None, "seed": seeds.pop() if len(seeds) == 1 else None}


def _problem_fields(key: str) -> dict[str, Any]:
    problem = Problem.parse(str(key))
    names = ("label", "size_label", "batch_size", "num_classes", "elements", "dtype", "device", "logits", "reduction")
    return {name: getattr(problem, name) for name in names}


def _cell_row(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**_problem_fields(line["problem"]), **line, "labels": ",".join(line.get("labels") or [])}


def _verdict_row(line: Mapping[str, Any], seeds: Mapping[str, int | None]) -> dict[str, Any]:
    joined = {name: ",".join(line.get(name) or []) for name in ("deviations", "labels")}
    return {**_problem_fields(line["problem"]), **line, **joined, **_again(line, seeds)}


def _again(line: Mapping[str, Any], seeds: Mapping[str, int | None]) -> dict[str, str]:
    """Return the command that asks again, once the seed is no secret any more."""
    seed = seeds.get(line.get("sitting", ""))
    # Schema 1 kept the seed in the line, where whoever was judged could read it while the run went on.
    return {} if seed is None else {"reproduce": f"{line['reproduce']} --seed {seed}"}


def _in_plan_order(rows: pd.DataFrame, info: Mapping[str, Any]) -> pd.DataFrame:
    """Sort rows as they were planned: they were run in random order. What no plan names stays as it came, last."""
    plan = info.get("plan", {})
    ranks = {
        column: {value: rank for rank, value in enumerate(plan.get(key, []))}
        for column, key in (("problem", "problems"), ("implementation", "implementations"), ("phase", "phases"))
        if column in rows
    }
    keys = pd.DataFrame({column: rows[column].map(rank) for column, rank in ranks.items()})
    return rows.loc[keys.sort_values(list(ranks), kind="stable").index].reset_index(drop=True)
