"""Every entrant against `F.cross_entropy`: options, published numbers, special values, refusals."""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from xentbench.implementations import _compiler

from xentbench import Implementation, Problem
from xentbench.inputs import Inputs, make
from xentbench.spec import Phase, Source
from xentbench.worker import calls, compiled, loading

if TYPE_CHECKING:
    from collections.abc import Callable

    from xentbench.inputs import Answers

LOADED = loading.load(Source("built-in", loading.BUILT_IN))
# Who needs a package is tried where it is installed: test_fused_triton.py; the ladder by the judge: test_ladder.py.
ENTRANTS = {
    entry.name: entry for _, entry in LOADED.found if not entry.packages and not entry.name.startswith("ladder-")
}
EAGER = sorted(name for name, entry in ENTRANTS.items() if not entry.compiles)
COMPILED = sorted(name for name, entry in ENTRANTS.items() if entry.compiles)
STABLE = [name for name in EAGER if name not in ("naive", "bce-with-logits")]
NO_SECOND = ("autograd-function", "chunked-online", "fused-python")
BASELINE = Implementation("baseline", functional.cross_entropy)
# Two correct answers differ by a few roundings of sums over at most 5 classes and 30 rows.
TOLERANCES = {"float64": {"rtol": 1e-12, "atol": 1e-13}, "float32": {"rtol": 1e-5, "atol": 1e-6}}
SHAPES = ((None, ()), (5, ()), (3, (4,)), (2, (2, 3)))
IGNORED = ({}, {"ignored": 0.4}, {"ignored": 0.4, "ignore_index": 1}, {"ignored": 1.0})


def option_grid(dtype: str, classes: int) -> list[Problem]:
    """Every combination of the options, with index and with probability targets."""
    index = itertools.product(("index",), ("none", "random", "some-zero"), IGNORED)
    soft = itertools.product(("soft", "unnormalised"), ("none", "random"), ({},))
    return [
        Problem(
            batch_size=rows,
            num_classes=classes,
            dims=dims,
            dtype=dtype,
            target=target,
            target_grad=target != "index",
            weight=weight,
            label_smoothing=smoothing,
            reduction=reduction,
            **ignored,
        )
        for (target, weight, ignored), (rows, dims), smoothing, reduction in itertools.product(
            [*index, *soft], SHAPES, (0.0, 0.1), ("mean", "sum", "none")
        )
    ]


@cache
def posed(problem: Problem) -> Inputs:
    return make(problem, seed=1)


@cache
def expected_answers(problem: Problem) -> Answers:
    return ask(BASELINE, problem, posed(problem))


def ask(entry: Implementation, problem: Problem, inputs: Inputs) -> Answers:
    """Answer a problem in this process, from an empty compile cache, as a worker's set-up does."""
    if entry.compiles:
        compiled.reset()
    return calls.answer(calls.bind(entry, problem, inputs.weight), problem, inputs)


def assert_like_baseline(entry: Implementation, problem: Problem, inputs: Inputs | None = None):
    expected = ask(BASELINE, problem, inputs) if inputs else expected_answers(problem)
    got = ask(entry, problem, inputs or posed(problem))
    for quantity in ("loss", "loss_no_grad", "loss_again", "gradient", "target_gradient"):
        torch.testing.assert_close(
            getattr(got, quantity),
            getattr(expected, quantity),
            equal_nan=True,
            msg=lambda message, quantity=quantity: f"{problem.key}: {quantity}: {message}",
            **TOLERANCES[problem.dtype],
        )
    assert got.changed == ()


def test_every_entrant_is_a_module_of_its_own_but_for_the_steps_of_the_ladder():
    assert LOADED.broken == ()
    assert len(ENTRANTS) == 15
    assert len({origin for origin, entry in LOADED.found if not entry.name.startswith("ladder-")}) == 17
    assert len(LOADED.found) == 17 + 10
    assert all(entry.summary and entry.source for _, entry in LOADED.found)


