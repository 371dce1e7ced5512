"""Who answers: an implementation, where it is found, and all that the parent knows of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec.errors import UsageError, nearest
from xentbench.spec.inert import inert
from xentbench.spec.outcome import Grade, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xentbench.spec.problem import Problem

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LONGEST_NAME: Final = 100
"""Characters."""
DEVIATION_CODES: Final = ("unshifted-exponent", "all-ignored-mean", "second-backward", "second-derivative")
"""Codes of the deviations that the judge knows; docs/parity.md says what each explains."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference from `F.cross_entropy` that an implementation owns up to.

    Attributes:
        code: which known deviation (the judge holds a table of what each code may explain, and nothing more):
            `unshifted-exponent`, an exponent that may overflow; `all-ignored-mean`, 0 where a mean over no row is NaN;
            `second-backward`, wrong the second time through one graph; `second-derivative`, silently wrong.
        reason: one sentence for the reader of the report.

    Raises:
        UsageError: no such code is known.
    """

    code: str
    reason: str

    def __post_init__(self) -> None:
        if self.code not in DEVIATION_CODES:
            msg = f"deviation {self.code!r} is unknown: {nearest(self.code, DEVIATION_CODES)}"
            raise UsageError(msg)


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
        packages: import names of optional packages that it needs; `DISTRIBUTION:NAME` where pip calls one otherwise.
        on_request: whether it is left out of runs that name nobody: a step of an explanation, a peer that needs more.
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
    on_request: bool = False

    def __post_init__(self) -> None:
        checked_name(self.name)

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
    on_request: bool = False,
) -> Callable[[Callable[..., Any]], Implementation]:
    """Make an `Implementation` of the decorated function; registers nothing, discovery looks at the top level.

    Args: see the attributes of `Implementation`; `summary` defaults to the first line of the docstring.

    Raises:
        UsageError: the name has other characters than `[A-Za-z0-9][A-Za-z0-9._+-]*`, or more than a hundred.

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
            on_request=on_request,
        )

    return wrap


def checked_name(name: object) -> str:
    """Return a name that is fit for files, tables and command lines.

    Raises:
        UsageError: it has other characters, or too many.
    """
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        msg = f"implementation name must match {NAME_PATTERN.pattern}, got {str(name)[:LONGEST_NAME]!r}"
        raise UsageError(msg)
    if len(name) > LONGEST_NAME:
        msg = f"implementation name must have at most {LONGEST_NAME} characters, got {len(name)}: {name[:20]!r}…"
        raise UsageError(msg)
    return name


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
        revision: of git, as it was spelled, that the paths are a checkout of; empty for what is there now.
    """

    kind: str
    where: str
    paths: tuple[str, ...] = ()
    revision: str = ""


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
        wrapped: whether a worker is to put it under `torch.compile`, which is then not its own doing.
        speaks: whether it says itself what it supports; else an exception on a form of target or logits that no
            signature can tell of is taken for "not offered".
        deviations: declared differences.
        min_grade: promised grade.
        work: what it does differently as work.
        refusals: problem key to the reason why this problem is not supported.
        offered: options of `F.cross_entropy` that its signature takes; none of a factory, which is not built to tell.
        other_defaults: of these the ones whose default is not that of `F.cross_entropy`, with their own.
        on_request: whether it is left out where nobody is named.
        interpreted: whether Triton's interpreter runs its kernels here: then it is judged, and never timed.
    """

    name: str
    source: Source
    origin: str
    status: Status = Status.PASSED
    reason: str = ""
    summary: str = ""
    reference: str = ""
    compiles: bool = False
    wrapped: bool = False
    speaks: bool = False
    deviations: tuple[Deviation, ...] = ()
    min_grade: Grade | None = None
    work: WorkContract = WorkContract()
    refusals: dict[str, str] = field(default_factory=dict)
    offered: tuple[str, ...] = ()
    other_defaults: dict[str, str] = field(default_factory=dict)
    on_request: bool = False
    interpreted: bool = False

    @property
    def shown(self) -> str:
        """The name for people: with its revision, if it has one."""
        return f"{self.name}@{self.source.revision}" if self.source.revision else self.name

    @classmethod
    def read(cls, source: Source, told: Mapping[str, Any]) -> Description:
        """Return the description that a worker or a cache told as JSON.

        Raises:
            KeyError, TypeError, ValueError, UsageError: it is not understood.
        """
        return cls(
            name=checked_name(told["name"]),
            source=source,
            origin=inert(str(told["origin"])),
            status=Status(told["status"]),
            reason=inert(str(told["reason"])),
            summary=inert(str(told["summary"])),
            reference=inert(str(told["reference"])),
            compiles=bool(told["compiles"]),
            speaks=bool(told["speaks"]),
            deviations=tuple(Deviation(**deviation) for deviation in told["deviations"]),
            min_grade=Grade(told["min_grade"]) if told["min_grade"] else None,
            work=WorkContract(**told["work"]),
            refusals={str(key): inert(str(reason)) for key, reason in told["refusals"].items()},
            offered=tuple(map(str, told["offered"])),
            other_defaults={str(name): inert(str(text), 40) for name, text in told["other_defaults"].items()},
            on_request=bool(told["on_request"]),
            interpreted=bool(told["interpreted"]),
        )
