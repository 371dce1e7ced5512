from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from xentbench import inputs
from xentbench.spec import Implementation, Phase, Problem
from xentbench.worker import calls


def asked(function, key: str = "N=6,C=4", **fields):
    problem = Problem.parse(key)
    given = inputs.make(problem, 0)
    return calls.answer(calls.bind(Implementation("x", function, **fields), problem, given.weight), problem, given)


def test_functions_classes_instances_and_factories_answer_alike():
    expected = asked(functional.cross_entropy, "N=6,C=4,label-smoothing=0.1")
    for function, fields in ((nn.CrossEntropyLoss, {}), (lambda: functional.cross_entropy, {"factory": True})):
        answers = asked(function, "N=6,C=4,label-smoothing=0.1", **fields)
        assert torch.equal(answers.loss, expected.loss)
        assert torch.equal(answers.gradient, expected.gradient)
    assert torch.equal(asked(nn.CrossEntropyLoss()).loss, asked(functional.cross_entropy).loss)


def test_an_option_that_is_not_in_the_signature_is_a_refusal_with_its_name():
    def plain(logits, target, reduction="mean"):
        return functional.cross_entropy(logits, target, reduction=reduction)

    entry = Implementation("plain", plain)
    assert calls.refusal(entry, Problem.parse("N=6,C=4,reduction=sum")) is None
    assert calls.refusal(entry, Problem.parse("N=6,C=4,ignore-index=3")) == "does not offer ignore_index=3"
    assert calls.refusal(entry, Problem.parse("N=6,C=4,weight=random")) == "does not offer weight=random"
    with pytest.raises(calls.UnsupportedError, match="label_smoothing=0.1"):
        asked(plain, "N=6,C=4,label-smoothing=0.1")


def test_a_module_class_without_an_init_of_its_own_offers_nothing_and_is_built_without_arguments():
    class Plain(nn.Module):
        def forward(self, x, y):
            return functional.cross_entropy(x, y)

    entry, problem = Implementation("plain", Plain), Problem(batch_size=4, num_classes=3)
    given = inputs.make(problem, 0)
    assert calls.refusal(entry, Problem(batch_size=4, reduction="sum")) == "does not offer reduction=sum"
    assert calls.bind(entry, problem, None)(given.logits, given.target).isfinite()


def test_a_default_that_is_not_that_of_cross_entropy_is_told_as_short_inert_text():
    def other(input, target, weight=None, ignore_index=-1, reduction="s\x1b[31m" + 99 * "u", label_smoothing=0):  # noqa: A002
        return functional.cross_entropy(input, target, weight)

    class Module(nn.Module):
        def __init__(self, ignore_index=[-1], reduction="mean"):  # noqa: B006
            super().__init__()

    told = calls.other_defaults(other)
    assert told == {"ignore_index": "-1", "reduction": "s " + 38 * "u"}
    assert calls.other_defaults(Module) == {"ignore_index": "list"}
    assert calls.other_defaults(lambda x, y, *, reduction: x.sum()) == {}
    assert calls.other_defaults(functional.cross_entropy) == calls.other_defaults(nn.CrossEntropyLoss) == {}


def test_what_supports_says_goes_first():
    entry = Implementation("two", functional.cross_entropy, supports=lambda p: None if p.num_classes == 2 else "C != 2")
    assert calls.refusal(entry, Problem.parse("N=6,C=2")) is None
    assert calls.refusal(entry, Problem.parse("N=6,C=4")) == "C != 2"


def test_inputs_changed_in_forward_or_backward_are_named():
    def tramples(logits, target):
        loss = functional.cross_entropy(logits, target)
        logits.data.zero_()
        target.data.fill_(0)
        return loss

    assert asked(tramples).changed[:2] == (
        "logits after forward",
        "target after forward",
    )

    class Late(torch.autograd.Function):
        @staticmethod
        def forward(ctx, logits, target):
            ctx.logits = logits
            return functional.cross_entropy(logits.detach(), target)

        @staticmethod
        def backward(ctx, upstream):
            ctx.logits.data.mul_(2)
            return torch.zeros_like(ctx.logits), None

    def late(logits, target):  # `apply` has no signature that tells its options
        return Late.apply(logits, target)

    assert asked(late).changed == ("logits after backward",)
    assert asked(functional.cross_entropy).changed == ()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda logits, target: 1.0, "got float"),
        (lambda logits, target: None, "got NoneType"),
        (lambda logits, target: target.sum(), "got torch.int64"),
        (lambda logits, target: logits.sum() * 1j, "got torch.complex64"),
        (lambda logits, target: torch.empty((), device="meta"), "on the logits' device cpu, got meta"),
    ],
)
def test_what_cannot_be_judged_at_all_is_told_by_its_type(function, told: str):
    with pytest.raises(calls.WrongTypeError, match=told):
        asked(function)


