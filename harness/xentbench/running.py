"""From a plan to a finished run on disk, and from two names to a comparison: what the verbs do, without the showing."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xentbench import compare as comparing
from xentbench import console, environment, options, planning, report, results, revisions, sweep, twins
from xentbench.compare import Difference
from xentbench.spec import AbsentError, Outcome, Side, Status, UsageError
from xentbench.worker import interpreting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xentbench.ordering import Order
    from xentbench.planning import Plan
    from xentbench.results import Run
    from xentbench.revisions import Checkouts
    from xentbench.spec import Description
    from xentbench.twins import Trial
    from xentbench.watching import Watch

WORKERS: Final = 3
"""Processes in which two implementations duel."""
WORKERS_OF_GATE: Final = 8
"""The same with a margin: of two cells that hold together at 99 %, an interval across eight is 1.4 times as wide as
workers spread, across five 2.5 times, across three 8 times (Student's t)."""


def bench(order: Order, watch: Watch) -> Run:
    """Run what is missing of the order, and return the run as it was read back from the disk: all of its shards.

    The report is written once all cells are there.
    """
    journal, start_s = order.journal, time.monotonic()
    going = sweep.Sweep(order.plan, journal, watch, finished=order.finished, known=order.known, trained=order.trained)
    ended = "stopped"
    try:
        journal.began({**order.facts, "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")})
        going.run()
        ended = "finished"
    finally:
        # The seed was secret while anything could be asked; it is written when nothing can any more, Ctrl-C included.
        machine = {device: seen.record() for device, seen in going.survey.machines.items()}
        told = {"ended": ended, "seed": order.plan.seed, "wall_s": time.monotonic() - start_s, "machine": machine}
        journal.ended(told)
        if not journal.part:  # shards never write what is not theirs alone
            journal.head(results.read(journal.folder).info)
    run = results.read(journal.folder)
    if is_complete(run, order.whole):
        report.write(run, journal.folder)
    return run


def is_complete(run: Run, plan: Plan) -> bool:
    """Whether every cell of the plan is there."""
    return len(results.ended(run)) >= plan.cells


