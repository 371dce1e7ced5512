"""A counter-example in words and as code: one line for the terminal, and a snippet that runs where torch is installed.

The snippet needs torch and the implementation's own file, nothing of this harness (unless that file asks for it).
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from xentbench.examining import reached
from xentbench.inputs import another, direction
from xentbench.parity import SECOND
from xentbench.simplifying import FEW, PLAIN, shortest
from xentbench.spec import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xentbench.shrinking import Counterexample
    from xentbench.spec import Description

_OF_UPSTREAM: Final = ("gradient", "target-gradient", "repeat", "second-backward", "double-backward")
_SHOWN: Final = 4
"""So many numbers of a tensor that is too large for one line."""
_NAMES: Final = ("ignore_index", "reduction", "label_smoothing")
_TOLD_BY_TENSORS: Final = ("N", "C", "target", "weight", "ignored", "upstream")
_LAYOUTS: Final = {
    "transposed": "{0}.transpose(0, -1).contiguous().transpose(0, -1)",
    "expanded": "{0}[:1].expand({0}.shape)",
    "channels-last": "{0}.movedim(1, -1).contiguous().movedim(-1, 1)",
    "row-slice": "torch.stack([{0}, torch.zeros_like({0})], 1).flatten(0, 1)[::2]",
    "column-slice": "F.pad({0}, (1, 2))[..., 1:-2]",
    "offset": "F.pad({0}.flatten(), (1, 0))[1:].view({0}.shape)",
}
"""Expressions that lay a tensor of that name out as `inputs.lay_out` does."""


def line(found: Counterexample) -> str:
    """Return the counter-example in one line: sizes, options, numbers, what was expected and what came.

    Example: `N=1 C=2, logits [[0, 0]], target [0]: expected 0.6931, got -0.6931`.
    """
    problem, given = found.problem, found.inputs
    axes = [part for part in problem.key.partition(":")[2].split(",") if _name(part) not in _TOLD_BY_TENSORS]
    size = "none" if problem.batch_size is None else problem.batch_size
    parts = [" ".join([f"N={size}", f"C={problem.num_classes}", *axes])]
    parts += [f"logits {_brief(given.logits)}", f"target {_brief(given.target)}"]
    if given.weight is not None:
        parts.append(f"weight {_brief(given.weight)}")
    if found.failure.quantity in _OF_UPSTREAM and bool((given.upstream != 1.0).any()):
        parts.append(f"upstream {_brief(given.upstream)}")
    return ", ".join(parts) + _outcome(found)


def snippet(found: Counterexample, entry: Description) -> str:
    """Return Python code that asks the implementation this question again and prints what is right and what came.

    Where the implementation is a file, its path is relative to the current folder, as in `examining.reproduce`.
    """
    body = [*_tensors(found), *_extra(found), "", *_calls(found, entry.offered)]
    return "\n".join([*_imports(body, entry), *body]) + "\n"


def _name(part: str) -> str:
    return part.partition("=")[0]


def _outcome(found: Counterexample) -> str:
    """Return the numbers at fault; nothing where none is, since the failure's message says it all."""
    failure = found.failure
    if failure.expected is None or failure.got is None:
        return ""
    expected, got = (f"{failure.expected:.17g}", f"{failure.got:.17g}")
    for digits in range(4, 17):
        short = (f"{failure.expected:.{digits}g}", f"{failure.got:.{digits}g}")
        if short[0] != short[1]:
            expected, got = short
            break
    where = "" if failure.where == "loss" else f"{failure.where} "
    return f": {where}expected {expected}, got {got}"


def _brief(tensor: torch.Tensor) -> str:
    """Return a tensor as nested lists; of a large one its runs of equal numbers, or where it begins and its size."""
    if tensor.numel() <= FEW:
        return _list(tensor)
    runs = [(float(value), len(list(same))) for value, same in itertools.groupby(tensor.flatten().tolist(), key=repr)]
    if len(runs) <= FEW // 2 and tensor.dim() <= 1 + (len(tensor) == 1):
        told = [f"{count} x " * (count > 1) + shortest(value, tensor.dtype) for value, count in runs]
        return f"[{', '.join(told)}]"
    first = ", ".join(shortest(value, tensor.dtype) for value in tensor.flatten()[:_SHOWN].tolist())
    return f"[{first}, … {tensor.numel()} numbers]"


def _list(tensor: torch.Tensor) -> str:
    if tensor.dim() == 0:
        return shortest(tensor.item(), tensor.dtype)
    return f"[{', '.join(_list(part) for part in tensor.detach().cpu())}]"


def _imports(body: list[str], entry: Description) -> list[str]:
    """Return the lines that import what the body needs, and the implementation as `loss`."""
    text = "\n".join(body)
    numbers = [name for name in ("inf", "nan") if name in text]
    asked = _implementation(entry)
    head = ["import importlib.util", "import sys"] if "spec_from_file" in "".join(asked) else ["import importlib"]
    head += [f"from math import {', '.join(numbers)}"] if numbers else []
    return [*head, "", "import torch", "from torch.nn import functional as F", "", *asked, ""]


