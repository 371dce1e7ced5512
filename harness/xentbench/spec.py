"""The nouns: what is asked, who answers, and how an answer can end. Frozen records, no work, no torch.

Dtypes and devices are strings here, so that the command line and the parent's planning never pay for `import torch`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CONTRACT: Final = "cross_entropy"
"""The one contract of version 1; `linear_cross_entropy` and a vocab-parallel loss are meant to stand beside it."""

DEFAULT_IGNORE_INDEX: Final = -100
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
DTYPE_BYTES: Final = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
UNIT_ROUNDOFF: Final = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}


class UsageError(ValueError):
    """Wrong input from a person: one sentence that says what was expected, what came and what to try (exit code 2)."""


class EnvironmentMismatchError(RuntimeError):
    """Not the environment that was asked for (exit code 3)."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `expected one of …` for an error message, led by the closest choice to `word` where one is close."""
    known = list(choices)
    close = difflib.get_close_matches(word, [str(choice) for choice in known], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}expected one of: {', '.join(known)}"


class Phase(StrEnum):
    """One stretch of work that is timed alone; what it needs is prepared outside the clock's window."""

    FORWARD_NO_GRAD = "forward-no-grad"
    FORWARD = "forward"
    BACKWARD = "backward"
    FORWARD_BACKWARD = "forward+backward"


class Status(StrEnum):
    """How a cell ended: exactly one for each, none missing. What qualifies it goes to the cell's `reason`."""

    PASSED = "passed"
    WRONG_VALUE = "wrong-value"
    WRONG_GRADIENT = "wrong-gradient"
    WRONG_TYPE = "wrong-type"
    MUTATES_INPUT = "mutates-input"
    ALIASED = "aliased"
    STALE = "stale"
    DEFERRED = "deferred"
    TAMPERED = "tampered"
    IMPRECISE = "imprecise"
    LEAKING = "leaking"
    FORGED = "forged"
    RAISED = "raised"
    CRASHED = "crashed"
    EXITED = "exited"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"
    IMPORT_FAILED = "import-failed"
    SET_UP_FAILED = "set-up-failed"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"

    @property
    def is_wrong(self) -> bool:
        """Whether it is wrong unless a deviation was declared: all but passed, unsupported and skipped."""
        return self not in (Status.PASSED, Status.UNSUPPORTED, Status.SKIPPED)


class Grade(StrEnum):
    """How accurate the answers are, best first; each includes the ones before it, and all but `FAIL` pass.

    A: as good as correctly rounded. B: float32-accumulating sums, maximum subtracted. B-: log-sum-exp stored, then
    subtracted. H: explained by worst-case rounding in the compute precision. C: each operation rounded to a half dtype.
    """

    A = "A"
    B = "B"
    B_MINUS = "B-"
    H = "H"
    C = "C"
    FAIL = "FAIL"

    @property
    def rank(self) -> int:
        """Position from best (0) to worst."""
        return list(Grade).index(self)

    @staticmethod
    def worst(grades: Iterable[Grade]) -> Grade | None:
        """Return the worst of `grades`, or None where there are none."""
        return max(grades, key=lambda grade: grade.rank, default=None)