def test_peers_and_steps_of_the_ladder_take_part_where_they_are_named():
    left_out = {entry.name for _, entry in LOADED.found if entry.on_request}
    assert left_out == {entry.name for _, entry in LOADED.found if entry.name not in ENTRANTS}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EAGER)
def test_every_option_agrees_with_f_cross_entropy(name: str, dtype: str):
    problems = option_grid(dtype, classes=2 if name == "bce-with-logits" else 5)
    for problem in problems:
        assert calls.refusal(ENTRANTS[name], problem) is None
        assert_like_baseline(ENTRANTS[name], problem)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(batch_size=6, num_classes=4, weight="random", ignored=0.3, label_smoothing=0.1),
        Problem(batch_size=2, num_classes=4, dims=(3,), reduction="none", target="soft"),
    ],
    ids=lambda problem: problem.label,
)
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_entrants_agree_and_make_graphs(name: str, problem: Problem):
    assert_like_baseline(ENTRANTS[name], problem)
    assert compiled.counters()["unique_graphs"] > 0
    assert compiled.counters()["graph_breaks"] == 0


@pytest.mark.parametrize("name", sorted(set(ENTRANTS) - {"bce-with-logits"}))
def test_published_loss_of_seed_0(name: str):
    torch.manual_seed(0)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    loss = calls.bind(ENTRANTS[name], Problem(batch_size=4, num_classes=3), weight=None)
    assert f"{loss(logits, target).item():.4f}" == "1.4412"


@pytest.mark.parametrize("name", [name for name in EAGER if name != "bce-with-logits"])
def test_one_training_step_moves_the_parameters_as_nn_cross_entropy_loss_does(name: str):
    entrant = calls.bind(ENTRANTS[name], Problem(batch_size=32, num_classes=10), weight=None)
    stepped, expected = train_one_step(entrant), train_one_step(nn.CrossEntropyLoss())
    for got, wanted, start in zip(stepped, expected, classifier().parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)
        assert not torch.equal(wanted, start)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