def _implementation(entry: Description) -> list[str]:
    source = entry.source
    where = reached(source)
    named = source.kind in ("object", "entry-point") and ":" in where
    place, _, attribute = where.rpartition(":") if named else (where, "", "")
    if source.kind == "built-in":
        place = f"{source.where}.{Path(entry.origin).stem}"
    lines = _file(place) if place.endswith(".py") else [f"module = importlib.import_module({json.dumps(place)})"]
    if attribute:
        lines.append(f"loss = module.{attribute}")
    else:
        lines += [
            "members = [m for v in vars(module).values() for m in (v if isinstance(v, (list, tuple)) else [v])]",
            f'loss = next(m for m in members if getattr(m, "name", None) == {json.dumps(entry.name)})',
        ]
    return lines


def _file(place: str) -> list[str]:
    return [
        f"sys.path.insert(0, {json.dumps(str(Path(place).parent))})",
        f'spec = importlib.util.spec_from_file_location("candidate", {json.dumps(place)})',
        'module = sys.modules["candidate"] = importlib.util.module_from_spec(spec)',
        "spec.loader.exec_module(module)",
    ]


def _tensors(found: Counterexample) -> Iterator[str]:
    """Yield the lines that make the tensors, in the problem's layouts, and their copies in float64."""
    problem, given = found.problem, found.inputs
    on = "" if problem.device == "cpu" else f", device={json.dumps(problem.device)}"
    for name in ("logits", "target", "weight", "upstream"):
        tensor = getattr(given, name)
        if tensor is None or (name == "upstream" and "upstream" not in _last(found)):
            continue
        yield from _tensor(name, tensor, on)
        strides = {"strided": "row-slice", "expanded": "expanded"}.get(problem.upstream, "contiguous")
        layout = getattr(problem, f"{name}_layout", strides)
        if layout in _LAYOUTS and tensor.numel() and tensor.dim() > (layout == "channels-last"):
            yield f"{name} = {_LAYOUTS[layout].format(name)}"
    yield "logits.requires_grad_()"
    yield "exact = logits.detach().double().requires_grad_()"
    if problem.has_index_target:
        yield "exact_target = target.long()" if problem.may_raise else "exact_target = target"
    elif problem.target_grad:
        yield "target.requires_grad_()"
        yield "exact_target = target.detach().double().requires_grad_()"
    else:
        yield "exact_target = target.double()"


def _extra(found: Counterexample) -> Iterator[str]:
    """Yield the lines that make what only one kind of failure needs: a second call's tensors, or a direction."""
    text, problem = _last(found), found.problem
    if "other_logits" in text:
        other = another(problem, found.inputs)
        yield from _tensor("other_logits", other.logits, "")
        yield "other_logits.requires_grad_()"
        yield from _tensor("other_target", other.target, "")
    if "direction" in text:
        yield from _tensor("direction", direction(problem), "")


def _tensor(name: str, tensor: torch.Tensor, on: str) -> Iterator[str]:
    """Yield lines that make one tensor; a large one by its commonest number, where few others need telling."""
    dtype = ("" if tensor.dtype is torch.int64 and tensor.numel() else f", dtype={tensor.dtype}") + on
    flat = tensor.detach().cpu().flatten()
    if len(flat) > PLAIN:
        commonest = flat.nan_to_num().mode().values
        others = (flat != commonest).nonzero().flatten().tolist()
        if len(others) <= FEW:
            yield f"{name} = torch.full({tuple(tensor.shape)}, {shortest(commonest.item(), flat.dtype)}{dtype})"
            yield from (f"{name}.view(-1)[{place}] = {shortest(flat[place].item(), flat.dtype)}" for place in others)
            return
    shape = f".reshape({tuple(tensor.shape)})" if not len(flat) else ""
    yield f"{name} = torch.tensor({_list(tensor)}{dtype}){shape}"


def _calls(found: Counterexample, offered: Sequence[str]) -> Iterator[str]:
    """Yield the lines that call both losses and print what is right and what came of the quantity at fault.

    Options at their defaults are said to the implementation too, where it takes them: its own defaults may differ.
    """
    options = _options(found)
    exact = {name: value.replace("weight", "weight.double()") for name, value in options.items()}
    right = f"F.cross_entropy({_joined('exact', 'exact_target', **exact)})"
    plain = {"weight": "None", **{name: json.dumps(getattr(Problem(), name)) for name in _NAMES}}
    asked = {name: options.get(name, value) for name, value in plain.items() if name in options or name in offered}
    if not found.problem.must_raise:
        yield f"truth = {right}"
    call = f"lambda x, y: loss({_joined('x', 'y', **asked)})"
    yield f"ask = loss({_joined(**asked)}) if isinstance(loss, type) else {call}"
    yield from _last(found).replace("RIGHT", right).splitlines()


