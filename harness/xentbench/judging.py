"""From what `parity` is asked to what the judge says, held against a baseline, without the showing."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xentbench import baseline, checking, console, environment, found, offers, options, panel, planning, training
from xentbench.spec import CROSS_ENTROPY, Problem, Status, UsageError, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xentbench.baseline import Baseline, Change
    from xentbench.checking import Checked
    from xentbench.found import Found
    from xentbench.planning import Posed
    from xentbench.spec import Description
    from xentbench.training import Trained

PANELS: Final = ("quick", "full")
FIGURES: Final = (".svg", ".png")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of `parity`, read and found to make sense.

    Attributes:
        names: implementations, as typed.
        globs: of implementations.
        plugins: files with more of them.
        problems: what is asked, recorded ones without their sizes.
        compiled: what an entrant that compiles is asked in their place.
        logits_file: of a person's own logits.
        grid: name of the panel, where the problems are a whole one, else ''.
        seed: of the numbers.
        required: options that must be offered.
        baseline: that the run is held against.
        baseline_file: where a new baseline goes.
        found_file: what fresh seeds found, and where more of it goes.
        kept: entries of that file.
        compile: whether everybody is put under `torch.compile`.
        train: whether small models are trained with everybody's loss.
        figure_file: where their curves are drawn.
    """

    names: Sequence[str]
    globs: Sequence[str]
    plugins: Sequence[str]
    problems: tuple[Problem, ...]
    compiled: tuple[Problem, ...]
    logits_file: str | None
    grid: str
    seed: int
    required: tuple[str, ...] = ()
    baseline: Baseline | None = None
    baseline_file: Path | None = None
    found_file: Path | None = None
    kept: tuple[Found, ...] = ()
    compile: bool = False
    train: bool = False
    figure_file: Path | None = None

    @property
    def outdated(self) -> str:
        """Why the baseline belongs to another version of the panel, in one sentence; '' where it does not."""
        return self.baseline.outdated(panel.PANEL) if self.baseline else ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of it.

    Attributes:
        checked: what the judge says of each implementation.
        posed: the problems.
        seed: of the numbers.
        replayed: failures of what was found before.
        required: implementations that do not offer a required option, one sentence each.
        changes: differences from the baseline.
        trained: what came of training with each.
        notes: what became of the files.
    """

    checked: tuple[Checked, ...]
    posed: Posed
    seed: int
    replayed: tuple[Mapping[str, Any], ...] = ()
    required: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    trained: tuple[Trained, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unjudged(self) -> str:
        """Why no answer of anybody was judged, in one sentence; '' where any was. Nothing judged is nothing passed."""
        if not self.checked or any(not entry.nothing_judged for entry in self.checked):
            return ""
        told = "; ".join(f"{entry.entry.name}: {entry.nothing_judged}" for entry in self.checked)
        return f"nothing was judged: {told}"

    @property
    def is_wrong(self) -> bool:
        """Whether anything failed: an answer, one found before, a training, a required option, the baseline.

        A run in which nothing was judged fails too.
        """
        failed = any(entry.verdict in ("fail", "error") for entry in self.checked)
        failed = failed or bool(self.unjudged) or any(one.status.is_wrong for one in self.trained)
        return failed or bool(self.replayed or self.required) or any(change.fails for change in self.changes)

    def record(self) -> dict[str, Any]:
        """Return the object of `parity --json`."""
        return {
            "contract": CROSS_ENTROPY.name,
            "panel": panel.PANEL,
            "seed": self.seed,
            "implementations": {entry.entry.name: entry.record() for entry in self.checked},
            "replayed": [dict(failure) for failure in self.replayed],
            "required": list(self.required),
            "unjudged": self.unjudged,
            "changes": [change.record() for change in self.changes],
            "trainings": [one.record() for one in self.trained],
        }


def read(
    names: Sequence[str], globs: Sequence[str], plugins: Sequence[str], asked: Mapping[str, Any], how: Mapping[str, Any]
) -> Asked:
    """Read what was typed, and everything that it names, before anything long starts.

    Raises:
        UsageError: options that contradict each other, unknown names, files that cannot be read or written.
    """
    if how["compile"] and (how["baseline"] or how["write_baseline"] or how["found"]):
        msg = "--compile judges another program: give it without --baseline, --write-baseline and --found"
        raise UsageError(msg)
    if how["train"] and (how["baseline"] or how["write_baseline"]):
        msg = "--train compares with a training made now: give it without --baseline and --write-baseline"
        raise UsageError(msg)
    was = _baseline(asked, how)
    grid = was.grid if was else _panel_name(asked)
    if how["write_baseline"] and (was or not grid):
        msg = (
            "--write-baseline expected a whole panel: give it without --baseline and with no problem option but --grid"
        )
        raise UsageError(msg + " quick or full")
    problems, compiled = _problems(asked, grid)
    _check_training(how, problems)
    kept = found.read(Path(how["found"])) if how["found"] else ()
    return Asked(
        names=names,
        globs=globs,
        plugins=plugins,
        problems=problems,
        compiled=compiled,
        logits_file=asked["logits_file"],
        grid=grid,
        seed=was.seed if was else options.fresh_seed(how["seed"]),
        required=offers.demanded(_split(how["required"]), problems, options.as_written("required", "--require-option")),
        baseline=was,
        baseline_file=_replaceable(how, "write_baseline"),
        found_file=_replaceable(how, "found"),
        kept=kept,
        compile=how["compile"],
        train=how["train"],
        figure_file=_replaceable(how, "train_figure"),
    )


def _check_training(how: Mapping[str, Any], problems: Sequence[Problem]) -> None:
    elsewhere = [problem.device for problem in problems if problem.device != "cpu"]
    if how["train"] and elsewhere:
        msg = f"--train trains on the processor: give it without --device {elsewhere[0]}"
        raise UsageError(msg)
    if how["train_figure"] and not how["train"]:
        msg = "--train-figure draws what --train found: give both"
        raise UsageError(msg)
    if how["train_figure"] and Path(how["train_figure"]).suffix.lower() not in FIGURES:
        msg = f"--train-figure expected a file that ends in .svg or .png, got {how['train_figure']!r}"
        raise UsageError(msg)


def _baseline(asked: Mapping[str, Any], how: Mapping[str, Any]) -> Baseline | None:
    if not how["baseline"]:
        return None
    if any(asked.values()) or how["seed"] is not None:
        msg = "--baseline brings its own panel and seed: give it without --seed, --grid and other problem options"
        raise UsageError(msg)
    return baseline.read(Path(how["baseline"]))


def _panel_name(asked: Mapping[str, Any]) -> str:
    """Return the panel's name where a whole panel is asked and nothing else, else ''."""
    others = any(value for name, value in asked.items() if name != "grid")
    named = tuple(dict.fromkeys(asked["grid"])) or ("full",)
    return named[0] if not others and len(named) == 1 and named[0] in PANELS else ""


