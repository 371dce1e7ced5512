"""The plan of a run: cells, bytes and time, all known before anything long starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xentbench import environment, problems
from xentbench.spec import Description, EnvironmentMismatchError, Phase, Problem, Status, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xentbench.inputs import Recorded
    from xentbench.shards import Shard

TRAINED_FROM_S: Final = 300.0
"""Budget from which on models are trained by default: of less it would take what the times need."""
SMALL_ELEMENTS: Final = 200_000
"""Up to here a call takes less than about 1 ms."""
LARGE_ELEMENTS: Final = 10_000_000
"""From here on, more than about 50 ms."""
COMPILE_FIRST_S, COMPILE_NEXT_S = 20.0, 4.0
"""Cold set-up of an entrant that compiles: its first problem and each further one, all phases."""
SOLVED_S, STREAMED_S = 5e-7, 5e-8
"""Judging of a logit that is solved in full, and of any: measured in docs/parity.md."""
POOL_LIMIT_BYTES: Final = 256 * 2**20
"""Of a worker's pool of inputs: shared servers tell of caches that no single process ever has to itself."""
START_S: Final = 1.5
"""Start of a worker, importing torch, on one core."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How much a run may spend.

    Attributes:
        budget_s: wall time of the whole run.
        workers: processes that measure each implementation.
        half_width: target of every worker's interval.
    """

    budget_s: float
    workers: int
    half_width: float


