"""The judge on trial: every known mistake is found, no right loss of whatever style is objected to."""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn import functional

from xentbench import diagnosis, inputs, mistakes, panel
from xentbench.examining import examine_here
from xentbench.posing import Question
from xentbench.spec import Description, Implementation, Problem, Source
from xentbench.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FULL = panel.panel("full")
REPRESENTATIVES = tuple({mistake.bug_class: name for name, mistake in reversed(mistakes.WRONG.items())}.values())
"""One mistake of each class: `nox -s judge` asks all of them."""
DECLARED = Description("candidate", Source("object", "here:candidate"), "here:candidate", speaks=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Hundreds of tiny calls: threads would only wait for one another."""
    with one_thread():
        yield


@functools.cache
def posed(problem: Problem) -> Question:
    return Question.of(problem, inputs.make(problem, seed=0))


def objection(loss: Any, problem: Problem) -> str:
    """Return why the loss is wrong on this problem, or an empty string."""
    return objection_to(loss, posed(problem))


def objection_to(loss: Any, question: Question) -> str:
    verdict = examine_here(Implementation(name="candidate", function=loss), DECLARED, question)
    return verdict.reason if verdict.is_wrong else ""


def test_each_of_25_classes_has_three_mistakes_or_more():
    counts = Counter(mistake.bug_class for mistake in mistakes.WRONG.values())
    assert set(counts) == set(range(1, 26))
    assert min(counts.values()) >= 3
    assert len(mistakes.RIGHT) >= 15


def test_names_and_notes_are_unique_and_told():
    entries = [*mistakes.WRONG.values(), *mistakes.RIGHT.values()]
    assert len({entry.name for entry in entries}) == len(entries) > 200
    assert all(entry.note.endswith(".") for entry in entries)
    for entry in entries:
        Implementation(name=entry.name, function=entry.loss)  # refuses names that are no names


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_panel_finds_the_mistake(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnosis, "explain", lambda _: "")  # what it looks like takes longest to find
    assert any(objection(mistakes.WRONG[name].loss, problem) for problem in FULL)


@pytest.mark.parametrize("name", mistakes.RIGHT)
def test_right_loss_passes_the_full_panel(name: str):
    objections = {problem.key: objection(mistakes.RIGHT[name].loss, problem) for problem in FULL}
    assert {key: reason for key, reason in objections.items() if reason} == {}


def special(where: str, value: float, **axes: Any) -> tuple[Problem, inputs.Inputs]:
    """Return a problem of seven classes whose middle row has special logits at or beside its label, or throughout."""
    problem = Problem(batch_size=5, num_classes=7, reduction="none", **axes)
    tensors = inputs.make(problem, seed=3)
    label = int(tensors.target[2]) % 7
    places = {"label": [label], "beside": [(label + 1) % 7], "row": list(range(7)), "block": list(range(6))}[where]
    if where == "block":
        tensors.target[2] = 6
    tensors.logits[2, places] = value
    return problem, tensors


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["label", "beside", "row", "block"])
@pytest.mark.parametrize("name", mistakes.RIGHT)
def test_right_loss_has_the_special_values(name: str, where: str, value: float, dtype: str):
    problem, tensors = special(where, value, dtype=dtype)
    assert objection_to(mistakes.RIGHT[name].loss, Question.of(problem, tensors)) == ""


LOGITS = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)
LABELS = torch.tensor([0, 3, 1])
REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "label of C": ((LOGITS, torch.tensor([0, 4, 1])), {}),
    "label far above": ((LOGITS, torch.tensor([0, 2**20, 1])), {}),
    "label of -1": ((LOGITS, torch.tensor([0, -1, 1])), {}),
    "label of -1000": ((LOGITS, torch.tensor([0, -1000, 1])), {}),
    "default ignore_index replaced": ((LOGITS, torch.tensor([0, -100, 1])), {"ignore_index": -1}),
    "long weight": ((LOGITS, LABELS), {"weight": torch.ones(5)}),
    "short weight": ((LOGITS, LABELS), {"weight": torch.ones(3)}),
    "unknown reduction": ((LOGITS, LABELS), {"reduction": "average"}),
    "float labels": ((LOGITS, torch.tensor([0.0, 3.0, 1.0])), {}),
    "int32 labels": ((LOGITS, LABELS.int()), {}),
    "labels of (N, 1)": ((LOGITS, LABELS[:, None]), {}),
    "too few labels": ((LOGITS, LABELS[:2]), {}),
    "smoothing above 1": ((LOGITS, LABELS), {"label_smoothing": 1.5}),
    "whole-number probabilities": ((LOGITS, torch.ones(3, 4, dtype=torch.int64)), {}),
    "ignore_index with probabilities": ((LOGITS, torch.ones(3, 4)), {"ignore_index": 1}),
}
ERRORS = (IndexError, RuntimeError, ValueError)


def answers_what_is_refused(loss: Callable[..., torch.Tensor], case: str) -> bool:
    arguments, options = REFUSED[case]
    try:
        loss(*arguments, **options)
    except ERRORS:
        return False
    return True


@pytest.mark.parametrize("case", REFUSED)
def test_right_losses_refuse_what_f_cross_entropy_refuses(case: str):
    assert not answers_what_is_refused(functional.cross_entropy, case)
    assert [name for name, right in mistakes.RIGHT.items() if answers_what_is_refused(right.loss, case)] == []


def of_class(number: int) -> list[str]:
    return [name for name, mistake in mistakes.WRONG.items() if mistake.bug_class == number]


@pytest.mark.parametrize("name", of_class(6))
def test_mistakes_of_validation_answer_what_must_be_refused(name: str):
    assert any(answers_what_is_refused(mistakes.WRONG[name].loss, case) for case in REFUSED)


def twice_backward(loss: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of two backwards through one graph, with upstream gradients that are no slices of memory."""
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    result = loss(logits, torch.tensor([0, 4, 1, -100, 2, 2]), reduction="none", label_smoothing=0.1)
    upstream = torch.arange(12.0, dtype=torch.float64)[::2] - 3.0
    (first,) = torch.autograd.grad(result, logits, upstream, retain_graph=True)
    first = first.clone()
    (second,) = torch.autograd.grad(result, logits, upstream.flip(0))
    return first, second


def penalty_gradients(loss: Callable[..., torch.Tensor]) -> torch.Tensor | None:
    """Return what a gradient penalty on a scaled loss sends back to logits and scale, or None where it is refused."""
    logits = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    try:
        value = loss(logits, torch.tensor([0, 4, 1, -100, 2, 2]), label_smoothing=0.1) * scale
        (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
        # Through backward, as in training: autograd.grad never visits the node by which once_differentiable refuses.
        (gradient.square().sum() + scale - logits.sum()).backward()
    except RuntimeError:
        return None
    return torch.cat([logits.grad.reshape(-1), scale.grad.reshape(-1)])


@pytest.mark.parametrize("name", mistakes.RIGHT)
def test_right_loss_can_go_back_twice_and_differentiates_its_gradient_or_refuses(name: str):
    loss = mistakes.RIGHT[name].loss
    torch.testing.assert_close(twice_backward(loss), twice_backward(functional.cross_entropy), rtol=1e-10, atol=1e-12)
    second = penalty_gradients(loss)
    if second is not None:
        torch.testing.assert_close(second, penalty_gradients(functional.cross_entropy), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", of_class(24))
def test_mistakes_of_second_backwards_are_right_once_and_wrong_twice(name: str):
    loss = mistakes.WRONG[name].loss
    (first, second), (right, right_again) = twice_backward(loss), twice_backward(functional.cross_entropy)
    torch.testing.assert_close(first, right, rtol=1e-10, atol=1e-12)
    repeated = torch.allclose(second, right_again, rtol=1e-9, atol=1e-12)
    curvature = penalty_gradients(loss)
    expected = penalty_gradients(functional.cross_entropy)
    assert not repeated or (curvature is not None and not torch.allclose(curvature, expected, rtol=1e-9))


@pytest.mark.parametrize("name", mistakes.RIGHT)
def test_right_loss_forgets_its_last_call(name: str):
    loss = mistakes.RIGHT[name].loss
    problems = [
        Problem(batch_size=9, num_classes=10, ignored=0.4, weight="random", seed=seed, reduction=reduction)
        for seed, reduction in ((0, "mean"), (1, "mean"), (2, "none"), (3, "none"))
    ]
    assert [objection(loss, problem) for problem in problems] == [""] * len(problems)


def rows_of(count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def with_special(column: slice, value: float, label: int, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return forty classes of which some are special in the first rows, whose label is given."""
    logits, target = rows_of(4, 40)
    logits[:count, column] = value
    target[:count] = label
    return logits, target


BEYOND: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "rows-of-one-grid-axis": lambda: rows_of(65_537, 2),
    "row-index-in-16-bits": lambda: rows_of(65_600, 2),
    "flat-index-in-float32": lambda: rows_of(4_200, 4_099),
    "tail-of-65536-dropped": lambda: rows_of(1, 65_600),
    "first-65536-classes-only": lambda: rows_of(1, 65_600),
    "int32-read-as-int64": lambda: (rows_of(9, 5)[0], rows_of(9, 5)[1].int()),
    "uint8-read-as-int8": lambda: (rows_of(9, 256)[0], torch.arange(247, 256).to(torch.uint8)),
    "leading-block-masked": lambda: with_special(slice(0, 16), -torch.inf, label=20),
    "ignored-by-product": lambda: with_special(slice(0, 1), -torch.inf, label=-100),
    "nan-left-out": lambda: with_special(slice(0, 1), torch.nan, label=20),
    "nan-logits-as-zero": lambda: with_special(slice(0, 1), torch.nan, label=20),
    "nan-swallowed": lambda: with_special(slice(0, 1), torch.nan, label=20),
    "rows-of-nan-ignored": lambda: with_special(slice(0, 1), torch.nan, label=20),
}


@pytest.mark.parametrize("name", BEYOND)
def test_mistake_is_wrong_where_its_note_says(name: str):
    logits, target = BEYOND[name]()
    got = mistakes.WRONG[name].loss(logits, target, reduction="none")
    expected = functional.cross_entropy(logits.float(), target.long(), reduction="none").to(logits.dtype)
    assert not torch.allclose(got, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_shared_buffer_changes_an_earlier_result():
    loss = mistakes.WRONG["result-buffer-shared"].loss
    first = loss(*rows_of(4, 3))
    before = first.clone()
    loss(2.0 * rows_of(4, 3)[0], rows_of(4, 3)[1])
    assert not torch.equal(first, before)
