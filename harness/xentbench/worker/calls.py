"""Bind an implementation to one problem, and call it once in every way that is judged.

Both drivers of the judge stand on this: workers, and in-process (tests, the pytest-benchmark lane), which promises no
isolation.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

import torch

from xentbench.inputs import Answers, Inputs, another, asks_more, direction
from xentbench.spec import CROSS_ENTROPY, DTYPE_BYTES, Implementation, Phase, Problem, inert

if TYPE_CHECKING:
    from collections.abc import Callable

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

OPTIONS: Final = frozenset(CROSS_ENTROPY.options)
DEFAULTS: Final = CROSS_ENTROPY.defaults
LONGEST_DEFAULT: Final = 40
"""Characters of a default that are told."""
_PLAIN: Final = (int, float, str, type(None))
INPUTS: Final = ("logits", "target", "weight")
_TENSOR: Final = torch.Tensor
_MODULE: Final = torch.nn.Module
"""Bound before any implementation is loaded."""
REFUSALS: Final = (RuntimeError, NotImplementedError)
"""What autograd, and a careful backward, raise where a graph cannot be gone through again or has no derivative."""


class WrongTypeError(Exception):
    """The answer is of a kind that cannot be judged at all: no tensor, a dtype of no loss, another device."""


class DeferredError(Exception):
    """The answer is a tensor that may be worked out later: of a class of its own, or with attributes of its own."""


class UnsupportedError(Exception):
    """The implementation does not offer what the problem asks for; the message is the reason."""


def options_of(problem: Problem, weight: torch.Tensor | None) -> dict[str, Any]:
    """Return the options of `F.cross_entropy` for this problem, all of them, by name."""
    return {
        "weight": weight,
        "ignore_index": problem.ignore_index,
        "reduction": "average" if problem.invalid == "reduction" else problem.reduction,
        "label_smoothing": problem.label_smoothing,
    }


def offered_options(function: Callable[..., Any]) -> frozenset[str]:
    """Return which options of `F.cross_entropy` the callable's signature takes (of a class, its constructor's)."""
    if isinstance(function, type) and getattr(function, "__init__", None) is _MODULE.__init__:
        return frozenset()  # inherited: it takes anything in its signature, and refuses all of it
    # A module instance is called through `Module.__call__(*args, **kwargs)`, which says nothing.
    signed = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(signed).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return OPTIONS
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return OPTIONS
    return OPTIONS & frozenset(parameters)


def other_defaults(function: Callable[..., Any]) -> dict[str, str]:
    """Return the options whose default is not that of `F.cross_entropy`, each with its own, as short text.

    The judge gives every option, so that it never sees a default; an option without one has nothing to compare.
    """
    signed = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(signed).parameters
    except (TypeError, ValueError):
        return {}
    offered = offered_options(function)
    given = {name: parameters[name].default for name in DEFAULTS if name in offered and name in parameters}
    return {
        name: inert(str(default) if isinstance(default, _PLAIN) else type(default).__name__, LONGEST_DEFAULT)
        for name, default in given.items()
        if default is not inspect.Parameter.empty and not _is_same(default, DEFAULTS[name])
    }


def _is_same(default: object, expected: object) -> bool:
    return isinstance(default, _PLAIN) and default == expected


def exercised(problem: Problem) -> dict[str, Any]:
    """Return the options that the problem makes a difference of, with their values as people write them."""
    return {
        **({} if problem.weight == "none" else {"weight": problem.weight}),
        **({"weight": problem.invalid} if problem.invalid.startswith("weight") else {}),
        **({"ignore_index": problem.ignore_index} if problem.ignores else {}),
        **({} if problem.reduction == "mean" else {"reduction": problem.reduction}),
        **({"reduction": "average"} if problem.invalid == "reduction" else {}),
        **({"label_smoothing": problem.label_smoothing} if problem.label_smoothing else {}),
    }


def refusal(implementation: Implementation, problem: Problem) -> str | None:
    """Return why the implementation cannot be asked this problem, or None: its `supports`, then its signature."""
    reason = implementation.supports(problem) if implementation.supports else None
    if reason or implementation.factory:
        return reason
    return _not_offered(offered_options(implementation.function), problem)


def bind(implementation: Implementation, problem: Problem, weight: torch.Tensor | None) -> Loss:
    """Return `(logits, target) -> loss` with the problem's options bound; builds what a factory builds.

    Raises:
        UnsupportedError: an option that the problem exercises is not offered.
    """
    function = implementation.function() if implementation.factory else implementation.function
    offered = offered_options(function)
    reason = _not_offered(offered, problem)
    if reason:
        raise UnsupportedError(reason)
    options = {name: value for name, value in options_of(problem, weight).items() if name in offered}
    if isinstance(function, type):
        module: Loss = function(**options)
        return module
    return functools.partial(function, **options)


def _not_offered(offered: frozenset[str], problem: Problem) -> str | None:
    missing = [f"{name}={value}" for name, value in exercised(problem).items() if name not in offered]
    return f"does not offer {', '.join(missing)}" if missing else None


def answer(loss: Loss, problem: Problem, inputs: Inputs) -> Answers:
    """Call the loss in every way that is judged; the inputs are private copies, and what happens to them is recorded.

    Args:
        loss: what `bind` returned.
        problem: says which arguments require a gradient, and which grad modes are asked.
        inputs: tensors in the problem's layouts.
    """
    if problem.mode == "no-grad":
        with torch.no_grad():
            result = _checked(loss(*fresh(problem, inputs, Phase.FORWARD_NO_GRAD)), inputs.logits)
        return Answers(loss=result, loss_no_grad=result, loss_again=result, gradient=None, target_gradient=None)
    logits, target = fresh(problem, inputs, Phase.FORWARD_BACKWARD)
    before = _snapshot(logits, target, inputs.weight)
    changed: list[str] = []
    result = _checked(loss(logits, target), logits)
    was = _snapshot(result)
    given = zip(INPUTS, (logits, target, inputs.weight), strict=True)
    shared = [f"the {name}" for name, tensor in given if are_shared(result, tensor)]
    changed += _changes(before, logits, target, inputs.weight, moment="forward")
    # The second call comes between the first one's forward and backward: state kept outside the graph is overwritten.
    second = _second(loss, problem, inputs) if asks_more(problem) else {}
    gradient = target_gradient = None
    if _backward(result, inputs):
        gradient, target_gradient = logits.grad, target.grad
        changed += _changes(before, logits, target, inputs.weight, moment="backward")
    again = _checked(loss(*fresh(problem, inputs, Phase.FORWARD)), logits)
    no_grad = again
    if problem.mode == "all":
        with torch.no_grad():
            no_grad = _checked(loss(*fresh(problem, inputs, Phase.FORWARD_NO_GRAD)), logits)
    shared += ["the loss of a later call"] if are_shared(result, again) or _changes(was, result, moment="") else []
    more = _more(loss, problem, inputs) if asks_more(problem) and problem.mode == "all" else {}
    return Answers(
        loss=result.detach(),
        loss_no_grad=no_grad.detach(),
        loss_again=again.detach(),
        gradient=gradient,
        target_gradient=target_gradient,
        changed=tuple(changed),
        shared=tuple(shared),
        **second,
        **more,
    )


def once(loss: Loss, problem: Problem, inputs: Inputs) -> None:
    """Call forward and backward, and let go of everything."""
    _backward(_checked(loss(*fresh(problem, inputs, Phase.FORWARD_BACKWARD)), inputs.logits), inputs)


def are_shared(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two tensors, where there are two that hold anything, lie in the same storage."""
    held = [tensor for tensor in (one, other) if tensor is not None and tensor.numel()]
    return len({tensor.untyped_storage().data_ptr() for tensor in held}) < len(held)