PRESETS: Final[Mapping[str, Preset]] = {
    "quick": Preset(budget_s=150.0, workers=1, half_width=0.02),
    "default": Preset(budget_s=420.0, workers=3, half_width=0.01),
    "full": Preset(budget_s=3600.0, workers=5, half_width=0.01),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked of whom.

    Attributes:
        problems: in the order of the report.
        recorded: problem key -> the recorded tensors it is made from.
        implementations: all of them, those that cannot be asked included.
        phases: that are timed.
        skipped: problem key -> why nobody is asked it.
        warnings: for the person, before the run and in its report.
        conditions: that everybody is timed under.
        beside_cold: whether every cell is timed with the default allocator as well.
        accuracy: problems that are asked for accuracy alone, and never timed.
        trains: whether small models are trained with everybody's loss.
        seed: of every number in the run; secret until it has ended.
        preset: how much may be spent.
    """

    problems: tuple[Problem, ...]
    recorded: Mapping[str, Recorded]
    implementations: tuple[Description, ...]
    phases: tuple[Phase, ...]
    seed: int
    preset: Preset
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    conditions: environment.Conditions = field(default_factory=environment.Conditions)
    beside_cold: bool = False
    accuracy: tuple[Problem, ...] = ()
    trains: bool = False

    @property
    def asked(self) -> tuple[Problem, ...]:
        """The problems that are not skipped."""
        return tuple(problem for problem in self.problems if problem.key not in self.skipped)

    def share(self, shard: Shard) -> Plan:
        """Return the plan of one share of the problems; the first share trains."""
        problems, accuracy = shard.of(self.problems), shard.of(self.accuracy)
        return dataclasses.replace(self, problems=problems, accuracy=accuracy, trains=self.trains and shard.number == 1)

    @property
    def cells(self) -> int:
        """Number of (implementation, problem, phase)."""
        return len(self.problems) * len(self.implementations) * len(self.phases)

    @property
    def largest_bytes(self) -> int:
        """Most memory that one worker needs for its tensors."""
        return max((problems.worker_bytes(problem) for problem in self.asked), default=0) + self.pool_bytes

    @property
    def pool_bytes(self) -> int:
        """Size of the timed inputs that every worker goes round; 0 where the input stays hot."""
        if self.conditions.cache == "hot":
            return 0
        return min(POOL_LIMIT_BYTES, 2 * environment.last_level_cache_bytes() or POOL_LIMIT_BYTES)

    @property
    def duels(self) -> int:
        """How many duels a cell takes: one in each regime of the allocator."""
        return 1 + self.beside_cold

    def why_not(self, entry: Description, problem: Problem) -> tuple[Status, str] | None:
        """Return status and reason where this implementation is not asked this problem at all, else None."""
        if entry.status is not Status.PASSED:
            return entry.status, entry.reason
        if problem.key in self.skipped:
            return Status.SKIPPED, self.skipped[problem.key]
        if problem.key in entry.refusals:
            return Status.UNSUPPORTED, entry.refusals[problem.key]
        return None

    def askable(self, problem: Problem) -> list[Description]:
        """Return the implementations that can be asked this problem."""
        return [entry for entry in self.implementations if self.why_not(entry, problem) is None]

    def setup_estimate_s(self, cores: int) -> float:
        """Return the estimated time before the first timed call, from the plan alone."""
        usable = [entry for entry in self.implementations if entry.status is Status.PASSED]
        starts = START_S * len(usable) * (1 + self.preset.workers * self.duels)
        compiling = sum(entry.compiles for entry in usable)
        compiles = compiling * (COMPILE_FIRST_S + COMPILE_NEXT_S * max(0, len(self.asked) - 1))
        judging = sum(map(judge_estimate_s, (*self.asked, *self.accuracy))) * len(usable)
        return (starts + compiles + judging) / max(1, min(cores, 2))

    def measure_estimate_s(self) -> float:
        """Return the time that measuring takes when no cell ends early and no budget cuts it."""
        timed = {p: [e for e in self.askable(p) if not e.interpreted] for p in self.asked}
        cells = (len(entries) * cell_limit_s(problem) for problem, entries in timed.items())
        return sum(cells) * len(self.phases) * self.preset.workers * self.duels

    def estimate_s(self, cores: int) -> float:
        """Return the estimated time of the whole run: what it could use, cut by the budget, never below its set-up."""
        setup_s = self.setup_estimate_s(cores)
        return max(setup_s, min(self.preset.budget_s, setup_s + self.measure_estimate_s()))


def judge_estimate_s(problem: Problem) -> float:
    """Return the estimated time in which one implementation's answers to this problem are judged."""
    return SOLVED_S * problems.solved_elements(problem) + STREAMED_S * problem.elements


def weight(problem: Problem) -> int:
    """Return the problem's share in the measuring time: calls above a millisecond need more of it."""
    return 1 if problem.elements < SMALL_ELEMENTS else 3


def cell_limit_s(problem: Problem) -> float:
    """Return the most that one worker ever spends on one cell of this problem (docs/timing.md)."""
    return 0.5 if problem.elements < SMALL_ELEMENTS else 3.0 if problem.elements < LARGE_ELEMENTS else 10.0


def screen(asked: Sequence[Problem], available_bytes: int, has_device: Callable[[str], bool]) -> dict[str, str]:
    """Return the problems that cannot be posed here, each with its reason, before anything is allocated."""
    skipped = {}
    for problem in asked:
        needed = problems.judge_bytes(problem) + problems.worker_bytes(problem)
        if not has_device(problem.device):
            skipped[problem.key] = f"device {problem.device} is not present on this machine"
        elif needed > available_bytes:
            skipped[problem.key] = (
                f"needs about {needed / 2**30:.1f} GiB, {available_bytes / 2**30:.1f} GiB are available"
            )
    return skipped


def device_present(device: str) -> bool:
    """Return whether torch can use this device here."""
    import torch  # noqa: PLC0415 - the command line plans before it pays for torch

    kind, _, index = device.partition(":")
    if kind == "cpu":
        return True
    if kind == "cuda":
        return torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()
    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    return accelerator is not None and accelerator.type == kind


def devices(kind: str) -> list[str]:
    """Return all devices of a kind such as `cuda` that torch can use here.

    Raises:
        UsageError: there is none.
    """
    import torch  # noqa: PLC0415 - as above

    accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
    count = torch.accelerator.device_count() if accelerator is not None and accelerator.type == kind else 0
    if not count:
        msg = f"--device {kind}:all expected {kind} devices, got a machine where torch sees none: try --device cpu"
        raise UsageError(msg)
    return [f"{kind}:{index}" for index in range(count)]


@dataclass(frozen=True, slots=True)
class Posed:
    """Problems ready to be asked: recorded ones have their sizes.

    Attributes:
        problems: in the order wanted.
        recorded: problem key -> recorded tensors.
        skipped: problem key -> why it cannot be posed here.
        warnings: for the person.
    """

    problems: tuple[Problem, ...]
    recorded: Mapping[str, Recorded]
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]


