"""A pytest plugin for other people's repositories: their loss, held against the judge's panel, in their own tests.

    def test_my_loss(cross_entropy_parity):
        cross_entropy_parity(my_loss)

    @pytest.mark.parametrize("problem", xentbench.pytest.parity_problems("full"))
    def test_my_loss_at(problem, cross_entropy_parity):
        cross_entropy_parity(my_loss, problem)

It judges in pytest's own process and promises no isolation: a loss that hangs or crashes takes pytest with it.
`xentbench parity` asks the same in a process of its own. The numbers are the same in every run, since a gate must not
flake; `--xentbench-seed fresh` draws others, and a failure tells the seed.

Whoever has the plugin installed and does not use it pays for this file alone: torch, numpy and the judge are imported
when a loss is first judged.
"""
# ruff: noqa: PLC0415 - as above

from __future__ import annotations

import argparse
import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from xentbench import panel
from xentbench.spec import Problem, UsageError, inert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xentbench.checking import Checked

__all__ = ["CrossEntropyParity", "parity_problems"]

SEED: Final = panel.PANEL
"""Of the numbers unless another is asked for; a new panel asks new ones."""
FIXTURE: Final = "cross_entropy_parity"
SHOWN: Final = 3
"""Failures told in full."""
SHRUNK: Final = 5
"""Failing calls with one loss that are looked for counter-examples: a hundred tests of one mistake need no more."""
LONGEST: Final = 600
"""Characters of one line; pytest repeats the first in its summary."""
PREFIX: Final = "cross_entropy:"
"""Of every problem's key: left out of the names of tests."""


def parity_problems(grid: str = "quick") -> list[Any]:
    """Return the problems of a panel for `pytest.mark.parametrize`, each named by its key, in an order that stays.

    Args:
        grid: `quick` (37 problems, some seconds for all of them), `full` (180), or `compiled` (12).

    Raises:
        UsageError: no panel of that name.
    """
    return [pytest.param(problem, id=problem.key.removeprefix(PREFIX)) for problem in panel.panel(grid)]


@dataclass(frozen=True, slots=True)
class CrossEntropyParity:
    """What the fixture gives: call it with a loss. See `__call__`.

    Attributes:
        seed: of the numbers.
        device: that holds the tensors; None: as each problem says, which is the CPU.
    """

    seed: int = SEED
    device: str | None = None
    _failed: Counter[str] = field(default_factory=Counter)

    def __call__(
        self,
        loss: Callable[..., Any],
        problems: Problem | str | Iterable[Problem | str] | None = None,
        *,
        grid: str | None = None,
        seed: int | None = None,
        device: str | None = None,
        require_options: str | Sequence[str] = (),
        compile: bool = False,  # noqa: A002 - as torch calls it
    ) -> Checked:
        """Judge a loss in this process, without isolation; fail the test where it is wrong.

        Args:
            loss: function, `torch.nn.Module` or its class, or `xentbench.Implementation`. Options are read from its
                signature (that of `F.cross_entropy`, from `weight` on by keyword); what it does not have is not
                offered: no failure, and no pass.
            problems: one or several, or their keys; a whole panel unless given.
            grid: `quick` (default), `full` or `compiled`.
            seed: in place of `--xentbench-seed`.
            device: in place of `--xentbench-device`, e.g. `cuda`.
            require_options: options that must be offered, with the default of `F.cross_entropy`: `weight`,
                `ignore_index`, `reduction`, `label_smoothing`, `probabilities`, `k-dim`.
            compile: put it under `torch.compile`, anew for every problem; asks the compiled panel unless told.

        Returns:
            What was found: `.grades["float32"]` (an `xentbench.Grade`, compared by its `.rank`), `.dtypes`, `.labels`,
            `.not_offered`.
        """
        __tracebackhide__ = True
        from xentbench import inprocess, offers

        used = self.seed if seed is None else seed
        misused, found = "", None
        try:
            entry = inprocess.held(loss)
            name = "" if problems is not None else grid or ("compiled" if compile or entry.compiles else "quick")
            asked = _placed(problems, name, device or self.device)
            needed = (require_options,) if isinstance(require_options, str) else require_options
            demanded = offers.demanded(needed, asked, "require_options")
            shrinks = self._failed[entry.name] < SHRUNK
            found = inprocess.check(loss, asked, used, compile=compile, grid=name, shrinks=shrinks)
        except UsageError as error:
            misused = str(error)
        if found is None:  # outside of the handler, which would show the error once more
            pytest.fail(f"xentbench: {misused}", pytrace=False)
        missing = {option: found.not_offered[option] for option in demanded if option in found.not_offered}
        others = {option: text for option, text in found.entry.other_defaults.items() if option in demanded}
        told = [f"{option} is required and not offered: {why}" for option, why in missing.items()]
        told += [f"{option} is required: {offers.default_told(option, text)}" for option, text in others.items()]
        if found.verdict in ("fail", "error") or told:
            self._failed[found.entry.name] += 1
            pytest.fail(_told(found, told, len(asked), used), pytrace=False)
        if found.verdict == "unsupported":
            pytest.skip(_refused(found))
        return found