def _second(loss: Loss, problem: Problem, inputs: Inputs) -> dict[str, Any]:
    """Call with other values of the same shapes, forward and backward."""
    other = another(problem, inputs)
    logits, target = fresh(problem, other, Phase.FORWARD_BACKWARD)
    result = _checked(loss(logits, target), logits)
    answers = {"second_loss": result.detach()}
    if _backward(result, other) and logits.grad is not None:
        answers["second_gradient"] = logits.grad
    return answers


def _backward(result: torch.Tensor, inputs: Inputs) -> bool:
    """Send the upstream gradient back and return whether that was possible.

    A loss of another shape is the judge's to name; its backward would only raise about the upstream gradient's.
    """
    if not result.requires_grad or result.shape != inputs.upstream.shape:
        return False
    result.backward(inputs.upstream.to(result.dtype))  # type: ignore[no-untyped-call]
    return True


def _more(loss: Loss, problem: Problem, inputs: Inputs) -> dict[str, Any]:
    """Go back twice through one graph, and once through the backward; raising is a refusal, which is noted."""
    answers: dict[str, Any] = {}
    notes: list[str] = []
    logits, target = fresh(problem, inputs, Phase.FORWARD)
    result = loss(logits, target)
    if not result.requires_grad or result.shape != inputs.upstream.shape:
        return {}
    upstream = inputs.upstream.to(result.dtype)
    try:
        torch.autograd.grad(result, logits, upstream, retain_graph=True, allow_unused=True)
        answers["gradient_again"] = torch.autograd.grad(result, logits, upstream, allow_unused=True)[0]
    except REFUSALS:
        notes.append("backward-once")
    if problem.dtype in ("float64", "float32"):
        try:
            answers["hessian_product"], answers["upstream_slope"] = second_derivatives(loss, problem, inputs)
        except REFUSALS:
            notes.append("no-double-backward")
    return {**{name: tensor for name, tensor in answers.items() if tensor is not None}, "notes": tuple(notes)}


