"""What is asked: one problem, its axes, and the canonical key that it is written and read back by."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec.contract import CROSS_ENTROPY
from xentbench.spec.errors import UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_IGNORE_INDEX: Final = -100
DTYPE_BYTES: Final = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
UNIT_ROUNDOFF: Final = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
FAMILIES: Final = ("normal", "peaked", "uniform", "equal", "wide", "masked", "leading-masked", "special")
"""Synthetic families of logits; any other name means recorded ones."""
LAYOUTS: Final = ("contiguous", "transposed", "column-slice", "row-slice", "expanded", "channels-last", "offset")
LABEL_DTYPES: Final = ("int64", "int32", "int16", "uint8", "float32")
INVALID: Final = ("none", "label-high", "label-low", "target-long", "weight-short", "weight-long", "reduction")

_LARGEST: Final = 2**62
_KEY = "key"
_CHOICES = "choices"
_HELP = "help"


def _axis(default: Any, key: str, help_: str, choices: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - dataclass field
    return field(default=default, metadata={_KEY: key, _HELP: help_, _CHOICES: choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question: sizes, options and the family that its numbers are drawn from. The numbers follow from a seed.

    Shapes: logits `(C,)`, `(N, C)` or `(N, C, d1, …)`; target as `F.cross_entropy` takes it; weight `(C,)`.
    `key` is canonical: equal problems have equal keys, and `Problem.parse(key)` gives the problem back.
    """

    batch_size: int | None = _axis(None, "N", "batch size: rows, tokens; 'none' for one unbatched row")
    num_classes: int = _axis(10, "C", "number of classes: the vocabulary of a language model")
    dims: tuple[int, ...] = _axis((), "dims", "sizes after the class axis, e.g. 4x5")
    dtype: str = _axis("float32", "dtype", "dtype of the logits", tuple(DTYPE_BYTES))
    device: str = _axis("cpu", "device", "device that holds the tensors, e.g. cpu, cuda, cuda:1")
    logits: str = _axis("normal", "logits", f"family of logits ({', '.join(FAMILIES)}) or recorded NAME[@SHA]")
    scale: float = _axis(1.0, "scale", "factor on the logits")
    offset: float = _axis(0.0, "offset", "common offset added to the logits")
    labels: str = _axis(
        "uniform", "labels", "distribution of the labels", ("uniform", "zipf", "likely", "unlikely", "edges")
    )
    label_dtype: str = _axis(
        "int64", "label-dtype", "dtype of class indices; F.cross_entropy raises for most but int64", LABEL_DTYPES
    )
    invalid: str = _axis("none", "invalid", "argument that must be refused by an exception", INVALID)
    target: str = _axis(
        "index",
        "target",
        "kind of target: class indices, or probabilities",
        ("index", "one-hot", "soft", "unnormalised"),
    )
    target_grad: bool = _axis(default=False, key="target-grad", help_="probability target requires a gradient")
    weight: str = _axis(
        "none",
        "weight",
        "class weights",
        ("none", "random", "unequal", "some-zero", "absent-only", "tiny", "recorded"),
    )
    ignore_index: int = _axis(DEFAULT_IGNORE_INDEX, "ignore-index", "target value that is left out")
    ignored: float = _axis(0.0, "ignored", "share of rows whose target is ignore_index, 0 to 1")
    label_smoothing: float = _axis(0.0, "label-smoothing", "label smoothing, 0 to 1")
    reduction: str = _axis("mean", "reduction", "reduction of the loss", ("mean", "sum", "none"))
    upstream: str = _axis("random", "upstream", "upstream gradient", ("random", "one", "expanded", "strided"))
    logits_layout: str = _axis("contiguous", "logits-layout", "memory layout of the logits", LAYOUTS)
    target_layout: str = _axis("contiguous", "target-layout", "memory layout of the target", LAYOUTS)
    weight_layout: str = _axis("contiguous", "weight-layout", "memory layout of the class weights", LAYOUTS)
    mode: str = _axis("all", "mode", "grad modes that are asked", ("all", "grad", "no-grad"))
    seed: int = _axis(0, "seed", "which instance of this problem")
    contract: str = _axis(CROSS_ENTROPY.name, "contract", "which loss", (CROSS_ENTROPY.name,))

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            value, choices = getattr(self, axis.name), axis.metadata[_CHOICES]
            self._refuse_numbers(axis.metadata[_KEY], value)
            if choices and value not in choices:
                msg = f"{axis.metadata[_KEY]} {value!r} is unknown: {nearest(str(value), choices)}"
                raise UsageError(msg)
        for key, size in (("batch size N", self.batch_size or 0), *(("dimension", d) for d in self.dims)):
            if size < 0:
                msg = f"{key} must be 0 or more, got {size}"
                raise UsageError(msg)
        if self.num_classes < 1:
            msg = f"number of classes C must be 1 or more, got {self.num_classes}"
            raise UsageError(msg)
        for key, share in (("ignored", self.ignored), ("label-smoothing", self.label_smoothing)):
            if not 0.0 <= share <= 1.0:
                msg = f"{key} must lie between 0 and 1, got {share}"
                raise UsageError(msg)
        if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", self.device):
            msg = f"device {self.device!r} is unknown: expected cpu, cuda, cuda:INDEX, mps or xpu"
            raise UsageError(msg)
        self._refuse_contradictions()

    @staticmethod
    def _refuse_numbers(key: str, value: Any) -> None:  # noqa: ANN401 - any axis
        """Refuse numbers that no tensor can hold, before anything is computed with them."""
        for number in value if isinstance(value, tuple) else (value,):
            too_large = isinstance(number, int) and abs(number) > _LARGEST
            if too_large or (isinstance(number, float) and not math.isfinite(number)):
                msg = f"{key} must be a finite number of at most 2^62, got {number}"
                raise UsageError(msg)

    def _refuse_contradictions(self) -> None:
        if self.elements > _LARGEST:
            msg = f"a problem may have at most 2^62 logits, got {self.elements}"
            raise UsageError(msg)
        if self.dims and self.batch_size is None:
            msg = f"dims {self.dims} need a batch size: logits are (C,), (N, C) or (N, C, d1, …)"
            raise UsageError(msg)
        if self.invalid.startswith("label") and not (self.has_index_target and self.rows):
            msg = f"invalid {self.invalid!r} needs class indices and at least one row, got target {self.target!r}"
            raise UsageError(msg)
        if self.invalid == "target-long" and not self.is_plain:
            msg = f"invalid {self.invalid!r} needs class indices for a batch (N, C), got logits of {self.logits_shape}"
            raise UsageError(msg)
        if self.may_raise and self.ignores:
            msg = f"label-dtype {self.label_dtype!r} goes without ignored rows: their value may not fit into it"
            raise UsageError(msg)
        if self.weight == "recorded" and not self.recorded:
            msg = f"weight 'recorded' needs recorded logits, got the family {self.logits!r}: choose another weight"
            raise UsageError(msg)

    @property
    def key(self) -> str:
        """Canonical text: the contract, N and C always, every other axis where it differs from its default."""
        parts = [
            f"{axis.metadata[_KEY]}={_write(getattr(self, axis.name))}"
            for axis in dataclasses.fields(self)
            if axis.name != "contract"
            and (axis.name in ("batch_size", "num_classes") or getattr(self, axis.name) != axis.default)
        ]
        return f"{self.contract}:{','.join(parts)}"

    @classmethod
    def parse(cls, key: str) -> Problem:
        """Return the problem with this key; axes may come in any order and be left out.

        Raises:
            UsageError: unknown contract or axis, or a value that does not fit.
        """
        contract, colon, rest = key.partition(":")
        if not colon:
            contract, rest = CROSS_ENTROPY.name, key
        axes = {axis.metadata[_KEY]: axis for axis in dataclasses.fields(cls)}
        values: dict[str, Any] = {"contract": contract}
        for part in filter(None, rest.split(",")):
            name, equals, text = part.partition("=")
            if not equals or name not in axes:
                msg = f"problem {key!r} has the part {part!r}: expected AXIS=VALUE; {nearest(name, axes)}"
                raise UsageError(msg)
            values[axes[name].name] = _read(axes[name], text)
        return cls(**values)

    @property
    def rows(self) -> int:
        """Number of targets: N times the extra dimensions (1 when unbatched)."""
        rows = 1 if self.batch_size is None else self.batch_size
        for size in self.dims:
            rows *= size
        return rows

    @property
    def elements(self) -> int:
        """Number of logits."""
        return self.rows * self.num_classes

    @property
    def logits_bytes(self) -> int:
        """Size of the logits, in bytes."""
        return self.elements * DTYPE_BYTES[self.dtype]

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """Shape of the logits."""
        return (self.num_classes,) if self.batch_size is None else (self.batch_size, self.num_classes, *self.dims)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a class-index target, and of the loss with reduction none."""
        return () if self.batch_size is None else (self.batch_size, *self.dims)

    @property
    def loss_shape(self) -> tuple[int, ...]:
        """Shape of the loss."""
        return self.row_shape if self.reduction == "none" else ()

    @property
    def has_index_target(self) -> bool:
        """Whether the target holds class indices rather than probabilities."""
        return self.target == "index"

    @property
    def ignores(self) -> bool:
        """Whether any target may be ignored: some are drawn as ignored, or the value ignored is a class."""
        chosen = self.ignore_index != DEFAULT_IGNORE_INDEX
        return self.has_index_target and (self.ignored > 0 or chosen)

    @property
    def must_raise(self) -> bool:
        """Whether `F.cross_entropy` refuses it by an exception, and everybody should."""
        return self.invalid != "none"

    @property
    def may_raise(self) -> bool:
        """Whether an exception is as good as the right answer: class indices of another dtype than int64."""
        return self.has_index_target and self.label_dtype != "int64"

    @property
    def is_plain(self) -> bool:
        """Whether it is the form that every cross-entropy takes: a batch `(N, C)` with class indices."""
        return bool(self.batch_size) and not self.dims and self.has_index_target

    @property
    def recorded(self) -> str | None:
        """Name of the recorded workload that the logits come from, or None for a synthetic family."""
        name = self.logits.partition("@")[0]
        return None if name in FAMILIES else name

    @property
    def size_label(self) -> str:
        """The shape as people write it: `(128, 1000)`, `(8, 21, 64, 64)`, or `digits (512, 10)`."""
        shape = f"({', '.join(str(size) for size in self.logits_shape)})"
        return f"{self.recorded} {shape}" if self.recorded else shape

    @property
    def label(self) -> str:
        """Size and whatever else is not default, for tables and figures."""
        shown = ("batch_size", "num_classes", "dims", "contract")
        plain = ("dtype", "logits", "device", "reduction")
        extras = [
            _write(value) if axis.name in plain else f"{axis.metadata[_KEY]}={_write(value)}"
            for axis in dataclasses.fields(self)
            if axis.name not in shown
            and (value := getattr(self, axis.name)) != axis.default
            and not (axis.name == "logits" and self.recorded)
        ]
        return " ".join([self.size_label, *extras])


def problem_axes() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Return `{field name: (key, help, choices)}` of every axis of a problem: what the command line is made from."""
    return {
        axis.name: (axis.metadata[_KEY], axis.metadata[_HELP], axis.metadata[_CHOICES])
        for axis in dataclasses.fields(Problem)
    }


