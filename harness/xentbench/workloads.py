"""Workloads: problems whose logits and target come from a real call: `digits`, `text`, or a user's `file`.

A problem's key names the very bytes by their SHA-256, since another machine may have trained other ones.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import torch

from xentbench.capturing import capture
from xentbench.recordings import cautions, from_file, looks_like_probabilities, recorded_options, sum_tolerance
from xentbench.spec import DEFAULT_IGNORE_INDEX, FAMILIES, Problem, UsageError, nearest
from xentbench.trained import WorkloadUnavailableError, digits, text

if TYPE_CHECKING:
    from pathlib import Path

    from xentbench.inputs import Recorded

__all__ = [
    "WORKLOADS",
    "WorkloadUnavailableError",
    "capture",
    "cautions",
    "digits",
    "from_file",
    "looks_like_probabilities",
    "record",
    "recorded_options",
    "resolve",
    "text",
]

WORKLOADS: Final = ("digits", "text", "file")
"""Names that a problem's `logits` may carry beside the synthetic families."""
SHA_DIGITS: Final = 12
"""How much of the SHA-256 a problem's key carries."""


def record(name: str, path: Path | None = None, *, ignore_index: int | None = None) -> Recorded:
    """Return the recorded arguments of that name.

    Args:
        name: `digits`, `text` or `file`.
        path: the file's; the other names do not use it.
        ignore_index: as in `from_file`.

    Raises:
        UsageError: unknown name, no path for `file`, or a file that is wrong.
        WorkloadUnavailableError: this installation cannot make the workload.
    """
    if name not in WORKLOADS:
        msg = f"logits {name!r} is unknown: {nearest(name, (*FAMILIES, *WORKLOADS))}"
        raise UsageError(msg)
    if name != "file":
        return digits() if name == "digits" else text()
    if path is None:
        msg = "logits 'file' must come with a safetensors file, got none: give --logits FILE.safetensors"
        raise UsageError(msg)
    return from_file(path, ignore_index=ignore_index)


def resolve(problem: Problem, path: Path | None = None) -> tuple[Problem, Recorded]:
    """Return the problem with what the recording decides, and the recording; resolving twice changes nothing more.

    Shape, kind of target and weight follow the recorded tensors, and `logits` becomes `NAME@` and the first 12 digits
    of their SHA-256. A file's `ignore_index` holds unless the problem sets another. Everything else (dtype, reduction,
    label smoothing, layouts, device …) stays the problem's.

    Args:
        problem: its `logits` name a workload, with or without a SHA-256.
        path: of the workload `file`.

    Raises:
        UsageError: an axis that contradicts the recording or does not apply to it, another SHA-256 than was named, or
            what `record` raises.
        WorkloadUnavailableError: this installation cannot make the workload.
    """
    name, _, sha = problem.logits.partition("@")
    ignore_index = None if problem.ignore_index == DEFAULT_IGNORE_INDEX else problem.ignore_index
    recorded = record(name, path, ignore_index=ignore_index)
    decided = _decided(recorded)
    objection = _about_sha(name, sha, recorded) or _about_axes(problem, decided)
    if objection:
        msg = f"problem {problem.key}: {objection}"
        raise UsageError(msg)
    if name == "file" and path is not None and ignore_index is None and decided["target"] == "index":
        decided["ignore_index"] = recorded_options(path).get("ignore_index", DEFAULT_IGNORE_INDEX)
    logits = f"{name}@{recorded.sha256[:SHA_DIGITS]}"
    return dataclasses.replace(problem, logits=logits, **decided), recorded


def _decided(recorded: Recorded) -> dict[str, Any]:
    """Return the fields of a problem that its recorded tensors decide."""
    shape, target = recorded.logits.shape, recorded.target
    batch_size, num_classes, dims = (shape[0], shape[1], tuple(shape[2:])) if len(shape) > 1 else (None, shape[0], ())
    kind = "index"
    if target.is_floating_point():
        sums = target.sum(dim=1 if target.dim() > 1 else 0, dtype=torch.float64)
        kind = "soft" if bool(((sums - 1).abs() <= sum_tolerance(target)).all()) else "unnormalised"
    decided: dict[str, Any] = {"batch_size": batch_size, "num_classes": num_classes, "dims": dims, "target": kind}
    return decided | ({} if recorded.weight is None else {"weight": "recorded"})


def _about_sha(name: str, sha: str, recorded: Recorded) -> str | None:
    if recorded.sha256.startswith(sha.lower()):
        return None
    why = "the file is another one" if name == "file" else "recorded logits depend on machine and torch version"
    here = recorded.sha256[:SHA_DIGITS]
    return f"logits must have the SHA-256 {sha}, got {here} here: {why}, so ask for the plain logits={name}"


def _about_axes(problem: Problem, decided: dict[str, Any]) -> str | None:
    """Name the first axis that was set to something else than recorded logits have or can have."""
    for axis in dataclasses.fields(problem):
        value, default = getattr(problem, axis.name), axis.default
        if axis.name in ("labels", "ignored") and value != default:
            return f"{axis.name} must be left out with recorded logits, which bring their target, got {value}"
        if axis.name in decided and value not in (default, decided[axis.name]):
            wanted = f"agree with the recording ({decided[axis.name]}) or be left out"
            return f"{axis.name.replace('_', ' ')} must {wanted}, got {value}"
    if problem.weight == "absent-only":
        return "weight 'absent-only' was expected with synthetic labels only, got recorded ones: try some-zero"
    if problem.weight == "recorded" and "weight" not in decided:
        return "weight 'recorded' needs a recording that holds a weight, got none: leave it out"
    return None
