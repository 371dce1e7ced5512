"""Recorded arguments of real calls: written to one file, read back, checked, and looked at for the common mistakes.

A recording is a safetensors file with `logits`, `target` and, if there were class weights, `weight`; its metadata may
hold the options of the recorded call. Anything that can write safetensors can make one; `xentbench.capture` does.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from xentbench.files import write_atomically
from xentbench.inputs import Recorded
from xentbench.spec import DEFAULT_IGNORE_INDEX, DTYPE_BYTES, UNIT_ROUNDOFF, Problem, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

PROBABILITIES: Final = (
    "logits look like probabilities (every row is >= 0 and sums to 1): "
    "cross_entropy applies log_softmax itself, so pass what went into the softmax instead"
)
LOG_PROBABILITIES: Final = (
    "logits look like log-probabilities (every row is <= 0 and its logsumexp is 0): "
    "harmless for the loss, as log_softmax leaves them as they are, but it is computed twice"
)

_DTYPES: Final = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""What safetensors calls the dtypes that logits may have."""
_READERS: Final[Mapping[str, Callable[[str], Any]]] = {"ignore_index": int, "reduction": str, "label_smoothing": float}


def from_file(path: Path, *, ignore_index: int | None = None) -> Recorded:
    """Return a user's own recorded logits, after everything about them was checked.

    Args:
        path: safetensors file with `logits`, `(C,)`, `(N, C)` or `(N, C, d1, …)` in float64, float32, bfloat16 or
            float16; `target`, int64 class indices without the class axis, or probabilities of the logits' shape; and
            optionally `weight`, `(C,)`, floating.
        ignore_index: target value that is left out; None takes the recorded call's, else -100.

    Raises:
        UsageError: no such file, no safetensors, a missing tensor, or a wrong dtype, shape or label.
    """
    tensors = _read(path)
    logits, target, weight = tensors["logits"], tensors["target"], tensors.get("weight")
    if ignore_index is None:
        ignore_index = recorded_options(path).get("ignore_index", DEFAULT_IGNORE_INDEX)
    objection = _about_logits(logits) or _about_target(logits, target, ignore_index) or _about_weight(logits, weight)
    if objection:
        msg = f"logits file {path}: {objection}"
        raise UsageError(msg)
    return Recorded(logits, target, weight, fingerprint(logits, target, weight))


def recorded_options(path: Path) -> dict[str, Any]:
    """Return the options of the recorded call that the file names: of ignore_index, reduction and label_smoothing.

    Only the header is read. A file that no `capture` wrote has none.

    Raises:
        UsageError: no such file, no safetensors, or an option that is no number where one is expected.
    """
    return _options(path, read_metadata(path))


