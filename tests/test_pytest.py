"""The pytest plugin, run as other people run it: a pytest of its own for each test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xentbench import panel
from xentbench.pytest import SEED, parity_problems
from xentbench.spec import UsageError

pytest_plugins = ["pytester"]

LOSSES = """
import torch
from torch.nn import functional as F

FEW = ["N=4,C=3", "N=5,C=4,dtype=float64,reduction=none", "N=3,C=5,invalid=label-high"]

def right(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    return F.cross_entropy(input, target, weight, None, ignore_index, None, reduction, label_smoothing)

def negated(input, target, reduction="mean"):
    return -F.cross_entropy(input, target, reduction=reduction)

class Module(torch.nn.Module):
    def __init__(self, weight=None, reduction="mean"):
        super().__init__()
        self.weight, self.reduction = weight, reduction

    def forward(self, input, target):
        return F.cross_entropy(input, target, weight=self.weight, reduction=self.reduction)
"""


@pytest.fixture
def repository(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder of somebody else's: their losses, warnings as errors, no file of ours."""
    pytester.makepyfile(losses=LOSSES)
    pytester.makeini("[pytest]\nfilterwarnings = error\npythonpath = .\n")
    return pytester


def ran(pytester: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    """Run tests in a process of their own, where torch is as its user left it."""
    pytester.makepyfile(test_theirs="import pytest, torch\nfrom losses import *\nimport xentbench.pytest\n" + body)
    plugins = [part for name in ("benchmark", "hypothesispytest", "jaxtyping") for part in ("-p", f"no:{name}")]
    return pytester.runpytest_subprocess(*plugins, "-p", "no:cacheprovider", "-rs", *options)


def test_a_right_loss_passes_and_what_was_found_is_returned(repository: pytest.Pytester):
    result = ran(
        repository,
        """
def test_it(cross_entropy_parity):
    found = cross_entropy_parity(right, require_options=["weight", "k-dim"])
    assert found.grades["float64"].rank <= 1 and found.checks > 100 and not found.not_offered

def test_module_class(cross_entropy_parity):
    found = cross_entropy_parity(Module, FEW)
    assert set(found.grades) == {"float32", "float64"}
""",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [f"xentbench: panel {panel.PANEL}, seed {SEED}, cpu; judged in this process, *; 2 tests"]
    )


def test_a_failure_tells_the_mistake_the_counter_example_and_how_to_ask_again_and_no_traceback(
    repository: pytest.Pytester,
):
    result = ran(repository, "def test_it(cross_entropy_parity): cross_entropy_parity(negated)")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    told = text[text.index("___ test_it") : text.index("short test summary") if "short test" in text else None]
    assert "negated: value: loss is -" in told
    assert "looks like: wrong sign" in told
    assert "smallest counter-example: N=1 C=2, logits [[0, 0]], target [0]: expected 0.6931, got -0.6931" in told
    assert f"ask again: xentbench parity losses.py:negated --problem cross_entropy:N=none,C=5 --seed {SEED}" in told
    assert f"without isolation: 37 problems of xentbench's panel {panel.PANEL}, seed {SEED}" in told
    assert "inprocess.py" not in told
    assert len(told.splitlines()) < 20


def test_the_command_of_a_failure_finds_it_in_a_process_of_its_own(repository: pytest.Pytester):
    result = ran(repository, "def test_it(cross_entropy_parity): cross_entropy_parity(negated, 'N=4,C=3')")
    (line,) = [line for line in result.stdout.lines if "ask again" in line and "N=4" in line][:1]
    command = line.partition("xentbench ")[2].split()
    asked = [sys.executable, "-m", "xentbench", *command]
    done = subprocess.run(asked, cwd=repository.path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "wrong sign" in done.stdout


def test_one_test_a_problem_skips_what_is_not_offered_with_the_reason(repository: pytest.Pytester):
    result = ran(
        repository,
        """
@pytest.mark.parametrize("problem", xentbench.pytest.parity_problems())
def test_each(problem, cross_entropy_parity):
    cross_entropy_parity(Module, problem)
""",
        *("-n", "2"),
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes["skipped"] == len(panel.panel("quick"))
    assert outcomes["skipped"] > 3
    result.stdout.fnmatch_lines(["SKIPPED * test_theirs.py:*: Module: does not offer label_smoothing=0.1"])


def test_ids_are_keys_in_the_panels_order():
    assert [param.id for param in parity_problems("full")] == [
        problem.key.removeprefix("cross_entropy:") for problem in panel.panel("full")
    ]
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        parity_problems("quik")


def test_who_offers_nothing_is_skipped_and_never_passes(repository: pytest.Pytester):
    result = ran(
        repository,
        r"""
def nothing(input, target):
    raise NotImplementedError("no \x1b[31msuch [bold]thing")

def test_whole(cross_entropy_parity):
    cross_entropy_parity(nothing, ["N=4,C=3", "N=5,C=3"])

def test_required(cross_entropy_parity):
    cross_entropy_parity(Module, ["N=4,C=3", "N=4,C=3,label-smoothing=0.1"], require_options="label_smoothing")
""",
    )
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED * test_theirs.py:*: nothing: no such [[]bold]thing"])
    result.stdout.fnmatch_lines(["*label_smoothing is required and not offered: its signature does not have it"])
    assert "\x1b[31m" not in result.stdout.str()


def test_what_raises_exits_or_warns_is_a_failure_in_few_lines(repository: pytest.Pytester):
    result = ran(
        repository,
        r"""
import sys, warnings

def raising(input, target): raise KeyError("bad \x1b[31m thing" * 1000)
def leaving(input, target): sys.exit(0)
def warning(input, target):
    warnings.warn("oh")
    return right(input, target)

@pytest.mark.parametrize("loss", [raising, leaving, warning, lambda input, target: input.sum()])
def test_it(loss, cross_entropy_parity):
    cross_entropy_parity(loss, "N=4,C=3")
""",
    )
    result.assert_outcomes(failed=4)
    text = result.stdout.str()
    assert "KeyError" in text
    assert "SystemExit: 0" in text
    assert "UserWarning: oh" in text
    assert 'ask again: cross_entropy_parity(…, "N=4,C=3")' in text  # a lambda has no name to be found by
    assert max(map(len, text.splitlines())) < 700
    assert "\x1b[31m" not in text


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("right, grid='quik'", "did you mean 'quick'"),
        ("right, 'N=3,D=4'", "expected AXIS=VALUE"),
        ("right, []", "at least one problem"),
        ("3", "expected a loss that can be called"),
        ("right, require_options='weigt'", "did you mean 'weight'"),
        ("right, 'N=3,C=4', require_options='weight'", "ask a whole panel"),
        ("right, 'N=3,C=4', device='xpu:7'", "device 'xpu:7' is not present"),
    ],
)
def test_wrong_use_is_one_sentence(call: str, told: str):
    import torch

    from xentbench.pytest import CrossEntropyParity

    def right(logits, target):
        return torch.nn.functional.cross_entropy(logits, target)

    with pytest.raises(pytest.fail.Exception, match=told) as caught:
        eval(f"parity({call})", {"parity": CrossEntropyParity(), "right": right})  # noqa: S307 - above
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_fresh_seed_is_one_for_all_workers_and_is_told(repository: pytest.Pytester):
    body = """
@pytest.mark.parametrize("number", range(4))
def test_it(number, cross_entropy_parity, record_property):
    print("seed of the fixture:", cross_entropy_parity.seed)
"""
    result = ran(repository, body, "-n", "2", "--xentbench-seed", "fresh", "-rP")
    result.assert_outcomes(passed=4)
    (head,) = [line for line in result.stdout.lines if line.startswith("xentbench: panel")]
    seeds = {line.rpartition(": ")[2] for line in result.stdout.lines if line.startswith("seed of the fixture")}
    assert len(seeds) == 1
    assert f"seed {seeds.pop()}," in head
    assert "--xentbench-seed" in ran(repository, body, "--xentbench-seed", "often").stderr.str()


def test_what_the_user_set_is_neither_heeded_nor_changed(repository: pytest.Pytester):
    result = ran(
        repository,
        """
def test_it(cross_entropy_parity):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.no_grad():
        cross_entropy_parity(right)
        assert not torch.is_grad_enabled()
    assert torch.get_num_threads() == 2 and torch.get_default_dtype() is torch.float64
    assert torch.equal(torch.get_rng_state(), before)
""",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_compiled_loss_is_judged_and_torch_compile_is_left_as_it_was(repository: pytest.Pytester):
    result = ran(
        repository,
        """
def broken(input, target):
    torch._dynamo.graph_break()
    return right(input, target)

def test_compiled(cross_entropy_parity):
    found = cross_entropy_parity(right, "N=4,C=3", compile=True)
    assert "under-torch.compile" in found.labels
    double = torch.compile(lambda x: x + x)
    assert [double(torch.ones(size)).sum() for size in (2, 3, 4)] == [4, 6, 8]

def test_broken(cross_entropy_parity):
    cross_entropy_parity(broken, "N=4,C=3", compile=True)
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "--compile" in result.stdout.str()


def test_who_does_not_use_it_pays_for_no_torch_and_sees_nothing(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
import sys

def test_nothing_heavy():
    assert "xentbench.pytest" in sys.modules
    assert not {"torch", "numpy", "scipy", "pandas", "click", "rich", "xentbench.examining"} & sys.modules.keys()
"""
    )
    plugins = [part for name in ("benchmark", "hypothesispytest", "jaxtyping") for part in ("-p", f"no:{name}")]
    result = pytester.runpytest_subprocess(*plugins)
    result.assert_outcomes(passed=1)
    assert "xentbench: " not in result.stdout.str()


def test_the_fixture_is_told_of(pytester: pytest.Pytester):
    result = pytester.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["cross_entropy_parity*"])


def test_labels_out_of_range_are_not_asked_of_a_device_that_they_would_end():
    from xentbench import inprocess
    from xentbench.spec import Problem

    def never(logits, target):
        pytest.fail("it was asked")

    problem = Problem.parse("N=3,C=5,invalid=label-high,device=cuda")
    found = inprocess.check(never, [problem], 0)
    assert (found.verdict, found.refused) == ("unsupported", {problem.key: inprocess.LETHAL})


def test_a_required_option_with_another_default_fails_and_one_that_is_not_required_is_a_label(
    repository: pytest.Pytester,
):
    result = ran(
        repository,
        """
def other(input, target, ignore_index=-1, reduction="mean"):
    return F.cross_entropy(input, target, ignore_index=ignore_index, reduction=reduction)

ASKED = ["N=4,C=3", "N=9,C=3,ignored=0.3", "N=9,C=3,reduction=sum"]

def test_label(cross_entropy_parity):
    found = cross_entropy_parity(other, ASKED, require_options="reduction")
    assert "another-default:ignore_index=-1" in found.labels

def test_required(cross_entropy_parity):
    cross_entropy_parity(other, ASKED, require_options=["ignore_index"])
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*ignore_index is required: default of ignore_index is -1, F.cross_entropy's is -100*"]
    )