def pose(wanted: Sequence[Problem], logits_file: str | None = None) -> Posed:
    """Turn recorded workloads into problems with sizes, and find out what this machine cannot be asked.

    Raises:
        UsageError: nothing to ask, a file that does not fit, or an axis that makes no sense with recorded logits.
    """
    from xentbench import workloads  # noqa: PLC0415 - as above

    ready: list[Problem] = []
    recorded: dict[str, Recorded] = {}
    skipped: dict[str, str] = {}
    cautions: list[str] = []
    for problem in wanted:
        if problem.recorded is None:
            ready.append(problem)
            continue
        try:
            sized, recording = workloads.resolve(problem, None if logits_file is None else Path(logits_file))
        except workloads.WorkloadUnavailableError as error:
            ready.append(problem)
            skipped[problem.key] = str(error)
            continue
        ready.append(sized)
        recorded[sized.key] = recording
        told = [*workloads.cautions(recording), *_other_dtype(sized, recording)]
        cautions += [f"{problem.recorded}: {caution}" for caution in told]
    if not ready:
        msg = "nothing to do: expected at least one problem (--grid, --problem, --logits or sizes)"
        raise UsageError(msg)
    skipped |= screen(ready, environment.available_bytes() // 2, device_present)
    return Posed(tuple(dict.fromkeys(ready)), recorded, skipped, tuple(dict.fromkeys(cautions)))


def _other_dtype(problem: Problem, recording: Recorded) -> list[str]:
    """Return a caution where a person's own logits are asked in another dtype than they were recorded in."""
    held = str(recording.logits.dtype).removeprefix("torch.")
    same = problem.recorded != "file" or held == problem.dtype
    return [] if same else [f"logits were recorded in {held} and are asked in {problem.dtype}"]


def make(
    posed: Posed,
    implementations: Sequence[Description],
    phases: Sequence[Phase],
    preset: Preset,
    seed: int,
    conditions: environment.Conditions | None = None,
    *,
    beside_cold: bool = False,
    accuracy: Sequence[Problem] = (),
    trains: bool = False,
) -> Plan:
    """Return the plan of asking these implementations the posed problems, under the conditions that can be had here.

    Raises:
        UsageError: a problem that `F.cross_entropy` refuses, or that is not asked in every grad mode: no duel.
    """
    for problem in posed.problems:
        if problem.must_raise or problem.may_raise or problem.mode != "all":
            msg = f"{problem.key} cannot be timed: leave out invalid, label-dtype and mode, which only parity asks"
            raise UsageError(msg)
    wanted = conditions or environment.Conditions()
    had, notes = environment.attainable(wanted)
    return Plan(
        problems=posed.problems,
        recorded=posed.recorded,
        implementations=tuple(implementations),
        phases=tuple(phases),
        seed=seed,
        preset=preset,
        skipped=posed.skipped,
        warnings=(*posed.warnings, *notes),
        conditions=had,
        beside_cold=beside_cold and had.allocator == "warm",
        accuracy=tuple(accuracy),
        trains=trains and any(problem.device == "cpu" for problem in posed.problems),
    )


def capped(preset: Preset, budget_s: float | None, workers: int | None) -> Preset:
    """Return the preset with what the person set by hand."""
    return dataclasses.replace(
        preset,
        budget_s=preset.budget_s if budget_s is None else budget_s,
        workers=preset.workers if workers is None else workers,
    )


def require(devices: Sequence[str]) -> None:
    """Demand that these devices are present.

    Raises:
        EnvironmentMismatchError: names the first one that is not.
    """
    for device in devices:
        if not device_present(device):
            msg = f"--require {device}: this machine has no such device"
            raise EnvironmentMismatchError(msg)
