"""From the options of `bench` to a plan and to the folder that it goes to: of a new run, a shard, or one resumed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from xentbench import environment, options, panel, planning, results, resuming
from xentbench.shards import Shard
from xentbench.spec import CROSS_ENTROPY, UsageError
from xentbench.worker.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xentbench.journal import Journal
    from xentbench.planning import Plan
    from xentbench.spec import Phase, Status


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line said: names and files of implementations, problems (`asked`), and how to run (`how`)."""

    names: Sequence[str]
    globs: Sequence[str]
    plugins: Sequence[str]
    asked: Mapping[str, Any]
    how: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What one process is to do of a run.

    Attributes:
        plan: its share.
        whole: the plan of all shares.
        journal: of its share; nobody else writes it.
        finished: how cells ended in earlier sittings.
        again: the command line that goes on, should this sitting be stopped.
        facts: what the journal holds of this sitting's start.
        known: (name, problem key) of what earlier sittings found of accuracy alone.
        trained: (name, workload) of what earlier sittings trained.
    """

    plan: Plan
    whole: Plan
    journal: Journal
    again: str
    facts: Mapping[str, Any]
    finished: Mapping[tuple[str, str, Phase], Status] = field(default_factory=dict)
    known: frozenset[tuple[str, str]] = frozenset()
    trained: frozenset[tuple[str, str]] = frozenset()

    @property
    def missing(self) -> int:
        """Number of cells of its share that no sitting has finished."""
        names = [entry.name for entry in self.plan.implementations]
        keys = ((n, p.key, phase) for n in names for p in self.plan.problems for phase in self.plan.phases)
        return sum(key not in self.finished for key in keys)


def place(given: Given) -> Order:
    """Return the order that the options make; the run's folder and its `run.json` are there then, and it is locked.

    Raises:
        UsageError: options that make no sense, a run that is being written by another process, or one that cannot go
            on with what is asked here and now: the message names what differs.
    """
    shard = _shard(given.how)
    runs, run = Path(given.how["results"]), given.how["run"] or ""
    journal: Journal | None = None
    stored: Mapping[str, Any] | None = None
    if given.how["resume"]:
        folder = results.find(given.how["resume"], runs)
        runs, run = folder.parent, folder.name
        # The lock comes first: what another process is writing is refused before anything is looked at.
        journal, stored = results.create(runs, run, shard.part), results.head(folder)
        given = _recalled(given, stored)
    else:
        results.check_writable(runs)
        journal = results.create(runs, run, shard.part) if run and (runs / run).exists() else None
    plan, grids = _plan(given)
    info = head(plan, given, shard, grids)
    info["digest"] = resuming.digest(info)
    info["clock_trial"] = comparable_trial(results.trial(runs), info["environment"])
    journal = journal or results.create(runs, run, shard.part)
    done, known, trained = {}, frozenset[tuple[str, str]](), frozenset[tuple[str, str]]()
    if stored is not None or not journal.found(info):
        resuming.demand_same(_resumable(stored or results.head(journal.folder)), {**info, "run": journal.run})
        stood = results.read(journal.folder)
        done, known, trained = results.finished(stood), results.graded(stood), results.trained(stood)
    files = {"--plugin": given.plugins, "": given.names, "--logits": [f for f in [given.asked["logits_file"]] if f]}
    again = resuming.command(journal.run, shard, str(runs), files)
    settings = {name: info["environment"].get(name) for name in environment.RESUMABLE}
    facts = {"part": journal.part, "digest": info["digest"], "environment": settings}
    return Order(plan.share(shard), plan, journal, again, facts, done, known, trained)


def _shard(how: Mapping[str, Any]) -> Shard:
    """Return the share that is asked for; refuse what can name no folder, or two."""
    shard = Shard.parse(how["shard"]) if how["shard"] else Shard()
    if how["run"] and how["resume"]:
        msg = "--run names a run and --resume goes on with one: give one of them"
        raise UsageError(msg)
    if shard.count > 1 and not (how["run"] or how["resume"]):
        msg = f"--shard {shard} needs --run NAME, the same for all shards: the run that they are parts of"
        raise UsageError(msg)
    return shard


def _resumable(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    if "asked" not in stored:
        msg = f"run {stored.get('run')} cannot be continued: the version that began it did not keep what was asked"
        raise UsageError(msg)
    return stored


def _recalled(given: Given, stored: Mapping[str, Any]) -> Given:
    """Return the options with those that were not given taken from the run; `demand_same` sees to those that were."""
    kept, plan, settings = _resumable(stored)["asked"], stored["plan"], stored["environment"]
    asked = dict(given.asked)
    if not any(value for name, value in asked.items() if name != "logits_file"):
        asked["problem"] = tuple(plan["problems"])
    asked["logits_file"] = asked["logits_file"] or _there(kept["logits_file"], "--logits")
    named = given.names or given.globs
    places = [name for name in kept["names"] if ".py:" in name]
    for text in () if named else places:
        _there(text.rpartition(":")[0], "FILE.py:NAME")
    for text in () if given.plugins else kept["plugins"]:
        _there(text, "--plugin")
    return Given(
        given.names if named else kept["names"],
        given.globs if named else kept["globs"],
        given.plugins or kept["plugins"],
        asked,
        _how(given.how, stored, plan, settings),
    )


def _how(
    how: Mapping[str, Any], stored: Mapping[str, Any], plan: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how the run is made, as asked, else as it was begun."""
    told = {
        "preset": stored["preset"],
        "phase_names": tuple(plan["phases"]),
        "budget": str(stored["budget_s"]),
        "workers": plan["workers"],
        "seed": plan["seed"],
        "train": plan.get("trains", False),
    }
    chosen = {name: value if how[name] in (None, ()) else how[name] for name, value in told.items()}
    conditions = {name: settings[name] for name in ("threads", "allocator", "cache", "flush_denormal")}
    conditions["allocator"] = "both" if plan["beside_cold"] else conditions["allocator"]
    context = click.get_current_context(silent=True)
    for name, value in conditions.items():
        typed = context is not None and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        chosen[name] = how[name] if typed else value
    return {**how, **chosen}


