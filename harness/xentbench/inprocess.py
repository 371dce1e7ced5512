"""The judge in this process: any callable held against a panel, for whoever has it at hand: a test, a notebook.

It promises no isolation. What an implementation breaks stays broken, what it prints is printed, and one that hangs or
crashes takes this process with it; `xentbench parity` asks the same in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import site
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from xentbench import checking
from xentbench.counterexamples import Finder
from xentbench.examining import Examined, examine_here
from xentbench.posing import Questions
from xentbench.spec import (
    NAME_PATTERN,
    Description,
    Implementation,
    Problem,
    Source,
    Status,
    UsageError,
    Verdict,
    first_line,
)
from xentbench.threads import one_thread
from xentbench.worker import compiled, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xentbench.checking import Checked
    from xentbench.posing import Question

KEPT_ELEMENTS: Final = 1 << 17
"""Questions of more logits are made anew for every loss: all of the full panel at once are 0.7 GB."""
LETHAL: Final = "a label out of range ends the device's context, and with it this process: xentbench parity asks it"


@functools.cache
def questions(seed: int) -> Questions:
    """Return what makes the questions of this seed: small ones are made once for all losses of a process."""
    return Questions(seed, {})


def check(
    loss: Callable[..., Any],
    problems: Sequence[Problem],
    seed: int,
    *,
    compile: bool = False,  # noqa: A002 - as torch calls it
    grid: str = "",
    shrinks: bool = True,
) -> Checked:
    """Ask a callable the problems and return what the judge says of it, with the smallest counter-examples.

    Grad mode and the number of torch's threads are set for the time being; nothing else of the process is.

    Args:
        loss: a function, module, module class or `Implementation`; options are read from its signature.
        problems: what is asked.
        seed: of the numbers.
        compile: put it under `torch.compile`, anew for every problem.
        grid: name of the panel, where the problems are a whole one; on `full` every declared deviation must occur.
        shrinks: look for counter-examples, which takes up to 4 s where anything is wrong; never of what compiles.

    Raises:
        UsageError: no callable, or a deviation is declared that is not known.
    """
    entry = held(loss)
    declared = describe(loss, entry, compile=compile)
    asked, seen = questions(seed), dict[Problem, Examined]()
    with _steady(), _compiling() if declared.compiles else contextlib.nullcontext():
        for problem in problems if declared.status is Status.PASSED else ():
            seen[problem] = Examined(_examine(entry, declared, problem, asked))
        verdicts = {problem: examined.verdict for problem, examined in seen.items()}
        shrunk = Finder(_Here(declared, entry), asked).find(verdicts) if shrinks else {}
    return checking.conclude(declared, seen, seed, whole_panel=grid == "full" and not declared.compiles, shrunk=shrunk)


@dataclass(frozen=True, slots=True)
class _Here:
    """Who answers in this process, to whoever looks for counter-examples."""

    entry: Description
    loss: Implementation

    def ask_again(self, question: Question) -> Verdict:
        """Return the verdict on its answer to one more question."""
        return examine_here(self.loss, self.entry, question)


def _examine(entry: Implementation, declared: Description, problem: Problem, asked: Questions) -> Verdict:
    if problem.device != "cpu" and problem.invalid.startswith("label"):
        return Verdict(Status.UNSUPPORTED, reason=LETHAL)
    try:
        return examine_here(entry, declared, asked(problem))
    finally:
        if problem.elements > KEPT_ELEMENTS:
            asked.forget(problem)


@contextlib.contextmanager
def _steady() -> Iterator[None]:
    """Let answers depend neither on the machine's cores nor on the grad mode that somebody left on or off."""
    with one_thread(), torch.inference_mode(mode=False), torch.enable_grad():
        yield


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Leave torch.compile as it was found, less the graphs that others had compiled: those are made again."""
    import torch._dynamo  # noqa: PLC0415 - costs seconds: only for those who compile

    config: Any = torch._dynamo.config  # noqa: SLF001 - no public name
    was = config.fail_on_recompile_limit_hit
    try:
        with warnings.catch_warnings():
            # Of torch's own modules while they compile: where warnings are errors, no loss of theirs is at fault.
            for kind in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=kind, module="torch")
            yield
    finally:
        compiled.reset()
        config.fail_on_recompile_limit_hit = was


def held(loss: Callable[..., Any]) -> Implementation:
    """Return the loss as the judge takes it.

    Raises:
        UsageError: it is no callable.
    """
    if isinstance(loss, Implementation):
        return loss
    if not callable(loss):
        msg = f"expected a loss that can be called as loss(input, target), got {type(loss).__name__}"
        raise UsageError(msg)
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", _named(loss)).strip("._+-")[:100]
    fit = name if NAME_PATTERN.fullmatch(name) else "loss"
    return Implementation(name=fit, function=loss, summary=first_line(loss))


def _named(loss: Any) -> str:  # noqa: ANN401 - anything callable
    """Return what a callable is called: of a partial, what it calls; of an instance, its class."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    name = getattr(loss, "__name__", None)
    return name if isinstance(name, str) else type(loss).__name__


def describe(loss: Callable[..., Any], entry: Implementation, *, compile: bool = False) -> Description:  # noqa: A002
    """Return what a worker would have told of it; where it stands, so that `xentbench parity` finds it there again."""
    told = Description.read(_source(loss), serving.describe("this process", entry, []))
    return dataclasses.replace(told, compiles=True, wrapped=True) if compile and not told.compiles else told


def is_named(declared: Description) -> bool:
    """Whether another process can find it by the name of its source."""
    return bool(declared.source.where)


def _source(loss: Any) -> Source:  # noqa: ANN401 - anything callable
    """Return `FILE.py:NAME` or `package.module:NAME` of what stands under its own name in a module, else none."""
    function = loss.function if isinstance(loss, Implementation) else loss
    module = sys.modules.get(str(getattr(function, "__module__", None)))
    name = str(getattr(function, "__qualname__", ""))
    try:
        is_there = functools.reduce(getattr, name.split("."), module) is loss
    except AttributeError:
        is_there = False
    if module is None or not is_there:
        return Source("object", "")
    file = Path(str(getattr(module, "__file__", None) or ""))
    alone = file.suffix == ".py" and not (file.parent / "__init__.py").is_file()
    installed = any(file.is_relative_to(folder) for folder in site.getsitepackages())
    place = os.path.relpath(file) if alone and not installed else module.__name__
    return Source("object", f"{place}:{name}")
