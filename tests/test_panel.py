"""The panel finds every planted mistake, and lets every right implementation pass."""

import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional

from xentbench import inputs, oracle, panel, parity
from xentbench.spec import (
    Description,
    Failure,
    Implementation,
    Problem,
    Source,
    Status,
    Verdict,
)
from xentbench.worker import calls

QUICK, FULL = panel.panel("quick"), panel.panel("full")
DECLARED = Description(name="candidate", source=Source("object", "here:candidate"), origin="here:candidate")


def judge(loss: Any, problem: Problem) -> Verdict:
    given = inputs.make(problem, seed=0)
    bound = calls.bind(Implementation(name="candidate", function=loss), problem, given.weight)
    answers = calls.answer(bound, problem, given)
    fresh = inputs.make(problem, seed=0)
    return parity.judge(problem, oracle.solve(problem, fresh), fresh, answers, DECLARED)


def from_log_probabilities(log_probabilities: Any) -> Any:
    """Complete `logits (..., C) -> log-probabilities` to a loss with every option of `F.cross_entropy`."""

    def loss(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):  # noqa: A002 - torch's
        if target.dtype is not torch.int64:
            target = target if target.dim() == 1 else target.movedim(1, -1)
        logp = log_probabilities(input if input.dim() == 1 else input.movedim(1, -1))
        weight = logp.new_ones(logp.shape[-1]) if weight is None else weight
        if target.dtype is torch.int64:
            valid = target != ignore_index
            labels = torch.where(valid, target, 0)
            rows = -weight[labels] * logp.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
            divisor = (weight[labels] * valid).sum()
            if label_smoothing:
                uniform = -(weight * logp).sum(-1) / logp.shape[-1]
                rows = (1.0 - label_smoothing) * rows + label_smoothing * uniform
            rows = torch.where(valid, rows, torch.zeros_like(rows))
        else:
            target = (1.0 - label_smoothing) * target + label_smoothing / logp.shape[-1]
            rows = -(weight * target * logp).sum(-1)
            divisor = rows.new_tensor(rows.numel())
        if reduction == "none":
            return rows
        return rows.sum() / divisor if reduction == "mean" else rows.sum()

    return loss


