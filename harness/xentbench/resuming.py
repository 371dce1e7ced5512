"""Going on with a run: what is written of it at its start, and what must not have changed since."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xentbench import environment, registry
from xentbench.examining import spelled
from xentbench.spec import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xentbench.planning import Plan
    from xentbench.shards import Shard


def planned(plan: Plan, shards: int, seed: int | None) -> dict[str, Any]:
    """Return what `run.json` holds of the plan.

    Args:
        plan: of the whole run.
        shards: how many processes share it.
        seed: that the person gave, which is no secret, or None: every sitting then draws its own.
    """
    return {
        "problems": [problem.key for problem in plan.problems],
        "implementations": [entry.name for entry in plan.implementations],
        "phases": list(plan.phases),
        "workers": plan.preset.workers,
        "half_width": plan.preset.half_width,
        "beside_cold": plan.beside_cold,
        "trains": plan.trains,
        "shards": shards,
        "seed": seed,
    }


def described(plan: Plan) -> list[dict[str, Any]]:
    """Return what `run.json` holds of each implementation; `code` is a hash of its source."""
    return [
        {
            "name": entry.name,
            "origin": entry.origin,
            "status": entry.status,
            "reason": entry.reason,
            "summary": entry.summary,
            "reference": entry.reference,
            "code": registry.fingerprint(entry),
        }
        for entry in plan.implementations
    ]


def digest(info: Mapping[str, Any]) -> str:
    """Return a hash of a run's plan and sources: shards that never met on one disk are told apart by it."""
    told = [info["plan"], [(entry["name"], entry["code"]) for entry in info["implementations"]]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def demand_same(stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Demand that what is asked now, here, is what a run was begun with.

    Args:
        stored: `run.json` of the run.
        now: what it would be if the run began now.

    Raises:
        UsageError: names all that differs.
    """
    changed = [*_settings(stored, now), *_plans(stored["plan"], now["plan"]), *_sources(stored, now)]
    if changed:
        msg = f"run {stored['run']} cannot be continued: since its start there changed {'; '.join(changed)}"
        raise UsageError(f"{msg}; undo that, or start a new run")  # noqa: EM102 - one sentence, grown above


def _settings(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    unlike = environment.differences(stored["environment"], now["environment"], environment.RESUMABLE)
    return [f"{name} (was {before}, is {after})" for name, (before, after) in unlike.items()]


def _plans(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changed = []
    for name, after in now.items():
        before = stored.get(name, False)  # what the version that began it did not know was not asked
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            gone, come = ([one for one in a if one not in b] for a, b in ((before, after), (after, before)))
            told = [f"{sign} {', '.join(several)}" for sign, several in (("without", gone), ("with", come)) if several]
            changed.append(f"the {name} ({' and '.join(told) or 'their order'})")
        else:
            changed.append(f"the {name.replace('_', ' ')} (was {before}, is {after})")
    return changed


def _sources(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    before = {entry["name"]: entry for entry in stored["implementations"]}
    both = [(before[entry["name"]], entry) for entry in now["implementations"] if entry["name"] in before]
    sources = [f"the source of {new['name']} ({new['origin']})" for old, new in both if old["code"] != new["code"]]
    return sources + [
        f"whether {new['name']} can be asked (was {old['status']}, is {new['status']}: {new['reason']})"
        for old, new in both
        if old["status"] != new["status"]
    ]


def placed(text: str) -> str:
    """Return a file, or `FILE.py:NAME`, as `run.json` may hold it: relative to here, and no folders of this machine."""
    return spelled(text) if os.path.isabs(text) else text  # noqa: PTH117 - may be package.module:NAME


def command(run: str, shard: Shard, results: str, files: Mapping[str, Sequence[str]]) -> str:
    """Return the command line that goes on with a run.

    Args:
        run: its id.
        shard: the share of this process.
        results: folder of all runs.
        files: option (empty for names) -> the files it named; those that are not found from here are repeated.
    """
    words = ["xentbench", "bench", "--resume", run]
    words += ["--shard", str(shard)] if shard.count > 1 else []
    words += ["--results", results] if Path(results) != Path("results/runs") else []
    for option, several in files.items():
        if any(_is_elsewhere(text) for text in several):
            words += [word for text in several for word in ([option, text] if option else [text])]
    return shlex.join(words)


def _is_elsewhere(text: str) -> bool:
    return Path(placed(text)).resolve() != Path(text).resolve()