def _problems(asked: Mapping[str, Any], grid: str) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Return what is asked, and what in its place of an entrant that compiles: panels, varied by the axes given."""
    if grid:
        return panel.panel(grid), panel.panel("compiled")
    problems = options.wanted(asked, "full", options.JUDGED, leaves_out=True)
    if options.names_problems(asked):
        return problems, problems
    grids = {"compiled": functools.partial(panel.panel, "compiled")}
    return problems, options.wanted(asked, "compiled", grids, leaves_out=True)


def _split(texts: Sequence[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",")]


def _replaceable(how: Mapping[str, Any], name: str) -> Path | None:
    return options.replaceable(how[name], f"--{name.replace('_', '-')}") if how[name] else None


def judge(asked: Asked) -> Judged:
    """Ask, judge, compare, and write what is to be kept."""
    posed = planning.pose(asked.problems, asked.logits_file)
    problems = [problem for problem in posed.problems if problem.key not in posed.skipped]
    short = posed if asked.compiled == asked.problems else planning.pose(asked.compiled)
    compiled = [problem for problem in short.problems if problem.key not in short.skipped]
    entries, changes = _entries(asked, [problem.key for problem in (*problems, *compiled)])
    with console.progressing(console.errors()) as watch:
        again = found.replay(entries, asked.kept, watch) if asked.kept else []
        checked = checking.check(entries, problems, posed.recorded, asked.seed, watch, compiled, grid=asked.grid)
        trained: list[Trained] = []
        if asked.train:
            training.train_all(entries, asked.seed, watch, trained.append)
    held: list[str] = []
    if asked.baseline is not None:
        changes += baseline.compare(asked.baseline, checked)
        held = _held(asked.baseline, changes, checked)
    return Judged(
        checked=tuple(checked),
        posed=posed,
        seed=asked.seed,
        replayed=tuple(again),
        required=tuple(_not_offered(asked.required, checked)),
        changes=tuple(changes),
        trained=tuple(trained),
        notes=(
            *held,
            *_keep_figure(asked, trained),
            *_keep_found(asked, checked, again),
            *_keep_baseline(asked, checked),
        ),
    )


def _entries(asked: Asked, keys: Sequence[str]) -> tuple[list[Description], list[Change]]:
    """Return who is judged: who is named; else who is in the baseline; for a new one, who does not compile."""
    told = [*keys, *(entry.problem for entry in asked.kept)]
    entries = options.chosen(asked.names, asked.globs, asked.plugins, list(dict.fromkeys(told)))
    if asked.compile:
        entries = [e if e.compiles else _wrapped(e) for e in entries]
    if asked.names or asked.globs:
        return entries, []
    if asked.baseline is not None:
        listed = [entry for entry in entries if entry.name in asked.baseline.registered]
        return listed, baseline.census(asked.baseline, entries)
    return [entry for entry in entries if not (asked.baseline_file and entry.compiles)], []


def _wrapped(entry: Description) -> Description:
    """Return the implementation as one that a worker puts under `torch.compile`."""
    if entry.interpreted and entry.status is Status.PASSED:
        reason = "Triton's interpreter, which judges it here, does not run under torch.compile"
        return dataclasses.replace(entry, status=Status.UNSUPPORTED, reason=reason)
    return dataclasses.replace(entry, compiles=True, wrapped=True)


def _not_offered(required: Sequence[str], checked: Sequence[Checked]) -> list[str]:
    return [
        f"{entry.entry.name} does not offer {option}, which --require-option demands: {entry.not_offered[option]}"
        for entry in checked
        for option in required
        if option in entry.not_offered
    ]


def _keep_figure(asked: Asked, trained: Sequence[Trained]) -> list[str]:
    """Draw the curves; return what a person should know of the file."""
    if asked.figure_file is None:
        return []
    from xentbench.report import figures  # noqa: PLC0415 - matplotlib and pandas: only where there is one to draw

    facts = environment.describe(environment.Conditions())
    if not figures.draw_training([one.record() for one in trained], facts, asked.figure_file):
        return [f"{asked.figure_file} was not written: nobody was trained"]
    return [f"{asked.figure_file} holds the curves"]


def _keep_found(asked: Asked, checked: Sequence[Checked], again: Sequence[Mapping[str, Any]]) -> list[str]:
    """Add what this run found to the file; return what a person should know of it."""
    new = found.fresh(checked, asked.seed, again)
    if asked.found_file is None or not new:
        return []
    merged = found.merge(asked.kept, new)
    found.write(asked.found_file, merged)
    left_out = len(set(new) - set(merged))
    full = f", {left_out} more were left out: it holds at most {found.MOST}" if left_out else ""
    return [f"{asked.found_file} holds {counted(len(merged), 'failure')}, to be asked again in every run{full}"]


def _keep_baseline(asked: Asked, checked: Sequence[Checked]) -> list[str]:
    """Write the baseline where everything is right; return what a person should know of it."""
    if asked.baseline_file is None:
        return []
    wrong = [entry.entry.name for entry in checked if entry.verdict in ("fail", "error")]
    if wrong:
        return [f"{asked.baseline_file} was not written: {', '.join(wrong)} failed, and a baseline holds what is right"]
    baseline.write(asked.baseline_file, baseline.make(checked, panel.PANEL, asked.grid, asked.seed))
    held = f"{asked.baseline_file} holds {counted(len(checked), 'implementation')}"
    return [f"{held}; those that compile only if they are named"]


def _held(was: Baseline, changes: Sequence[Change], checked: Sequence[Checked]) -> list[str]:
    """Return a line on a baseline that nothing is worse than."""
    count = sum(was.of(one.entry) is not None for one in checked)
    is_held = count > 0 and not any(change.fails for change in changes)
    return [f"baseline held: {counted(count, 'implementation')}"] if is_held else []
