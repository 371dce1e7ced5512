"""`xentbench.capture`: record the real arguments of `F.cross_entropy` in someone's own training script."""

from __future__ import annotations

import functools
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench.recordings import PROBABILITIES, looks_like_probabilities, save
from xentbench.spec import DEFAULT_IGNORE_INDEX, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PARAMETERS: Final = (
    "input",
    "target",
    "weight",
    "size_average",
    "ignore_index",
    "reduce",
    "reduction",
    "label_smoothing",
)
"""Parameters of `F.cross_entropy` in their order, the deprecated ones included."""

UNSEEN: Final = (
    "a name bound earlier by `from torch.nn.functional import cross_entropy`, and calls inside torch.compile or "
    "torch.func, are not seen, so call F.cross_entropy or nn.CrossEntropyLoss, eagerly, inside the capture"
)


@contextmanager
def capture(path: str | Path, *, call: int = 0) -> Iterator[None]:
    """Record the arguments of one call of `F.cross_entropy`, and so of `nn.CrossEntropyLoss`, made inside the `with`.

    Calls pass through unchanged, values, gradients and exceptions alike. When the `with` ends, also by an exception,
    the original function is back and the file holds `logits`, `target` and, if given, `weight` as the call got them,
    on the CPU, with `ignore_index`, `reduction` and `label_smoothing` as metadata: `xentbench bench --logits` reads it.
    Where rows look like probabilities rather than logits, and where nothing was recorded, a warning says so.

    Not seen: a function that was bound to another name before (`from torch.nn.functional import cross_entropy`), and
    calls that `torch.compile` or `torch.func` trace.

    Args:
        path: safetensors file to write; its folder must exist.
        call: which call to record, 0 for the first; a later one sees logits of a model that has learnt something.

    Raises:
        UsageError: `call` is negative, or the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> with capture(f"{folder.name}/logits.safetensors"):
        ...     loss = torch.nn.CrossEntropyLoss()(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> folder.cleanup()
    """
    path = Path(path).absolute()
    _check(path, call)
    recorder = _install(call)
    try:
        yield
    finally:
        _remove(recorder)
        recorder.write(path)
    recorder.warn(path)


@dataclass(frozen=True, slots=True)
class _Call:
    """Copies of a call's tensors, and the options that it ran with."""

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    options: dict[str, str]


class _Recorder:
    """Counts calls, keeps one of them, and knows which function its replacement stands for."""

    def __init__(self, wanted: int) -> None:
        self._wanted, self._seen = wanted, 0
        self._kept: _Call | None = None
        self.is_open = True
        self.original: Callable[..., torch.Tensor] = F.cross_entropy
        self.replacement = self._replace(self.original)

    def _replace(self, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(original)
        def cross_entropy(*args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401 - passed on as they came
            # A traced call has no values; while compiling this is a constant, and the rest is dropped.
            if not torch.compiler.is_compiling() and self.is_open:
                self._see(dict(zip(PARAMETERS, args, strict=False)) | kwargs)
            return original(*args, **kwargs)

        return cross_entropy

    def _see(self, arguments: Mapping[str, Any]) -> None:
        if not _is_recordable(arguments):
            return
        with _lock:
            number, self._seen = self._seen, self._seen + 1
        if number == self._wanted:
            self._kept = _copies(arguments)

    def write(self, path: Path) -> None:
        if self._kept is None:
            return
        kept = self._kept
        try:
            save(path, kept.logits, kept.target, kept.weight, **kept.options)
        except OSError as error:
            msg = (
                f"capture path {path} must be a file that can be written, got {error.strerror or error}: choose another"
            )
            raise UsageError(msg) from error

    def warn(self, path: Path) -> None:
        if self._kept is None:
            came = (
                f"{self._seen} calls of cross_entropy while call={self._wanted} was asked for"
                if self._seen
                else "no call"
            )
            _warn(f"capture saw {came} and wrote no {path}: {UNSEEN}")
        elif looks_like_probabilities(self._kept.logits):
            _warn(f"captured {PROBABILITIES}")


_lock = threading.Lock()
_layers: list[_Recorder] = []


def _install(wanted: int) -> _Recorder:
    with _lock:
        recorder = _Recorder(wanted)
        _layers.append(recorder)
        F.cross_entropy = recorder.replacement
    return recorder


def _remove(recorder: _Recorder) -> None:
    """Close the recorder, and take off every closed layer that now lies on top.

    Captures of several threads may end in any order, and someone else may replace the function meanwhile: a closed
    layer that lies below another only passes calls on.
    """
    with _lock:
        recorder.is_open = False
        while top := [layer for layer in _layers if not layer.is_open and layer.replacement is F.cross_entropy]:
            F.cross_entropy = top[0].original
            _layers.remove(top[0])


def _is_recordable(arguments: Mapping[str, Any]) -> bool:
    """Whether logits and target are tensors with values in memory of their own (those inside torch.func have none)."""
    for name in ("input", "target"):
        tensor = arguments.get(name)
        if not isinstance(tensor, torch.Tensor) or tensor.is_meta:
            return False
        try:
            tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            return False
    return True


def _copies(arguments: Mapping[str, Any]) -> _Call:
    target = _copy(arguments["target"])
    if target.dtype is torch.uint8:
        # The loss takes uint8 indices on the CPU alone; int64 says the same everywhere.
        target = target.to(torch.int64)
    weight = arguments.get("weight")
    options = {
        "ignore_index": str(arguments.get("ignore_index", DEFAULT_IGNORE_INDEX)),
        "reduction": _reduction(arguments),
        "label_smoothing": repr(float(arguments.get("label_smoothing", 0.0))),
    }
    return _Call(_copy(arguments["input"]), target, None if weight is None else _copy(weight), options)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _reduction(arguments: Mapping[str, Any]) -> str:
    """Return the reduction that the deprecated `size_average` and `reduce`, where given, decide."""
    size_average, reduce = arguments.get("size_average"), arguments.get("reduce")
    if size_average is None and reduce is None:
        return str(arguments.get("reduction", "mean"))
    if reduce is not None and not reduce:
        return "none"
    return "mean" if size_average is None or size_average else "sum"


def _check(path: Path, call: int) -> None:
    if call < 0:
        msg = f"capture call must be 0 or more, got {call}: 0 records the first call"
        raise UsageError(msg)
    if path.is_dir() or not path.parent.is_dir():
        came = f"the folder {path}" if path.is_dir() else f"{path} in a folder that does not exist"
        msg = f"capture path must be a file in a folder that exists, got {came}: make the folder or choose another file"
        raise UsageError(msg)


def _warn(message: str) -> None:
    # Out of warn, capture's generator and contextlib's __exit__: the line of the user's `with`.
    warnings.warn(message, UserWarning, stacklevel=5)
