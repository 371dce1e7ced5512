"""The panel finds every planted mistake, and lets every right implementation pass."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from xentbench import inprocess, inputs, panel
from xentbench.examining import examine_here
from xentbench.posing import Question
from xentbench.spec import (
    DTYPE_BYTES,
    FAMILIES,
    LAYOUTS,
    Description,
    Implementation,
    Problem,
    Source,
    Status,
    UsageError,
    Verdict,
    problem_axes,
)

QUICK, FULL = panel.panel("quick"), panel.panel("full")
DECLARED = Description("candidate", Source("object", "here:candidate"), "here:candidate", speaks=True)


def judge(loss: Any, problem: Problem) -> Verdict:
    return judge_answers(loss, problem, inputs.make(problem, seed=0))


def judge_answers(loss: Any, problem: Problem, tensors: inputs.Inputs) -> Verdict:
    return examine_here(Implementation(name="candidate", function=loss), DECLARED, Question.of(problem, tensors))


def from_log_probabilities(log_probabilities: Any) -> Any:
    """Complete `logits (..., C) -> log-probabilities` to a loss with every option of `F.cross_entropy`."""

    def loss(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):  # noqa: A002 - torch's
        if target.dtype is not torch.int64:
            target = target if target.dim() == 1 else target.movedim(1, -1)
        logp = log_probabilities(input if input.dim() == 1 else input.movedim(1, -1))
        if reduction not in ("mean", "sum", "none") or (weight is not None and weight.shape != logp.shape[-1:]):
            raise ValueError(reduction)
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
    """Running maximum and sum over chunks of seven classes (of many, a sixteenth), in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    largest = logits.new_full(logits.shape[:-1], -torch.inf)
    total = torch.zeros_like(largest)
    for chunk in logits.split(max(7, logits.shape[-1] // 16), dim=-1):
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


def _mutating(input, target, **options):  # noqa: A002 - torch's
    result = functional.cross_entropy(input.clone(), target, **options)
    input.data.add_(1.0)
    return result


def _stateful():
    """Use the normaliser of the call before, where that had the same shape; a call without gradients forgets it."""
    kept: dict[Any, Any] = {}

    def log_probabilities(logits):
        if not torch.is_grad_enabled():
            kept.clear()
        stale = kept.pop(logits.shape, None)
        normaliser = logits.logsumexp(-1, keepdim=True)
        if stale is None and torch.is_grad_enabled():
            kept[logits.shape] = normaliser.detach()
        return logits - (normaliser if stale is None else stale + 0.0 * normaliser)

    return from_log_probabilities(log_probabilities)


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
    "input overwritten": _mutating,
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
    verdicts = [judge(WRONG[name], problem) for problem in QUICK]
    assert any(verdict.is_wrong for verdict in verdicts)
    assert all(verdict.failures and verdict.reason for verdict in verdicts if verdict.status is not Status.PASSED)


LIKENESS = {
    "negated": "wrong sign",
    "sum for mean": "summed instead of averaged",
    "mean over all rows": "divides by all rows instead of the valid ones",
    "exponent not shifted": "not shifted by the maximum",
    "gradient 1e-3 too large": "is 1.001 times the right one",
    "small gradients dropped": "small entries of the gradient are dropped",
    "upstream ignored": "gradient for upstream all ones fits",
    "upstream's first for all": "its first element is used for all rows",
    "gradient zero": "no gradient at all arrives",
    "gradient absent": "is absent",
    "smoothing over C - 1": "spread over C - 1 classes",
    "smoothing ignored": "label smoothing ignored",
    "weight ignored": "class weights ignored",
    "ignore_index fixed": "ignore_index not honoured",
    "probabilities as their argmax": "taken as its largest class",
    "last class missing": "the last class is left out",
    "clipped probability": "a floor under the probability",
    "input overwritten": "logits after forward",
    "result in float32": "has dtype float32, expected bfloat16",
    "computed in bfloat16": "computed in bfloat16",
    "hidden state": "of a second call with other values",
}


@pytest.mark.parametrize("name", LIKENESS)
def test_message_says_what_the_mistake_looks_like(name):
    verdicts = [judge(WRONG[name], problem) for problem in QUICK]
    messages = [failure.message for verdict in verdicts for failure in verdict.failures]
    assert any(LIKENESS[name] in message for message in messages), messages


def test_bias_of_ten_roundoffs_is_seen_in_a_third_of_the_float64_problems():
    """Beyond what rounding explains where few terms are summed, and only if the truth itself is not in doubt."""

    def biased(*args, **options):
        return (1.0 + 1e-15) * functional.cross_entropy(*args, **options)

    problems = [problem for problem in FULL if problem.dtype == "float64"]
    assert sum(judge(biased, problem).is_wrong for problem in problems) >= len(problems) / 3


OPTIONS = st.builds(
    lambda shape, target, **axes: Problem(
        batch_size=shape[0],
        num_classes=shape[1],
        dims=shape[2],
        target=target,
        **(axes if target == "index" else axes | {"ignore_index": -100}),
    ),
    shape=st.sampled_from(
        [(None, 4, ()), (0, 3, ()), (1, 1, ()), (7, 2, ()), (3, 5, (2,)), (2, 3, (2, 2)), (5, 133, ())]
    ),
    target=st.sampled_from(["index", "one-hot", "soft", "unnormalised"]),
    dtype=st.sampled_from(list(DTYPE_BYTES)),
    logits=st.sampled_from(["normal", "peaked", "uniform", "equal", "wide"]),
    scale=st.sampled_from([0.001, 1.0, 10.0]),
    offset=st.sampled_from([0.0, -300.0, 1e4]),
    labels=st.sampled_from(["uniform", "zipf", "likely", "unlikely", "edges"]),
    target_grad=st.booleans(),
    weight=st.sampled_from(["none", "random", "unequal", "some-zero", "absent-only", "tiny"]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    ignore_index=st.sampled_from([-100, -1, 0, 1, 255]),
    label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    upstream=st.sampled_from(["random", "one", "expanded"]),
    logits_layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)


@settings(max_examples=200, deadline=None)
@given(problem=OPTIONS, name=st.sampled_from(["log_softmax-gather", "chunked-online", "float64-inside"]))
def test_right_implementation_never_fails(problem, name):
    """In half precision only those that compute in more: sums that are rounded to it may overflow."""
    if problem.dtype in ("bfloat16", "float16") and name == "log_softmax-gather":
        name = "float64-inside"
    assert judge(RIGHT[name], problem).reason == ""


@pytest.mark.parametrize("name", ["quick", "full", "compiled"])
def test_panel_is_small_sorted_and_written_as_keys(name):
    problems = panel.panel(name)
    assert len(set(problems)) == len(problems)
    assert [Problem.parse(problem.key) for problem in problems] == list(problems)
    sizes = [problem.elements for problem in problems]
    assert sizes == sorted(sizes)
    assert sum(size > 1_000_000 for size in sizes) <= (name == "full")


def test_full_panel_contains_the_quick_one():
    assert set(QUICK) < set(FULL)
    assert 20 <= len(QUICK) <= 40
    assert 100 <= len(FULL) <= 200


def test_compiled_panel_asks_a_dozen_problems_in_one_grad_mode_each():
    problems = panel.panel("compiled")
    assert 10 <= len(problems) <= 14
    assert {problem.mode for problem in problems} == {"grad", "no-grad"}
    assert {problem.reduction for problem in problems} == {"mean", "sum", "none"}
    assert any(problem.weight != "none" for problem in problems)
    assert any(problem.ignored for problem in problems)
    assert any(problem.label_smoothing for problem in problems)
    assert any(problem.dims for problem in problems)
    assert any(not problem.has_index_target for problem in problems)
    assert sum(problem.dtype == "bfloat16" for problem in problems) >= 2


def test_every_value_of_every_axis_occurs():
    for name, (_, _, choices) in problem_axes().items():
        if name not in ("mode", "contract"):
            expected = set(choices) - {"recorded"}
            assert expected <= {getattr(problem, name) for problem in FULL}, name
    assert set(FAMILIES) <= {problem.logits for problem in FULL}
    assert {-100, -1, 0, 1, 2, 255, 256} <= {problem.ignore_index for problem in FULL if problem.ignored}
    assert {0.0, 1.0} < {problem.ignored for problem in FULL}
    assert {0.0, 0.1, 1.0} <= {problem.label_smoothing for problem in FULL}
    assert {1e-3, 1.0, 10.0, 100.0} <= {problem.scale for problem in FULL}
    assert {0.0, -300.0, 1e4, -1e4} <= {problem.offset for problem in FULL}
    assert {None, 0, 1, 2, 32, 33, 65_537} <= {problem.batch_size for problem in FULL}
    assert {1, 2, 10, 64, 65, 128, 130, 1000, 4097, 32_769, 65_536, 128_256} <= {p.num_classes for p in FULL}


MATTERING = ("dtype", "reduction", "upstream", "ignore_index", "weight", "label_smoothing")


@pytest.mark.parametrize("pair", list(itertools.combinations(MATTERING, 2)))
def test_pairs_of_the_axes_that_matter_meet(pair):
    first, second = pair
    labelled = [p for p in FULL if p.has_index_target and not p.must_raise]
    met = {(getattr(p, first), getattr(p, second)) for p in labelled}
    values = {
        "dtype": set(DTYPE_BYTES),
        "reduction": {"mean", "sum", "none"},
        "upstream": {"random", "expanded", "strided"},
        "ignore_index": {-100, -1, 0, 1, 255},
        "weight": {"none", "random", "unequal", "some-zero"},
        "label_smoothing": {0.0, 0.1, 1.0},
    }
    assert set(itertools.product(values[first], values[second])) <= met


@pytest.mark.parametrize("problems", [QUICK, FULL], ids=["quick", "full"])
def test_panel_covers_dtypes_reductions_and_shapes(problems):
    assert {problem.dtype for problem in problems} == set(DTYPE_BYTES)
    assert {problem.reduction for problem in problems} == {"mean", "sum", "none"}
    assert {min(len(problem.logits_shape), 4) for problem in problems} >= {1, 2, 4}
    assert {problem.batch_size for problem in problems} >= {None, 0, 1}
    assert sum(problem.num_classes == 2 for problem in problems) >= 4
    assert {problem.num_classes for problem in problems} >= {1, 2, 3, 10, 100, 1000, 4097}


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("seed", range(3))
def test_quick_panel_overflows_an_unshifted_exponent_in_every_dtype(dtype, seed):
    problems = [problem for problem in QUICK if problem.dtype == dtype]
    largest = torch.finfo(getattr(torch, dtype)).max
    assert any(
        inputs.make(problem, seed).logits.double().max() > math.log(largest) for problem in problems if problem.elements
    )


@pytest.mark.parametrize("seed", range(5))
def test_quick_panel_finds_the_logarithm_of_a_probability_in_a_loss_without_any_option(seed):
    def logarithm_of_softmax(x, y):
        return -torch.softmax(x, 1).log().gather(1, y[:, None]).mean()

    def careful(x, y):
        return (torch.logsumexp(x, 1) - x.gather(1, y[:, None])[:, 0]).mean()

    found = {loss: inprocess.check(loss, QUICK, seed, shrinks=False) for loss in (logarithm_of_softmax, careful)}
    assert [one.verdict for one in found.values()] == ["fail", "pass"]


STARRED = ("dtype", "reduction", "weight", "label_smoothing", "ignore_index")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(STARRED, 2)))
def test_full_panel_pairs_the_options(one, other):
    kept = [problem for problem in FULL if problem.weight not in ("tiny", "absent-only") and problem.batch_size]
    values = [sorted({getattr(problem, axis) for problem in kept if _common(axis, problem)}) for axis in (one, other)]
    met = {(getattr(problem, one), getattr(problem, other)) for problem in FULL}
    assert set(itertools.product(*values)) <= met


def _common(axis, problem):
    return axis != "ignore_index" or problem.ignore_index in (-100, -1, 0, 1, 255)


def test_unknown_panel_is_refused():
    with pytest.raises(UsageError, match="did you mean 'full'"):
        panel.panel("ful")