def clock_trial(seed: int, folder: Path, watch: Watch, *, quick: bool = False) -> list[Trial]:
    """Try the clock on this machine and keep what came of it beside the runs; a quick look proves nothing."""
    results.check_writable(folder)
    started = dt.datetime.now(dt.UTC)
    if quick:
        return twins.trials(seed, watch, {pair: count // 10 for pair, count in twins.DUELS.items()})
    tried = twins.trials(seed, watch)
    had, _ = environment.attainable(environment.Conditions())
    record = {
        "started": started.isoformat(timespec="seconds"),
        "seed": seed,
        "environment": environment.describe(had),
        "trials": [trial.record() for trial in tried],
    }
    results.save_trial(folder, record)
    return tried


def record(run: Run) -> dict[str, Any]:
    """Return the object of `bench --json`: every cell with its documented columns, nulls where nothing was measured."""
    cells = run.cells.astype(object).where(run.cells.notna(), None).to_dict("records")
    for cell in cells:
        cell["labels"] = [label for label in str(cell["labels"] or "").split(",") if label]
    return {"run": run.id, "path": str(run.path), "cells": cells}


def is_wrong(run: Run) -> bool:
    """Whether a cell, a training, or what was asked for accuracy alone ended wrong, with no deviation declared."""
    declared = run.cells["labels"].str.contains("declared-deviation", na=False)
    graded = run.accuracies[run.accuracies["deviations"] == ""]
    statuses = [*run.cells.loc[~declared, "status"], *graded["status"], *run.trainings["status"]]
    return any(Status(status).is_wrong for status in statuses)


def untimed(run: Run) -> str:
    """Return, in one sentence, that nothing was timed although something could have been; '' where it is not so."""
    cells = run.cells
    right = cells["status"] == Status.PASSED
    late = results.late(cells)
    if cells.loc[right, "ratio"].notna().any() or not (right | late).any():
        return ""
    reason = cells.loc[right | late, "reason"].fillna("").mode().iloc[0]
    return f"nothing was timed: {reason or 'no reason was told'}{'' if '--budget' in reason else ': raise --budget'}"


def margin(first: str, second: str, how: Mapping[str, Any]) -> float | None:
    """Return the margin of two implementations; None of two runs, which have one of their own.

    Raises:
        UsageError: one was typed for two runs; what the settings say of it is of implementations.
    """
    folder, told = Path(how["results"]), how["margin"]
    if any(_run_or_none(name, folder) is None for name in (first, second)):
        return None if told is None else float(told)
    if told is not None and options.is_typed("margin"):
        msg = f"--margin is of two implementations: between two runs it is {comparing.RUN_MARGIN:.0%}, leave it out"
        raise UsageError(msg)
    return None


def compare(first: str, second: str, asked: Mapping[str, Any], how: Mapping[str, Any]) -> list[Difference]:
    """Compare two runs where both names are runs, else two implementations, each of any revision.

    Where the first is the second of a revision that does not have it yet, that is the one difference: nothing can be
    slower.

    Raises:
        UsageError: neither.
        EnvironmentMismatchError: runs of unlike environments.
    """
    folder = Path(how["results"])
    stored = [_run_or_none(name, folder) for name in (first, second)]
    if stored[0] is not None and stored[1] is not None:
        one, other = (results.read(path) for path in stored if path is not None)
        return comparing.runs(one, other, force=how["force"])
    if any(stored):
        for name, path in zip((first, second), stored, strict=True):
            if path is None and not _is_implementation(name):
                results.find(name, folder)  # raises: it tells which runs there are
        msg = f"compare expected two runs or two implementations, got one of each: {first!r} and {second!r}"
        raise UsageError(msg)
    with revisions.Checkouts() as checkouts:
        return _duel(first, second, checkouts, asked, how)


def _duel(
    first: str, second: str, checkouts: Checkouts, asked: Mapping[str, Any], how: Mapping[str, Any]
) -> list[Difference]:
    """Compare two implementations by name, or by the source of one in a revision."""
    phases = options.phases(how["phase_names"])
    posed = planning.pose(options.wanted(asked, "smoke"), asked["logits_file"])
    keys = [problem.key for problem in posed.problems]
    with contextlib.suppress(AbsentError):  # told below; a revision that is unknown is told before anything long
        if revisions.is_spelled(first):
            checkouts.source(first)
    after = _only(second, checkouts, keys)
    try:
        before = _only(first, checkouts, keys)
    except AbsentError as error:
        if not revisions.is_same(first, second):
            raise
        reason = f"nothing to compare with: {error}"
        return [Difference(after.shown, "", "", Outcome.INCONCLUSIVE, reason=reason, wrong=Side.FIRST)]
    for entry in (before, after):
        if entry.interpreted:
            msg = f"compare times both, but {entry.shown} is {interpreting.NEVER_TIMED}; parity judges it here"
            raise UsageError(msg)
    workers = how["workers"] or (WORKERS if how["margin"] is None else WORKERS_OF_GATE)
    preset = planning.capped(planning.PRESETS["default"], None, workers)
    plan = planning.make(posed, [before, after], phases, preset, options.fresh_seed(how["seed"]))
    with console.progressing(console.errors()) as watch:
        return comparing.implementations(before, after, plan, watch, how["margin"])


def _only(name: str, checkouts: Checkouts, keys: Sequence[str]) -> Description:
    """Return the one implementation of this name, of a revision where it asks for one."""
    source = [checkouts.source(name)] if revisions.is_spelled(name) else []
    found = options.chosen([] if source else [name], [], [], keys, source)
    if len(found) != 1:
        msg = f"compare expected one implementation a side, got {len(found)} for {name!r}: give an exact name"
        raise UsageError(msg)
    return found[0]


def _is_implementation(name: str) -> bool:
    """Whether this names an implementation, or is spelled as one."""
    try:
        return ":" in name or bool(options.chosen([name], [], [], []))
    except UsageError:
        return False


def _run_or_none(name: str, folder: Path) -> Path | None:
    try:
        return results.find(name, folder)
    except UsageError:
        return None