def train_one_step(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    model = classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = torch.randn(32, 784), torch.randint(10, (32,))
    loss(model(images), labels).backward()
    optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("layout", ["transposed", "column-slice", "row-slice", "channels-last", "offset"])
@pytest.mark.parametrize("name", STABLE)
def test_memory_layout_does_not_matter(name: str, layout: str):
    problem = Problem(
        batch_size=4, num_classes=5, dims=(3, 2), weight="random", logits_layout=layout, weight_layout="column-slice"
    )
    assert_like_baseline(ENTRANTS[name], problem)


@pytest.mark.parametrize("target", ["index", "soft"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", EAGER)
def test_empty_batch(name: str, reduction: str, target: str):
    problem = Problem(batch_size=0, num_classes=2, reduction=reduction, target=target)
    assert_like_baseline(ENTRANTS[name], problem)


@pytest.mark.parametrize("name", [name for name in EAGER if name != "bce-with-logits"])
def test_masked_logits_give_finite_loss_and_gradient(name: str):
    problem = Problem(batch_size=16, num_classes=9, logits="masked", dtype="float64")
    got = ask(ENTRANTS[name], problem, posed(problem))
    assert torch.isinf(posed(problem).logits).any()
    assert torch.isfinite(got.loss)
    assert torch.isfinite(got.gradient).all()
    assert_like_baseline(ENTRANTS[name], problem)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("target", ["index", "soft"])
@pytest.mark.parametrize("name", STABLE)
def test_masked_logits_with_smoothing_or_probabilities_end_as_f_cross_entropys(
    name: str, target: str, smoothing: float
):
    problem = Problem(batch_size=8, num_classes=6, logits="masked", target=target, label_smoothing=smoothing)
    assert_like_baseline(ENTRANTS[name], problem)


@pytest.mark.parametrize("name", STABLE)
def test_an_ignored_row_whose_class_0_is_masked_has_no_loss_and_no_gradient(name: str):
    logits = torch.tensor([[-torch.inf, 0.0, 1.0], [0.5, 0.0, 1.0]])
    problem = Problem(batch_size=2, num_classes=3, reduction="sum", upstream="one")
    inputs = Inputs(logits, torch.tensor([-100, 2]), None, torch.tensor(1.0))
    got = ask(ENTRANTS[name], problem, inputs)
    assert got.gradient[0].tolist() == [0.0, 0.0, 0.0]
    assert_like_baseline(ENTRANTS[name], problem, inputs)


def test_chunked_online_over_several_chunks_the_first_of_them_masked():
    problem = Problem(batch_size=3, num_classes=9001, dtype="float64", labels="edges")
    inputs = make(problem, seed=1)
    inputs.logits[:, :5000] = -torch.inf
    inputs.logits[:, 8999] += 40.0
    target = torch.tensor([5000, 8191, 9000])
    assert_like_baseline(
        ENTRANTS["chunked-online"], problem, Inputs(inputs.logits, target, inputs.weight, inputs.upstream)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", EAGER)
def test_half_logits_give_half_results(name: str, dtype: str):
    for target, smoothing, weight in itertools.product(("index", "soft"), (0.0, 0.1), ("none", "random")):
        problem = Problem(
            batch_size=8, num_classes=2, dtype=dtype, target=target, label_smoothing=smoothing, weight=weight
        )
        got = ask(ENTRANTS[name], problem, posed(problem))
        inputs = posed(problem)
        exact = functional.cross_entropy(
            inputs.logits.double(),
            inputs.target if target == "index" else inputs.target.double(),
            weight=None if inputs.weight is None else inputs.weight.double(),
            label_smoothing=smoothing,
        )
        assert got.loss.dtype == got.gradient.dtype == getattr(torch, dtype)
        torch.testing.assert_close(got.loss.double(), exact, rtol=2e-2, atol=2e-2)


def test_naive_overflows_where_its_deviation_says_and_not_before():
    naive = ENTRANTS["naive"]
    assert [deviation.code for deviation in naive.deviations] == ["unshifted-exponent"]
    for dtype, limit in (("float64", 709.7), ("float32", 88.7), ("bfloat16", 88.7), ("float16", 11.0)):
        row = torch.zeros(1, 4, dtype=getattr(torch, dtype))
        target = torch.tensor([0])
        inside, outside = limit - torch.tensor(4.0).log().item() - 0.1, limit + 1.0
        assert torch.isfinite(naive(row + inside, target)), dtype
        assert torch.isinf(naive(row + outside, target)), dtype


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((torch.zeros(2, 2), torch.tensor([0, 2])), {}),
        ((torch.zeros(2, 2), torch.tensor([0, -1])), {}),
        ((torch.zeros(3, 2), torch.tensor([0, 1])), {}),
        ((torch.zeros(2, 2), torch.tensor([0.0, 1.0])), {}),
        ((torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64)), {}),
        ((torch.zeros(2, 2), torch.full((2, 2), 0.5)), {"ignore_index": 0}),
        ((torch.zeros(2, 2), torch.tensor([0, 1])), {"weight": torch.ones(3)}),
        ((torch.zeros(2, 2), torch.tensor([0, 1])), {"reduction": "average"}),
        ((torch.zeros(2, 2), torch.tensor([0, 1])), {"label_smoothing": 1.5}),
    ],
    ids=[
        "label too large",
        "label negative",
        "too few labels",
        "labels as floats",
        "probabilities as integers",
        "ignored probabilities",
        "weight too long",
        "unknown reduction",
        "smoothing above 1",
    ],
)
def test_wrong_arguments_raise(name: str, arguments: tuple[torch.Tensor, torch.Tensor], options: dict[str, Any]):
    function = ENTRANTS[name].function
    if isinstance(function, type):
        with pytest.raises((ValueError, TypeError, IndexError, RuntimeError)):
            function(**options)(*arguments)
    else:
        with pytest.raises((ValueError, TypeError, IndexError, RuntimeError)):
            function(*arguments, **options)


@pytest.mark.parametrize("name", NO_SECOND)
@pytest.mark.parametrize("upstream_grad", [False, True])
def test_analytic_backward_refuses_a_second_derivative(name: str, *, upstream_grad: bool):
    logits = torch.randn(2, 3, requires_grad=True)
    loss = ENTRANTS[name](logits, torch.tensor([0, 1]))
    upstream = torch.tensor(2.0, requires_grad=upstream_grad)
    with pytest.raises(RuntimeError, match=f"{name} .* no second derivative"):
        torch.autograd.grad(loss, logits, upstream, create_graph=True)


@pytest.mark.parametrize("name", [name for name in STABLE if name not in NO_SECOND])
def test_hessian_vector_product_agrees_where_it_is_not_refused(name: str):
    problem = Problem(batch_size=3, num_classes=4, weight="random", ignored=0.3, label_smoothing=0.1, dtype="float64")
    got, expected = (hessian_vector_product(entry, problem) for entry in (ENTRANTS[name], BASELINE))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    assert got.abs().sum() > 0


def hessian_vector_product(entry: Implementation, problem: Problem) -> torch.Tensor:
    inputs = posed(problem)
    logits, target = calls.fresh(problem, inputs, Phase.FORWARD_BACKWARD)
    loss = calls.bind(entry, problem, inputs.weight)(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (product,) = torch.autograd.grad((gradient * torch.arange(12.0).view(3, 4)).sum(), logits)
    return product


@pytest.mark.parametrize("name", EAGER)
def test_backward_may_run_twice_over_one_graph(name: str):
    logits = torch.randn(2, 2, requires_grad=True)
    loss = calls.bind(ENTRANTS[name], Problem(batch_size=2, num_classes=2), weight=None)(logits, torch.tensor([0, 1]))
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, second)


@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=4),
    st.floats(-1000, 1000),
    st.integers(0, 3),
)
@settings(deadline=None, max_examples=25)
def test_a_common_offset_changes_nothing_and_each_gradient_row_sums_to_zero(
    rows: list[list[float]], offset: float, label: int
):
    target = torch.full((len(rows),), label)
    for name in STABLE:
        loss = calls.bind(ENTRANTS[name], Problem(batch_size=len(rows), num_classes=4), weight=None)
        logits = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        value = loss(logits, target)
        torch.testing.assert_close(loss(logits + offset, target), value, rtol=1e-9, atol=1e-9)
        value.backward()
        torch.testing.assert_close(logits.grad.sum(dim=1), torch.zeros(len(rows), dtype=torch.float64))