def _options(found: Counterexample) -> dict[str, str]:
    """Return the options that are not at their defaults, as code."""
    told = {name: getattr(found.problem, name) for name in _NAMES}
    if found.problem.invalid == "reduction":
        told["reduction"] = "average"
    weight = {} if found.inputs.weight is None else {"weight": "weight"}
    return weight | {name: json.dumps(v) for name, v in told.items() if v != getattr(Problem(), name)}


def _joined(*given: str, **named: str) -> str:
    return ", ".join([*given, *(f"{name}={value}" for name, value in named.items())])


def _last(found: Counterexample) -> str:
    """Return the end of the snippet: it prints the quantity at fault, by both losses."""
    failure, kind = found.failure, found.failure.quantity
    if found.problem.must_raise:
        kind = "refusal"
    elif failure.where.startswith("loss without gradients"):
        kind = "no-grad"
    elif kind == "dtype" and failure.message.startswith("loss without gradients"):
        kind = "dtype-no-grad"
    elif SECOND in failure.message:
        kind = "second"
    lines = _LAST.get(kind, _LAST["value"])
    # A message on changed inputs names them: "logits after forward".
    changed = (name for name in ("logits", "target", "weight") if f"{name} after" in failure.message)
    return lines.replace("ARGUMENT", next(changed, "logits"))


_GRADIENT: Final = """\
got = ask(logits, target)
truth.backward(upstream.double())
if got.requires_grad:
    got.backward(upstream.to(got.dtype))
"""
_LAST: Final = {
    "value": """\
print("expected", truth.tolist(), "got", ask(logits, target).tolist())
""",
    "no-grad": """\
with torch.no_grad():
    print("expected", truth.tolist(), "got", ask(logits.detach(), target.detach()).tolist())
""",
    "repeat": """\
ask(logits, target)
print("expected", truth.tolist(), "got", ask(logits, target).tolist())
""",
    "second": """\
kept = ask(logits, target)
exact, exact_target = other_logits.detach().double().requires_grad_(), other_target
exact_target = exact_target.double() if exact_target.is_floating_point() else exact_target
truth = RIGHT
truth.backward(upstream.double())
got = ask(other_logits, other_target)
if got.requires_grad:
    got.backward(upstream.to(got.dtype))
came = None if other_logits.grad is None else other_logits.grad.tolist()
print("expected", [truth.tolist(), exact.grad.tolist()], "got", [got.tolist(), came])
""",
    "second-backward": """\
got = ask(logits, target)
for _ in range(2):
    (expected,) = torch.autograd.grad(truth, exact, upstream.double(), retain_graph=True)
    (came,) = torch.autograd.grad(got, logits, upstream.to(got.dtype), retain_graph=True)
print("expected", expected.tolist(), "got", came.tolist())
""",
    "double-backward": """\
def product(loss, x):
    weight_of_loss = upstream.to(loss.dtype).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss, x, weight_of_loss, create_graph=True)
    gradient.backward(direction.to(x.dtype))
    return [0.0 if leaf.grad is None else leaf.grad.tolist() for leaf in (x, weight_of_loss)]
print("expected", product(truth, exact), "got", product(ask(logits, target), logits))
""",
    "refusal": """\
try:
    print("expected", RIGHT.tolist())
except Exception as error:
    print("expected", repr(error), "got", ask(logits, target).tolist())
""",
    "gradient": _GRADIENT
    + """\
print("expected", exact.grad.tolist(), "got", None if logits.grad is None else logits.grad.tolist())
""",
    "target-gradient": _GRADIENT
    + """\
print("expected", exact_target.grad.tolist(), "got", None if target.grad is None else target.grad.tolist())
""",
    "shape": """\
print("expected", tuple(truth.shape), "got", tuple(ask(logits, target).shape))
""",
    "dtype": """\
print("expected", logits.dtype, "got", ask(logits, target).dtype)
""",
    "dtype-no-grad": """\
with torch.no_grad():
    print("expected", logits.dtype, "got", ask(logits.detach(), target.detach()).dtype)
""",
    "mutation": """\
before = ARGUMENT.detach().clone()
try:
"""
    + "".join(f"    {line}\n" for line in _GRADIENT.splitlines())
    + """\
except RuntimeError as error:
    print("backward raised", error)
print("expected", before.tolist(), "got", ARGUMENT.tolist())
""",
    "aliasing": """\
kept = [ask(logits, target), ask(logits, target), logits, target]
print("expected 4 places, got", len({tensor.untyped_storage().data_ptr() for tensor in kept}))
""",
    "exception": """\
try:
"""
    + "".join(f"    {line}\n" for line in _GRADIENT.splitlines())
    + """\
    print("expected", truth.tolist(), "got", got.tolist())
except Exception as error:
    print("expected", truth.tolist(), "got", repr(error))
""",
}
"""The end of a snippet, by the quantity that is at fault."""