def read_axis(name: str, text: str) -> Any:  # noqa: ANN401 - the axis decides
    """Return the value that `text` gives the axis of this field name; raises UsageError where it does not fit."""
    return _read(next(axis for axis in dataclasses.fields(Problem) if axis.name == name), text)


def _write(value: Any) -> str:  # noqa: ANN401 - any axis
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "none"
    return repr(value) if isinstance(value, float) else str(value)


def _read(axis: dataclasses.Field[Any], text: str) -> Any:  # noqa: ANN401 - the axis decides
    readers: dict[str, Callable[[str], Any]] = {
        "batch_size": lambda t: None if t == "none" else int(t),
        "dims": lambda t: () if t == "none" else tuple(int(part) for part in t.split("x")),
        "target_grad": {"yes": True, "no": False}.__getitem__,
    }
    kind = type(axis.default)
    try:
        return readers.get(axis.name, kind)(text)
    except (ValueError, KeyError):
        expected = {"batch_size": "a whole number or none", "dims": "sizes such as 4x5", "target_grad": "yes or no"}
        wanted = expected.get(axis.name, {int: "a whole number", float: "a number"}.get(kind, "text"))
        msg = f"{axis.metadata[_KEY]} must be {wanted}, got {text!r}"
        raise UsageError(msg) from None