class Comparison(StrEnum):
    """What an interval of time ratios shows."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


class Outcome(StrEnum):
    """What became of a cell from the first to the second."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference from `F.cross_entropy` that an implementation owns up to.

    Attributes:
        code: which known deviation (the judge holds a table of what each code may explain, and nothing more).
        reason: one sentence for the reader of the report.
    """

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkContract:
    """What an implementation does differently *as work*, so that phases are compared fairly.

    Attributes:
        gradient_in_forward: the gradient is computed by the forward call; only forward+backward is comparable.
        overwrites_input: the logits are overwritten by design.
        result_dtype: dtype of the loss where it is not that of `F.cross_entropy`, e.g. `"float32"` for half logits.
    """

    gradient_in_forward: bool = False
    overwrites_input: bool = False
    result_dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Implementation:
    """One entrant: a callable with `torch.nn.functional.cross_entropy`'s signature, and what its author says of it.

    Attributes:
        name: unique over all sources; matches `[A-Za-z0-9][A-Za-z0-9._+-]*`.
        function: `(input, target, **options) -> loss`; with `factory`, a function of no arguments that returns that
            callable, called once a problem as part of set-up, which is timed on its own.
        source: address or paper that it comes from.
        summary: one line for lists.
        factory: whether `function` builds the callable rather than being it.
        compiles: whether set-up must produce at least one graph of `torch.compile`; running eagerly is then a fault.
        supports: `problem -> None` or the reason why not.
        deviations: differences that are declared, each with its reason.
        min_grade: the worst grade its author promises; a worse one is a failure.
        work: what it does differently as work.
        packages: import names of optional packages that it needs.
    """

    name: str
    function: Callable[..., Any]
    source: str = ""
    summary: str = ""
    factory: bool = False
    compiles: bool = False
    supports: Callable[[Problem], str | None] | None = None
    deviations: tuple[Deviation, ...] = ()
    min_grade: Grade | None = None
    work: WorkContract = WorkContract()
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME_PATTERN.fullmatch(self.name):
            msg = f"implementation name must match {NAME_PATTERN.pattern}, got {self.name!r}"
            raise UsageError(msg)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the loss's own signature
        """Call the function (of a factory, what it builds), so that a decorated loss stays usable in its module."""
        function = self.function() if self.factory else self.function
        return function(**kwargs)(*args) if isinstance(function, type) else function(*args, **kwargs)


def implementation(
    name: str,
    *,
    source: str = "",
    summary: str = "",
    factory: bool = False,
    compiles: bool = False,
    supports: Callable[[Problem], str | None] | None = None,
    deviations: Sequence[Deviation] = (),
    min_grade: Grade | str | None = None,
    work: WorkContract | None = None,
    packages: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Implementation]:
    """Make an `Implementation` of the decorated function; registers nothing, discovery looks at the top level.

    Args: see the attributes of `Implementation`; `summary` defaults to the first line of the docstring.

    Raises:
        UsageError: the name has other characters than `[A-Za-z0-9][A-Za-z0-9._+-]*`.

    Example:
        >>> @implementation("half-right", source="https://example.org")
        ... def half_right(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        ...     '''Half of the loss.'''
        >>> half_right.name, half_right.summary
        ('half-right', 'Half of the loss.')
    """

    def wrap(function: Callable[..., Any]) -> Implementation:
        return Implementation(
            name=name,
            function=function,
            source=source,
            summary=summary or first_line(function),
            factory=factory,
            compiles=compiles,
            supports=supports,
            deviations=tuple(deviations),
            min_grade=None if min_grade is None else Grade(min_grade),
            work=work or WorkContract(),
            packages=tuple(packages),
        )

    return wrap


def first_line(documented: object) -> str:
    """Return the first line of an object's docstring, or an empty string."""
    lines = (getattr(documented, "__doc__", None) or "").strip().splitlines()
    return lines[0] if lines else ""


@dataclass(frozen=True, slots=True)
class Source:
    """A place where implementations are found.

    Attributes:
        kind: `built-in` (this project's folder), `entry-point`, `file` (a plugin, all of its implementations) or
            `object` (one callable, decorated or not).
        where: module name, entry-point value, absolute path, or `PATH.py:NAME` / `package.module:NAME`.
        paths: folders put in front of `sys.path` before it is loaded.
    """

    kind: str
    where: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What a worker told of one implementation: all that the parent, which never imports it, knows.

    Attributes:
        name: of the implementation, or a stand-in where the source could not be loaded.
        source: where it was found.
        origin: the same for people, without this machine's folders.
        status: `passed` when it can be asked, else `import-failed` or `unsupported` (a missing package).
        reason: why it cannot be asked.
        summary: one line.
        reference: address or paper.
        compiles: whether set-up must produce a compiled graph.
        speaks: whether it says itself what it supports; else an exception on a form of target or logits that no
            signature can tell of is taken for "not offered".
        deviations: declared differences.
        min_grade: promised grade.
        work: what it does differently as work.
        refusals: problem key to the reason why this problem is not supported.
    """

    name: str
    source: Source
    origin: str
    status: Status = Status.PASSED
    reason: str = ""
    summary: str = ""
    reference: str = ""
    compiles: bool = False
    speaks: bool = False
    deviations: tuple[Deviation, ...] = ()
    min_grade: Grade | None = None
    work: WorkContract = WorkContract()
    refusals: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Source, told: Mapping[str, Any]) -> Description:
        """Return the description that a worker or a cache told as JSON; raises KeyError, TypeError or ValueError."""
        return cls(
            name=str(told["name"]),
            source=source,
            origin=str(told["origin"]),
            status=Status(told["status"]),
            reason=str(told["reason"]),
            summary=str(told["summary"]),
            reference=str(told["reference"]),
            compiles=bool(told["compiles"]),
            speaks=bool(told["speaks"]),
            deviations=tuple(Deviation(**deviation) for deviation in told["deviations"]),
            min_grade=Grade(told["min_grade"]) if told["min_grade"] else None,
            work=WorkContract(**told["work"]),
            refusals={str(key): str(reason) for key, reason in told["refusals"].items()},
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is wrong with an answer.

    Attributes:
        quantity: value, gradient, target-gradient, dtype, shape, exception, mutation, repeat or double-backward.
        message: one sentence: what was expected, what came, where, and what mistake looks like this.
    """

    quantity: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's answer for one implementation and one problem.

    Attributes:
        status: `passed`, or the first thing that is wrong.
        grade: the worst over the quantities, None where nothing could be judged.
        checks: how many quantities were compared.
        failures: everything that is wrong; empty when passed.
        deviations: codes of the declared deviations that explain all the failures; then nothing is held against it.
        labels: what is honest but must be known, e.g. `another-dtype`.
        bound_ratio: largest error in units of the rounding-error bound (1 or less passes).
        error_ulp: largest error of the loss in units in the last place of its dtype.
        reason: one line for tables.
    """

    status: Status
    grade: Grade | None = None
    checks: int = 0
    failures: tuple[Failure, ...] = ()
    deviations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    bound_ratio: float | None = None
    error_ulp: float | None = None
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong that no declared deviation explains."""
        return self.status.is_wrong and not self.deviations


_KEY = "key"
_CHOICES = "choices"
_HELP = "help"


def _axis(default: Any, key: str, help_: str, choices: tuple[str, ...] = ()) -> Any:  # noqa: ANN401 - dataclass field
    return field(default=default, metadata={_KEY: key, _HELP: help_, _CHOICES: choices})


LAYOUTS: Final = ("contiguous", "transposed", "column-slice", "row-slice", "expanded", "channels-last", "offset")


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
    logits: str = _axis(
        "normal", "logits", "family of logits (normal, peaked, uniform, equal, wide, masked) or recorded NAME[@SHA]"
    )
    scale: float = _axis(1.0, "scale", "factor on the logits")
    offset: float = _axis(0.0, "offset", "common offset added to the logits")
    labels: str = _axis(
        "uniform", "labels", "distribution of the labels", ("uniform", "zipf", "likely", "unlikely", "edges")
    )
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
    upstream: str = _axis("random", "upstream", "upstream gradient", ("random", "one", "expanded"))
    logits_layout: str = _axis("contiguous", "logits-layout", "memory layout of the logits", LAYOUTS)
    target_layout: str = _axis("contiguous", "target-layout", "memory layout of the target", LAYOUTS)
    weight_layout: str = _axis("contiguous", "weight-layout", "memory layout of the class weights", LAYOUTS)
    seed: int = _axis(0, "seed", "which instance of this problem")
    contract: str = _axis(CONTRACT, "contract", "which loss", (CONTRACT,))

    def __post_init__(self) -> None:
        for axis in dataclasses.fields(self):
            value, choices = getattr(self, axis.name), axis.metadata[_CHOICES]
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

    def _refuse_contradictions(self) -> None:
        if self.dims and self.batch_size is None:
            msg = f"dims {self.dims} need a batch size: logits are (C,), (N, C) or (N, C, d1, …)"
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
            contract, rest = CONTRACT, key
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


FAMILIES: Final = ("normal", "peaked", "uniform", "equal", "wide", "masked")
"""Synthetic families of logits; any other name means recorded ones."""


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
