"""A counter-example as a line and as a snippet: the snippet runs on its own and shows what the judge saw."""

from __future__ import annotations

import contextlib
import io
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_panel import DECLARED, WRONG
from test_shrinking import smallest

from xentbench import examining, inputs, reproducing
from xentbench.shrinking import Counterexample
from xentbench.simplifying import Case
from xentbench.spec import LAYOUTS, Description, Failure, Problem, Source
from xentbench.worker import calls

NUMBER = re.compile(r"-?(?:inf|nan|\d+\.?\d*(?:e[-+]?\d+)?)")
TWO = inputs.Inputs(torch.zeros(1, 2), torch.tensor([0]), None, torch.tensor(1.0))


def example(problem: str = "N=1,C=2", given: inputs.Inputs = TWO, failure: Failure | None = None) -> Counterexample:
    seen = failure or Failure("value", "loss is -0.69", "loss", math.log(2.0), -math.log(2.0))
    return Counterexample(Problem.parse(problem), given, seen, 1)


def test_line_has_sizes_numbers_and_both_answers():
    told = "N=1 C=2, logits [[0, 0]], target [0]: expected 0.6931, got -0.6931"
    assert reproducing.line(example()) == told


def test_line_names_options_weight_upstream_and_the_number_at_fault():
    given = inputs.Inputs(TWO.logits, TWO.target, torch.tensor([2.0, 0.1]), torch.tensor(-2.0))
    failure = Failure("gradient", "off", "gradient[0, 1]", -1.0, 1.0)
    assert reproducing.line(example("N=1,C=2,weight=random,reduction=sum", given, failure)) == (
        "N=1 C=2 reduction=sum, logits [[0, 0]], target [0], weight [2, 0.1], upstream -2: "
        "gradient[0, 1] expected -1, got 1"
    )


def test_line_shows_digits_until_the_answers_differ():
    failure = Failure("value", "off", "loss", 1.0, 1.0000001)
    assert reproducing.line(example(failure=failure)).endswith("expected 1, got 1.0000001")


def test_line_abbreviates_many_numbers_and_ends_where_no_number_is_at_fault():
    given = inputs.Inputs(torch.arange(20.0)[None], TWO.target, None, TWO.upstream)
    failure = Failure("shape", "loss has shape (1,), expected ()")
    told = "N=1 C=20, logits [0, 1, 2, 3, … 20 numbers], target [0]"
    assert reproducing.line(example("N=1,C=20", given, failure)) == told


def test_line_counts_runs_of_equal_numbers():
    masked = torch.cat([torch.full((1, 16), -torch.inf), torch.zeros(1, 4)], 1)
    given = inputs.Inputs(masked, torch.tensor([19]), None, TWO.upstream)
    assert "logits [16 x -inf, 4 x 0], target [19]" in reproducing.line(example("N=1,C=20", given))


