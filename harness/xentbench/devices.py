"""Devices that are timed side by side, one active worker each."""

from __future__ import annotations

from concurrent.futures import as_completed
from typing import TYPE_CHECKING

from xentbench.workers import stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from xentbench.spec import Problem


class StoppedError(Exception):
    """Something else failed, or the person stopped the run: workers are being ended, and what they say is no result."""


def apart(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Return the problems of each device, devices and problems in the order given."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.device, []).append(problem)
    return found


def side_by_side(tasks: Sequence[Callable[[], None]], most: int, stop: Callable[[], None]) -> None:
    """Run tasks, at most so many at a time, each in a thread that outlives its workers; one alone in this thread.

    Args:
        tasks: what is to be done on each device.
        most: cores that they have: each task keeps one busy.
        stop: called before any worker is ended because of an error, Ctrl-C included; from then on every task is to
            raise StoppedError where it would tell a result.

    Raises:
        BaseException: the first error of any task, once all have ended.
    """
    if len(tasks) < 2 or most < 2:  # noqa: PLR2004 - nothing goes beside anything
        for task in tasks:
            task()
        return

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException:
            stop()
            raise

    with stoppable(min(len(tasks), most)) as pool:
        try:
            jobs = [pool.submit(guarded, task) for task in tasks]
            errors = [error for job in as_completed(jobs) if (error := job.exception()) is not None]
        except BaseException:
            stop()
            raise
        for error in sorted(errors, key=lambda one: isinstance(one, StoppedError)):
            raise error