def test_refusals_have_a_reason():
    three = Problem(batch_size=4, num_classes=3)
    ignored = Problem(batch_size=4, num_classes=2, target="soft", ignore_index=1)
    masked = Problem(batch_size=4, num_classes=2, logits="masked")
    binary = ENTRANTS["bce-with-logits"]
    assert "two classes, not 3" in calls.refusal(binary, three)
    assert "NaN" in calls.refusal(binary, masked)
    with pytest.raises(NotImplementedError, match="two classes"):
        binary(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    for entry in ENTRANTS.values():
        assert "ignore_index=1" in calls.refusal(entry, ignored)
        assert calls.refusal(entry, Problem(batch_size=4, num_classes=2)) is None


def test_without_a_compiler_who_compiles_says_what_adds_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_compiler, "found", lambda: None)
    for name in COMPILED:
        assert "apt-get install g++" in calls.refusal(ENTRANTS[name], Problem(batch_size=4, num_classes=5))
        assert calls.refusal(ENTRANTS[name], Problem(batch_size=4, num_classes=5, device="cuda")) is None


def test_listing_imports_neither_the_compiler_nor_optional_packages():
    script = (
        "import pkgutil, importlib, sys, xentbench.implementations as room\n"
        "names = [found.name for found in pkgutil.iter_modules(room.__path__) if not found.name.startswith('_')]\n"
        "for name in names: importlib.import_module(f'{room.__name__}.{name}')\n"
        "heavy = {'torch._dynamo', 'torch._inductor', 'triton', 'sklearn', 'scipy', 'pandas', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