def _placed(
    problems: Problem | str | Iterable[Problem | str] | None, grid: str, device: str | None
) -> tuple[Problem, ...]:
    """Return the problems that are meant, on the device that is; raises UsageError where it is not present."""
    from xentbench import planning

    if problems is None:
        wanted: list[Problem | str] = list(panel.panel(grid))
    else:
        wanted = [problems] if isinstance(problems, Problem | str) else list(problems)
    if not wanted:
        msg = "expected at least one problem, got none"
        raise UsageError(msg)
    read = [Problem.parse(one) if isinstance(one, str) else one for one in wanted]
    placed = tuple(one if device is None or one.device != "cpu" else replace(one, device=device) for one in read)
    for place in dict.fromkeys(one.device for one in placed):
        if not planning.device_present(place):
            msg = f"device {place!r} is not present on this machine"
            raise UsageError(msg)
    return placed


def _told(found: Checked, missing: Sequence[str], asked: int, seed: int) -> str:
    """Return what a person reads: the worst failure, what fails have in common, how to ask again, and by what."""
    lines = [*_failures(found), *missing]
    head = inert(f"{found.entry.name}: {lines[0]}", LONGEST)
    pattern = [found.pattern] if found.pattern and asked > 1 else []
    count = f"{asked} problems" if asked > 1 else "1 problem"
    foot = f"Judged in this process, without isolation: {count} of xentbench's panel {panel.PANEL}, seed {seed}."
    return "\n".join([head, *map(inert, pattern), *map(_indented, lines[1:]), foot])


def _indented(line: str) -> str:
    return f"  {inert(line, LONGEST)}" if line.startswith(" ") else inert(line, LONGEST)


def _failures(found: Checked) -> Iterator[str]:
    """Yield the lines that tell of the failures: each with its counter-example and what asks it again."""
    from xentbench import inprocess

    for failure in found.failures[:SHOWN]:
        key = failure["problem"].removeprefix(PREFIX)
        yield f"{failure['quantity']}: {failure['message']}"
        if failure["counterexample"]:
            yield f" smallest counter-example: {failure['counterexample']}"
        if key and inprocess.is_named(found.entry):
            yield f" ask again: {failure['reproduce']}"
        elif key:
            yield f' ask again: {FIXTURE}(…, "{key}")'
    rest = Counter(failure["quantity"] for failure in found.failures[SHOWN:])
    if rest:
        told = ", ".join(f"{quantity} ({count})" for quantity, count in rest.items())
        yield f"… and {rest.total()} more failures: {told}"


def _refused(found: Checked) -> str:
    """Return why nothing was judged."""
    reasons = dict.fromkeys([found.nothing_judged, *found.refused.values()])
    return inert(f"{found.entry.name}: {'; '.join(reasons)}", LONGEST)


@pytest.fixture(scope="session")
def cross_entropy_parity(pytestconfig: pytest.Config) -> CrossEntropyParity:
    """Judge a cross-entropy loss in this process: `cross_entropy_parity(my_loss)`, or `(my_loss, problem)`."""
    return CrossEntropyParity(pytestconfig.option.xentbench_seed, pytestconfig.option.xentbench_device)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what varies the question: its numbers, and where its tensors are."""
    group = parser.getgroup("xentbench", "parity of cross-entropy losses")
    told = f"numbers of the parity problems: an integer, or fresh for others in every run (default: {SEED})"
    group.addoption("--xentbench-seed", type=_seed, default=SEED, metavar="N|fresh", help=told)
    group.addoption("--xentbench-device", metavar="DEVICE", help="judge on this device, e.g. cuda (default: the CPU)")


def _seed(text: str) -> int:
    """Return the seed that is asked for."""
    if text == "fresh":
        return secrets.randbits(32)
    if not text.isdecimal():
        msg = f"expected a whole number or fresh, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - of pytest-xdist, which need not be there
    """Tell a worker of pytest-xdist the seed: where it is fresh, each would draw its own."""
    node.workerinput["xentbench_seed"] = node.config.option.xentbench_seed


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed of the run that this process works for, if it works for one."""
    told = getattr(config, "workerinput", {})
    config.option.xentbench_seed = told.get("xentbench_seed", config.option.xentbench_seed)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Tell the conditions where they were asked for."""
    options = config.option
    is_plain = options.xentbench_seed == SEED and options.xentbench_device is None
    return [] if is_plain else [_conditions(config)]


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Tell the conditions where any test is about to judge a loss: others need not know of this plugin."""
    used = sum(FIXTURE in getattr(item, "fixturenames", ()) for item in items)
    return [f"{_conditions(config)}; {used} {'test' if used == 1 else 'tests'}"] if used else []


def _conditions(config: pytest.Config) -> str:
    device = config.option.xentbench_device or "cpu"
    told = f"xentbench: panel {panel.PANEL}, seed {config.option.xentbench_seed}, {device}"
    return f"{told}; judged in this process, without isolation"