def ran(found: Counterexample, entry: Description) -> str:
    """Run the snippet in this process and return what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(reproducing.snippet(found, entry), "snippet", "exec"), {})  # noqa: S102 - that is what it is for
    return out.getvalue()


def agrees(printed: str, failure: Failure) -> bool:
    """Whether the snippet printed the judge's numbers (where none is at fault: two things that differ)."""
    expected, _, got = printed.strip().removeprefix("expected ").partition(" got ")
    if failure.got is None or failure.expected is None:
        return expected != got
    return all(
        any(math.isclose(float(n), told, rel_tol=1e-9, abs_tol=1e-300) or n == str(told) for n in NUMBER.findall(text))
        for text, told in ((expected, failure.expected), (got, failure.got))
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    lines = [f"planted_{place} = WRONG[{name!r}]" for place, name in enumerate(WRONG)]
    (folder / "planted.py").write_text("\n".join(["from test_panel import WRONG", *lines]))
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_snippets_of_planted_mistakes_show_what_the_judge_saw(name: str, planted: Path, monkeypatch):
    monkeypatch.chdir(planted)
    where = f"planted.py:planted_{list(WRONG).index(name)}"
    offered = tuple(sorted(calls.offered_options(WRONG[name])))
    entry = Description("planted", Source("object", where), "planted.py", offered=offered)
    found = smallest(name)
    assert agrees(ran(found, entry), found.failure), reproducing.line(found)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dims", [(), (3,)])
def test_snippet_lays_tensors_out_as_the_problem_says(layout: str, dims: tuple[int, ...]):
    problem = Problem(batch_size=4, num_classes=5, dims=dims, logits_layout=layout, target_layout=layout)
    case = Case.of(problem, inputs.make(problem, seed=0))
    found = Counterexample(case.problem, case.inputs, Failure("value", ""), 1)
    scope = {"F": torch.nn.functional, "torch": torch}
    code = reproducing.snippet(found, DECLARED)
    exec(code[code.index("logits =") : code.index("truth =")], scope)  # noqa: S102 - that is what it is for
    for name in ("logits", "target"):
        made, meant = scope[name].detach(), getattr(case.inputs, name)
        assert torch.equal(made, meant)
        assert made.stride() == meant.stride()


def test_snippet_tells_a_large_tensor_by_its_commonest_number():
    logits = torch.zeros(1, 5000)
    logits[0, 7] = -torch.inf
    problem = Problem(batch_size=1, num_classes=5000)
    found = Counterexample(problem, inputs.Inputs(logits, TWO.target, None, TWO.upstream), Failure("value", ""), 1)
    code = reproducing.snippet(
        found, Description("cross_entropy", Source("object", "torch.nn.functional:cross_entropy"), "")
    )
    assert len(code) < 1000
    scope: dict[str, object] = {}
    exec(code, scope)  # noqa: S102 - that is what it is for
    assert torch.equal(scope["logits"].detach(), logits)


SOURCES = {
    "module": Description("f", Source("object", "torch.nn.functional:cross_entropy"), "torch"),
    "class": Description("l", Source("object", "torch.nn:CrossEntropyLoss"), "torch", offered=("reduction", "weight")),
    "built-in": Description("naive", Source("built-in", "xentbench.implementations"), "implementations/naive.py"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_snippet_finds_the_implementation_wherever_it_lives(kind: str):
    assert ran(example(), SOURCES[kind]).startswith("expected 0.6931471805599453 got 0.69314")


def test_snippet_finds_a_decorated_loss_in_a_plugin_and_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "losses.py"
    plugin.write_text(
        "from xentbench import implementation\n@implementation('mine')\ndef loss_of_mine(x, y):\n    return x.sum()\n"
    )
    code = reproducing.snippet(example(), Description("mine", Source("file", str(plugin)), "losses.py"))
    done = subprocess.run([sys.executable, "-"], input=code, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "expected 0.6931471805599453 got 0.0"


def test_command_and_snippet_find_a_file_outside_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here, file = tmp_path / "here", tmp_path / "bad" / "losses.py"
    here.mkdir()
    file.parent.mkdir()
    file.write_text("def mine(x, y):\n    return x.sum()\n")
    monkeypatch.chdir(here)
    entry = Description("mine", Source("object", f"{file}:mine"), "losses.py")
    command = examining.reproduce(entry, Problem(), 3)
    assert command.startswith("xentbench parity ../bad/losses.py:mine --problem ")
    code = reproducing.snippet(example(), entry)
    assert str(tmp_path) not in code
    done = subprocess.run([sys.executable, "-"], input=code, cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "expected 0.6931471805599453 got 0.0"


def test_a_path_through_the_root_and_one_in_a_checkout_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert examining.reached(Source("object", "/elsewhere/losses.py:mine")) == "losses.py:mine"
    checkout = str(tmp_path.parent / "xentbench-revision-x" / "losses.py:mine")
    assert examining.reached(Source("object", checkout, revision="main")) == "losses.py:mine"
    assert examining.reached(Source("object", "package.module:mine")) == "package.module:mine"