def second_derivatives(loss: Loss, problem: Problem, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `sum(gradient * inputs.direction)` gives by autograd: for the logits, and for the upstream gradient.

    The upstream gradient requires a gradient too, so that a backward without a graph of its own cannot pass unseen: it
    has to raise, or its derivative counts as zero.

    Raises:
        RuntimeError: there is no second derivative, and it says so.
    """
    logits, target = fresh(problem, inputs, Phase.FORWARD)
    result = loss(logits, target)
    upstream = inputs.upstream.to(result.dtype).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(result, logits, upstream, create_graph=True)
    # Not `torch.autograd.grad(gradient, logits)`: that never reaches the node in which `once_differentiable` raises.
    gradient.backward(direction(problem))  # type: ignore[no-untyped-call]
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (logits, upstream)]
    return found[0], found[1]


def checked(loss: Loss) -> Loss:
    """Return the loss, each answer of which is looked at for its kind: so whoever calls it first says what is wrong."""
    return lambda logits, target: _checked(loss(logits, target), logits)


def _checked(result: object, logits: torch.Tensor) -> torch.Tensor:
    """Return the result where it can be judged; raises WrongTypeError or DeferredError, which say what was expected."""
    if not isinstance(result, torch.Tensor):
        msg = f"the loss must be a torch.Tensor, got {type(result).__name__}"
    elif plain(result).layout is not torch.strided:
        msg = f"the loss must be a dense tensor, got {result.layout}"
    elif str(result.dtype).removeprefix("torch.") not in DTYPE_BYTES:
        msg = f"the loss must have a floating dtype of {', '.join(DTYPE_BYTES)}, got {result.dtype}"
    elif result.device != logits.device:
        msg = f"the loss must be on the logits' device {logits.device}, got {result.device}"
    else:
        return result
    raise WrongTypeError(msg)


def plain(result: torch.Tensor) -> torch.Tensor:
    """Return the result where it has its values already; raises DeferredError where it may be worked out later.

    What is computed when it is looked at, or shown as another value, is not an answer yet.
    """
    if type(result) is _TENSOR and not result.__dict__:
        return result
    own = f" with attributes of its own ({', '.join(sorted(vars(result)))[:100]})" if type(result) is _TENSOR else ""
    msg = f"the loss must be a plain torch.Tensor that has its values, got {type(result).__name__}{own}"
    raise DeferredError(msg)


def fresh(problem: Problem, inputs: Inputs, phase: Phase) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and target as new leaves of the same layout, requiring gradients as phase and problem say."""
    logits, target = _copy(inputs.logits), _copy(inputs.target)
    if phase is not Phase.FORWARD_NO_GRAD:
        logits.requires_grad_()
        if problem.target_grad and not problem.has_index_target:
            target.requires_grad_()
    return logits, target


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """Copy values into storage of the same shape, strides and offset (`clone` would make slices contiguous)."""
    storage = tensor.untyped_storage().clone()  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
        storage, tensor.storage_offset(), tensor.shape, tensor.stride()
    )


def _snapshot(*tensors: torch.Tensor | None) -> list[torch.Tensor | None]:
    """Copy the tensors' values as bytes, so that NaN equals itself."""
    return [
        None if t is None else t.new_empty(t.numel()).copy_(t.detach().flatten()).view(torch.uint8) for t in tensors
    ]


def _changes(before: list[torch.Tensor | None], *tensors: torch.Tensor | None, moment: str) -> list[str]:
    """Name the inputs (logits, target, weight) whose bytes differ from the snapshot's."""
    return [
        f"{name} after {moment}"
        for name, was, now in zip(INPUTS, before, _snapshot(*tensors), strict=False)
        if was is not None and now is not None and not torch.equal(was, now)
    ]