def chunked_online(logits):
    """Running maximum and sum over chunks of seven classes, in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = logits.new_full(logits.shape[:-1], -torch.inf)
    total = torch.zeros_like(largest)
    for chunk in logits.split(7, dim=-1):
        larger = torch.maximum(largest, chunk.detach().amax(-1))
        anchor = torch.where(larger.isneginf(), 0.0, larger)
        total = total * torch.exp(largest - anchor) + torch.exp(chunk - anchor.unsqueeze(-1)).sum(-1)
        largest = larger
    return logits - (largest + total.log()).unsqueeze(-1)


def in_dtype(dtype, loss):
    def cast(input, target, weight=None, **options):  # noqa: A002 - torch's
        target = target if target.dtype is torch.int64 else target.to(dtype)
        weight = None if weight is None else weight.to(dtype)
        return loss(input.to(dtype), target, weight=weight, **options).to(input.dtype)

    return cast


def with_result_of_input(loss):
    return lambda input, *args, **options: loss(input, *args, **options).to(input.dtype)  # noqa: A006 - torch's name


RIGHT = {
    "F.cross_entropy": functional.cross_entropy,
    "log_softmax-gather": from_log_probabilities(lambda x: functional.log_softmax(x, -1)),
    "logsumexp-gather": from_log_probabilities(lambda x: x - x.logsumexp(-1, keepdim=True)),
    "chunked-online": with_result_of_input(from_log_probabilities(chunked_online)),
    "float64-inside": in_dtype(torch.float64, functional.cross_entropy),
}


class _Backward(torch.autograd.Function):
    """The identity, with a tampered backward."""

    @staticmethod
    def forward(ctx, tensor, tamper):
        ctx.tamper = tamper
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.tamper(gradient), None


def before(change):
    """F.cross_entropy of changed arguments: `change(arguments)` edits a dict of them."""

    def loss(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):  # noqa: A002 - torch's
        arguments = {
            "input": input,
            "target": target,
            "weight": weight,
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
        }
        return functional.cross_entropy(**(arguments | change(arguments)))

    return loss


def after(change):
    """F.cross_entropy with a changed result: `change(loss, arguments)`."""

    def loss(input, target, **options):  # noqa: A002 - torch's
        return change(functional.cross_entropy(input, target, **options), {"input": input, "target": target} | options)

    return loss


def _mean_over_all_rows(loss, arguments):
    target, index = arguments["target"], arguments["target"].dtype is torch.int64
    if arguments["reduction"] != "mean" or not index or not target.numel():
        return loss
    return loss * (target != arguments["ignore_index"]).sum() / target.numel()


def _guarded_mean(loss, arguments):
    return torch.nan_to_num(loss, nan=0.0) if arguments["reduction"] == "mean" else loss


def _overwriting(input, target, **options):  # noqa: A002 - torch's
    loss = functional.cross_entropy(input, target, **options)
    with torch.no_grad():
        input.mul_(2.0)
    return loss.clone()


def _mutating_when_no_gradient(input, target, **options):  # noqa: A002 - torch's
    result = functional.cross_entropy(input.clone(), target, **options)
    input.data.add_(1.0)
    return result


def _stateful():
    calls_made = itertools.count()
    return after(lambda loss, _: loss * (1.0 + 0.1 * (next(calls_made) % 3 == 1)))


def _spread_over_others(arguments):
    classes = arguments["input"].shape[0 if arguments["input"].dim() == 1 else 1]
    return {"label_smoothing": min(1.0, arguments["label_smoothing"] * classes / max(1, classes - 1))}


def _last_class_missing(logits):
    return logits - logits[..., : max(1, logits.shape[-1] - 1)].logsumexp(-1, keepdim=True)


def _padded(logits):
    return logits - functional.pad(logits, (0, 1)).logsumexp(-1, keepdim=True)


WRONG = {
    "negated": after(lambda loss, _: -loss),
    "sum for mean": before(lambda a: {"reduction": "sum" if a["reduction"] == "mean" else a["reduction"]}),
    "mean over all rows": after(_mean_over_all_rows),
    "mean guarded against nothing to count": after(_guarded_mean),
    "epsilon in the logarithm": from_log_probabilities(lambda x: (x.softmax(-1) + 1e-9).log()),
    "clipped probability": from_log_probabilities(lambda x: x.softmax(-1).clamp(1e-7, 1.0 - 1e-7).log()),
    "logarithm of softmax": from_log_probabilities(lambda x: x.softmax(-1).log()),
    "exponent not shifted": from_log_probabilities(lambda x: x - x.exp().sum(-1, keepdim=True).log()),
    "last class missing": from_log_probabilities(_last_class_missing),
    "padding counted": from_log_probabilities(_padded),
    "loss 1e-4 too large": after(lambda loss, _: loss * (1.0 + 1e-4)),
    "gradient 1e-3 too large": before(lambda a: {"input": _Backward.apply(a["input"], lambda g: g * 1.001)}),
    "small gradients dropped": before(
        lambda a: {"input": _Backward.apply(a["input"], lambda g: torch.where(g.abs() < 2e-4, 0.0, g))}
    ),
    "upstream ignored": after(lambda loss, _: _Backward.apply(loss, torch.ones_like)),
    "upstream's first for all": after(
        lambda loss, _: _Backward.apply(loss, lambda g: g.reshape(-1)[:1].expand(g.numel()).reshape(g.shape))
    ),
    "gradient zero": before(lambda a: {"input": _Backward.apply(a["input"], torch.zeros_like)}),
    "gradient absent": after(lambda loss, _: loss.detach()),
    "smoothing over C - 1": before(_spread_over_others),
    "smoothing ignored": before(lambda _: {"label_smoothing": 0.0}),
    "weight ignored": before(lambda _: {"weight": None}),
    "ignore_index fixed": before(lambda a: {"ignore_index": min(a["ignore_index"], -1)}),
    "probabilities as their argmax": before(
        lambda a: (
            {} if a["target"].dtype is torch.int64 else {"target": a["target"].argmax(min(1, a["target"].dim() - 1))}
        )
    ),
    "target gradient missing": before(lambda a: {"target": a["target"].detach()}),
    "input overwritten": _mutating_when_no_gradient,
    "result in float32": after(lambda loss, _: loss.float()),
    "computed in bfloat16": in_dtype(torch.bfloat16, functional.cross_entropy),
    "computed in float32": in_dtype(torch.float32, functional.cross_entropy),
    "hidden state": _stateful(),
    "wrong shape": after(lambda loss, _: loss.reshape(-1)),
    "always NaN": after(lambda loss, _: loss * torch.nan),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_implementation_passes_the_full_panel(name):
    failures = {problem.key: judge(RIGHT[name], problem) for problem in FULL}
    assert {key: verdict.reason for key, verdict in failures.items() if verdict.status is not Status.PASSED} == {}


@pytest.mark.parametrize("name", WRONG)
def test_quick_panel_finds_planted_mistake(name):
    verdicts = [_judge_or_raise(WRONG[name], problem) for problem in QUICK]
    assert any(verdict.is_wrong for verdict in verdicts)


def _judge_or_raise(loss: Any, problem: Problem) -> Verdict:
    """A planted mistake may also raise, as a worker would record it."""
    try:
        return judge(loss, problem)
    except (IndexError, RuntimeError) as error:
        return Verdict(Status.RAISED, failures=(Failure("exception", str(error)),))