def _there(file: str | None, option: str) -> str | None:
    """Return a file that a run was begun with; it is kept relative to the folder that this was in."""
    if file is not None and not Path(file).exists():
        msg = (
            f"the run was begun with {option} {file}, which is not found from here: give {option} again, with its path"
        )
        raise UsageError(msg)
    return file


def _plan(given: Given) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan that the options make, and the grids that they named."""
    how, asked = given.how, given.asked
    preset_name = how["preset"] or "default"
    preset = planning.capped(planning.PRESETS[preset_name], options.seconds(how["budget"]), how["workers"])
    phases = options.phases(how["phase_names"])
    wanted = options.wanted(asked, "smoke" if preset_name == "quick" else "default")
    posed = planning.pose(wanted, asked["logits_file"])
    accuracy = panel.accuracy(list(dict.fromkeys(p.device for p in posed.problems if p.key not in posed.skipped)))
    keys = [problem.key for problem in (*posed.problems, *accuracy)]
    entries = options.chosen(given.names, given.globs, given.plugins, keys)
    conditions, both = options.conditions(how)
    seed = options.fresh_seed(how["seed"])
    by_default = preset_name != "quick" and preset.budget_s >= planning.TRAINED_FROM_S
    trains = by_default if how["train"] is None else how["train"]
    plan = planning.make(
        posed, entries, phases, preset, seed, conditions, beside_cold=both, accuracy=accuracy, trains=trains
    )
    return plan, tuple(asked["grid"])


def head(plan: Plan, given: Given, shard: Shard, grids: Sequence[str]) -> dict[str, Any]:
    """Return what `run.json` says of a run from its start: plan, conditions and implementations, and no secret seed."""
    devices = sorted({problem.device for problem in plan.problems})
    settings = environment.describe(plan.conditions, ",".join(devices))
    settings["pool_bytes"] = plan.pool_bytes
    settings["clock_overhead_ns"] = Clock.system().overhead_ns
    file = given.asked["logits_file"]
    return {
        "contract": CROSS_ENTROPY.name,
        "preset": given.how["preset"] or "default",
        "budget_s": plan.preset.budget_s,
        "workers": plan.preset.workers,
        "baseline": CROSS_ENTROPY.baseline,
        "grids": list(grids),
        "warnings": list(plan.warnings),
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "environment": settings,
        "implementations": resuming.described(plan),
        "plan": resuming.planned(plan, shard.count, given.how["seed"]),
        "asked": {
            "names": list(map(resuming.placed, given.names)),
            "globs": list(given.globs),
            "plugins": list(map(resuming.placed, given.plugins)),
            "logits_file": None if file is None else resuming.placed(file),
        },
    }


def comparable_trial(trial: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the self-test where it was made under the run's conditions: else it is no evidence for this run."""
    if trial is None or environment.differences(trial.get("environment", {}), settings):
        return None
    return {name: trial[name] for name in ("started", "seed", "trials")}