def test_a_loss_of_another_shape_is_left_to_the_judge():
    answers = asked(lambda logits, target: functional.cross_entropy(logits, target).unsqueeze(0))
    assert answers.loss.shape == (1,)
    assert answers.gradient is None


def test_a_nan_in_the_logits_is_not_a_change():
    def poisoned(logits, target):
        return functional.cross_entropy(logits, target)

    problem = Problem.parse("N=6,C=4")
    made = inputs.make(problem, 0)
    made.logits[0, 0] = float("nan")
    assert calls.answer(calls.bind(Implementation("x", poisoned), problem, None), problem, made).changed == ()


def test_a_loss_without_a_graph_has_no_gradient():
    answers = asked(lambda logits, target: functional.cross_entropy(logits.detach(), target))
    assert answers.gradient is None


def test_the_upstream_gradient_is_the_problems():
    problem = Problem.parse("N=6,C=4,reduction=none")
    given = inputs.make(problem, 0)
    answers = asked(functional.cross_entropy, problem.key)
    leaf = given.logits.clone().requires_grad_()
    functional.cross_entropy(leaf, given.target, reduction="none").backward(given.upstream)
    assert torch.equal(answers.gradient, leaf.grad)


@pytest.mark.parametrize("layout", ["transposed", "column-slice", "row-slice", "expanded", "offset"])
def test_a_fresh_copy_keeps_the_layout_and_owns_its_memory(layout: str):
    problem = Problem(batch_size=6, num_classes=4, logits_layout=layout)
    given = inputs.make(problem, 0)
    logits, _ = calls.fresh(problem, given, Phase.FORWARD)
    assert logits.stride() == given.logits.stride()
    assert logits.storage_offset() == given.logits.storage_offset()
    assert torch.equal(logits, given.logits)
    assert logits.untyped_storage().data_ptr() != given.logits.untyped_storage().data_ptr()
    assert logits.requires_grad
    assert logits.is_leaf


class _Kept(torch.autograd.Function):
    """Saves what forward found instead of its input, and does not say that it cannot be differentiated twice."""

    @staticmethod
    def forward(ctx, logits, target):
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            loss = functional.cross_entropy(leaf, target)
        (ctx.gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach()

    @staticmethod
    def backward(ctx, upstream):
        return ctx.gradient.mul_(upstream), None


class _Honest(_Kept):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return ctx.gradient * upstream, None


def test_second_derivative_that_is_silently_missing_is_answered_as_zero():
    problem = Problem(batch_size=3, num_classes=4)
    answers = calls.answer(_Kept.apply, problem, inputs.make(problem, 0))
    assert answers.hessian_product is not None
    assert not answers.hessian_product.any()
    assert answers.notes == ()


def test_second_derivative_that_is_refused_is_noted():
    problem = Problem(batch_size=3, num_classes=4)
    answers = calls.answer(_Honest.apply, problem, inputs.make(problem, 0))
    assert answers.hessian_product is None
    assert answers.notes == ("no-double-backward",)


def test_gradient_scaled_in_place_differs_in_a_second_backward():
    problem = Problem(batch_size=3, num_classes=4)
    answers = calls.answer(_Kept.apply, problem, inputs.make(problem, 0))
    assert not torch.equal(answers.gradient_again, answers.gradient)


def test_one_grad_mode_is_asked_where_the_problem_says_so():
    modes = []

    def loss(logits, target):
        modes.append(torch.is_grad_enabled())
        return functional.cross_entropy(logits, target)

    for mode, seen in (("grad", {True}), ("no-grad", {False}), ("all", {True, False})):
        modes.clear()
        problem = Problem(batch_size=3, num_classes=4, mode=mode)
        answers = calls.answer(loss, problem, inputs.make(problem, 0))
        assert set(modes) == seen
        assert (answers.gradient is None) == (mode == "no-grad")