def recorded_axes(path: Path) -> dict[str, Any]:
    """Return what makes a problem the recorded call: the dtype of its logits, its reduction and its label smoothing.

    What the file does not tell is left out; so is a dtype that nobody is asked. Only the header is read.

    Raises:
        UsageError: no such file, no safetensors, or an option that the loss does not have.
    """
    with _open(path) as file:
        held = file.get_slice("logits").get_dtype() if "logits" in file.keys() else ""  # noqa: SIM118
    told = {"dtype": _DTYPES.get(held), **recorded_options(path)}
    axes = {name: told[name] for name in ("dtype", "reduction", "label_smoothing") if told.get(name) is not None}
    try:
        Problem(**axes)
    except UsageError as error:
        msg = f"logits file {path}: the options of its call are no problem ({error}): record it again"
        raise UsageError(msg) from None
    return axes


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text beside the tensors; only the header is read. Raises UsageError as `from_file` does."""
    with _open(path) as file:
        return file.metadata() or {}


def save(path: Path, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, **metadata: str) -> None:
    """Write a recording so that the path holds either all of it or what it held before.

    Args:
        path: file to write; its folder must exist.
        logits: see `from_file`.
        target: see `from_file`.
        weight: see `from_file`.
        metadata: text beside the tensors.

    Raises:
        OSError: the file cannot be written.
    """
    named = {"logits": logits, "target": target, "weight": weight}
    blob = to_bytes({name: tensor.contiguous() for name, tensor in named.items() if tensor is not None}, metadata)
    write_atomically(path, blob)


def fingerprint(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> str:
    """Return the hexadecimal SHA-256 over dtype, shape and bytes of the three tensors."""
    digest = hashlib.sha256()
    for tensor in (logits, target, weight):
        if tensor is None:
            digest.update(b"none;")
            continue
        digest.update(f"{_name(tensor.dtype)}{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cautions(recorded: Recorded) -> tuple[str, ...]:
    """Return what a person should know about recorded arguments that are valid but may not be what was meant."""
    said = []
    if looks_like_probabilities(recorded.logits):
        said.append(PROBABILITIES)
    elif _looks_like_log_probabilities(recorded.logits):
        said.append(LOG_PROBABILITIES)
    lost = int((recorded.logits.isnan() | recorded.logits.isposinf()).any(dim=_class_axis(recorded.logits)).sum())
    if lost:
        said.append(f"logits hold NaN or +inf in {lost} rows: the loss of these rows is NaN, whatever computes it")
    target = recorded.target
    if target.is_floating_point() and not bool(((target >= 0) & (target <= 1)).all()):
        said.append("target holds values outside [0, 1]: class probabilities were expected")
    return tuple(said)


def looks_like_probabilities(logits: torch.Tensor) -> bool:
    """Return whether every row is >= 0 and sums to 1, as the result of a softmax does: the commonest error of all.

    Args:
        logits: `(C,)`, `(N, C)` or `(N, C, d1, …)`, floating; one class alone tells nothing.
    """
    axis = _class_axis(logits)
    if logits.numel() == 0 or logits.shape[axis] == 1 or not bool((logits >= 0).all()):
        return False
    return bool(((logits.sum(dim=axis, dtype=torch.float64) - 1).abs() <= sum_tolerance(logits)).all())


def _looks_like_log_probabilities(logits: torch.Tensor) -> bool:
    axis = _class_axis(logits)
    if logits.numel() == 0 or logits.shape[axis] == 1 or not bool((logits <= 0).all()):
        return False
    wide = logits if logits.dtype is torch.float64 else logits.float()
    return bool((wide.logsumexp(dim=axis).abs() <= sum_tolerance(logits)).all())


def sum_tolerance(probabilities: torch.Tensor) -> float:
    """Return how far from 1 rows of probabilities over the class axis may sum (from 0 their logsumexp, for logarithms).

    With C classes and the dtype's unit roundoff u: 8u for the softmax itself, u ln C for logarithms as large as ln C,
    and C times what float32 sums, or float16's smallest numbers, may lose each. It decides about words, never about a
    verdict.
    """
    num_classes = probabilities.shape[_class_axis(probabilities)]
    roundoff = UNIT_ROUNDOFF.get(_name(probabilities.dtype), UNIT_ROUNDOFF["float32"])
    return (8.0 + math.log(num_classes)) * roundoff + num_classes * min(roundoff, UNIT_ROUNDOFF["float32"])


def _class_axis(logits: torch.Tensor) -> int:
    return 1 if logits.dim() > 1 else 0


def _read(path: Path) -> dict[str, torch.Tensor]:
    with _open(path) as file:
        held = list(file.keys())
        missing = [name for name in ("logits", "target") if name not in held]
        if missing:
            msg = (
                f"logits file {path} must hold the tensors logits and target, got {', '.join(held) or 'none'}: "
                f"save {' and '.join(missing)} under that name too"
            )
            raise UsageError(msg)
        # Copies: what is mapped from the file would change, or crash, with whoever overwrites it.
        return {name: file.get_tensor(name).clone() for name in ("logits", "target", "weight") if name in held}


def _open(path: Path) -> Any:  # noqa: ANN401 - safetensors ships no types
    if not path.is_file():
        came = "a folder" if path.is_dir() else "no such file"
        msg = f"logits file {path} must be a safetensors file, got {came}: check the path, or use xentbench.capture"
        raise UsageError(msg)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        msg = (
            f"logits file {path} must be a readable safetensors file, got {error}: "
            "write it with xentbench.capture or safetensors.torch.save_file"
        )
        raise UsageError(msg) from None


def _options(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        return {name: read(metadata[name]) for name, read in _READERS.items() if name in metadata}
    except ValueError as error:
        msg = f"logits file {path}: options in the metadata must be numbers, got {error}: record it again"
        raise UsageError(msg) from None


def _about_logits(logits: torch.Tensor) -> str | None:
    if _name(logits.dtype) not in DTYPE_BYTES:
        came = _name(logits.dtype)
        return f"logits must be one of {', '.join(DTYPE_BYTES)}, got {came}: save what goes into the softmax"
    if logits.dim() == 0:
        return "logits must be (C,), (N, C) or (N, C, d1, …), got a single number: save the logits, not the loss"
    if logits.numel() == 0:
        shape = tuple(logits.shape)
        return f"logits must hold a row and a class at least, got shape {shape}: record a batch that is not empty"
    return None


def _about_target(logits: torch.Tensor, target: torch.Tensor, ignore_index: int) -> str | None:
    shape, expected = tuple(target.shape), _index_shape(logits)
    floating = target.is_floating_point()
    if floating and shape == tuple(logits.shape):
        return None
    if shape == expected and target.dtype is torch.int64:
        return _about_labels(target, logits.shape[_class_axis(logits)], ignore_index)
    if shape == expected:
        return f"target must hold int64 class indices, got {_name(target.dtype)}: save target.to(torch.int64)"
    wanted = f"{expected} for int64 class indices or {tuple(logits.shape)} for floating probabilities"
    hint = "record both from the same call"
    if shape == tuple(logits.shape):
        hint = "save target.float() if it is one-hot"
    elif shape == tuple(logits.shape[:-1]):
        hint = "classes are the second axis, so save logits.movedim(-1, 1)"
    return f"target must have shape {wanted}, got {_name(target.dtype)} of shape {shape}: {hint}"


def _about_labels(target: torch.Tensor, num_classes: int, ignore_index: int) -> str | None:
    wrong = (target < 0) | (target >= num_classes)
    wrong &= target != ignore_index
    count = int(wrong.sum())
    if not count:
        return None
    values = target[wrong]
    hint = "leave these rows out, or give the ignore_index that marks them"
    if int(target.min()) == 1 and int(target.max()) == num_classes:
        hint = "save target - 1 if labels count from 1"
    return (
        f"target must hold class indices in [0, {num_classes}) or ignore_index {ignore_index}, "
        f"got {int(values[0])} and {count - 1} more outside: {hint}"
    )


def _about_weight(logits: torch.Tensor, weight: torch.Tensor | None) -> str | None:
    expected = (logits.shape[_class_axis(logits)],)
    if weight is None or (weight.is_floating_point() and tuple(weight.shape) == expected):
        return None
    return (
        f"weight must be floating and have shape {expected}, one for each class, "
        f"got {_name(weight.dtype)} of shape {tuple(weight.shape)}: save one weight for each class, or none"
    )


def _index_shape(logits: torch.Tensor) -> tuple[int, ...]:
    return (logits.shape[0], *logits.shape[2:]) if logits.dim() > 1 else ()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
