"""Simpler questions: from one case, all those with fewer rows, options or classes, or with plainer numbers.

Rows and classes go in halves, quarters, ..., as in delta debugging (Zeller and Hildebrandt 2002, "Simplifying and
isolating failure-inducing input").
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from xentbench import inputs as tensors
from xentbench.spec import DEFAULT_IGNORE_INDEX, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xentbench.inputs import Inputs

FEW: Final = 16
"""Up to so many numbers are simplified one by one, and shown in full."""
PLAIN: Final = 64
"""Up to so many numbers count by the length of their text; of more, those that are not 0 count, and those not whole."""
_FREE: Final[dict[str, Any]] = {"logits": "normal", "scale": 1.0, "offset": 0.0, "labels": "uniform", "seed": 0}
"""Axes that only say how numbers are drawn; given numbers need none of them."""
_LAYOUTS: Final = ("logits_layout", "target_layout", "weight_layout")
_TARGETS: Final = ("index", "one-hot", "soft", "unnormalised")


@dataclass(frozen=True, slots=True)
class Case:
    """A question whose problem says no more of the tensors than is so.

    Attributes:
        problem: sizes and options.
        inputs: tensors, in the problem's dtype and layouts.
    """

    problem: Problem
    inputs: Inputs

    @classmethod
    def of(cls, problem: Problem, inputs: Inputs) -> Case:
        """Make a case of a problem and its tensors, however they were drawn."""
        labels = inputs.target
        ignored = float((labels == problem.ignore_index).double().mean()) if problem.has_index_target else 0.0
        weight = "none" if inputs.weight is None else "random" if problem.weight == "recorded" else problem.weight
        plain = dataclasses.replace(
            problem,
            **_FREE,
            weight=weight,
            weight_layout="contiguous" if weight == "none" else problem.weight_layout,
            upstream="random" if problem.upstream == "one" else problem.upstream,
            ignored=0.0 if math.isnan(ignored) else ignored,
        )
        return cls(plain, tensors.place(plain, inputs))

    def changed(self, axes: dict[str, Any], **parts: Any) -> Case:  # noqa: ANN401 - tensors, weight may be None
        """Return the case with other axes and tensors."""
        problem = dataclasses.replace(self.problem, **axes)
        return Case.of(problem, dataclasses.replace(self.inputs, **parts))

    @property
    def numbers(self) -> list[torch.Tensor]:
        """Every tensor there is."""
        return [part for name in self.inputs.__slots__ if (part := getattr(self.inputs, name)) is not None]

    @property
    def digest(self) -> bytes:
        """Hash of the problem and all numbers."""
        content = hashlib.sha256(self.problem.key.encode())
        for part in self.numbers:
            content.update(part.detach().cpu().double().contiguous().numpy().tobytes())
        return content.digest()


def complexity(case: Case) -> tuple[int, int, int]:
    """Return logits, options that are not plain, and length of the numbers' text: what shrinking makes smaller."""
    problem, inputs = case.problem, case.inputs
    odd = [
        problem.batch_size is None,
        *(size > 1 for size in problem.dims),
        bool(problem.dims),
        problem.dtype != "float32",
        problem.device != "cpu",
        problem.target_grad,
        problem.weight != "none",
        problem.ignore_index != DEFAULT_IGNORE_INDEX,
        problem.ignored > 0.0,
        problem.label_smoothing > 0.0,
        problem.reduction != "mean",
        problem.upstream == "expanded",
        bool((inputs.upstream != 1.0).any()),
        *(getattr(problem, layout) != "contiguous" for layout in _LAYOUTS),
    ]
    return problem.elements, sum(odd) + _TARGETS.index(problem.target), sum(map(_length, case.numbers))


def shortest(value: float, dtype: torch.dtype) -> str:
    """Return the shortest decimal number that reads back as this value in this dtype."""
    if not math.isfinite(value):
        return str(value)
    for digits in range(1, 18):
        read = float(f"{value:.{digits}g}")
        if torch.tensor(read, dtype=dtype).item() == value:
            break
    return repr(read).removesuffix(".0")


def _length(tensor: torch.Tensor) -> int:
    flat = tensor.detach().cpu().flatten()
    if len(flat) <= PLAIN:
        return sum(len(shortest(value, tensor.dtype)) + (value != 0) for value in flat.tolist())
    return int((flat != 0).sum() + (flat != flat.round()).sum())


def _rows(case: Case) -> Iterator[Case]:
    """Fewer rows: parts of the batch, then fewer places along the dimensions after the classes."""
    problem, given = case.problem, case.inputs
    for kept in _parts(problem.batch_size or 0):
        axes = {"batch_size": len(kept)}
        each = given.upstream[kept] if problem.reduction == "none" else given.upstream
        yield case.changed(axes, logits=given.logits[kept], target=given.target[kept], upstream=each)
    for axis, size in enumerate(problem.dims):
        for kept in _parts(size):
            index = torch.tensor(kept)
            dims = (*problem.dims[:axis], len(kept), *problem.dims[axis + 1 :])
            place = 1 + axis if problem.has_index_target else 2 + axis
            yield case.changed(
                {"dims": dims},
                logits=_take(given.logits, 2 + axis, index),
                target=_take(given.target, place, index),
                upstream=_take(given.upstream, 1 + axis, index) if problem.reduction == "none" else given.upstream,
            )


def _options(case: Case) -> Iterator[Case]:
    """One option at its default."""
    problem, given = case.problem, case.inputs
    yield from _forms(case)
    for name in _LAYOUTS:
        yield case.changed({name: "contiguous"})
    yield case.changed({"upstream": "random"})
    yield case.changed({"upstream": "random"}, upstream=torch.ones_like(given.upstream))
    yield case.changed({"reduction": "mean", "upstream": "random"}, upstream=given.upstream.flatten()[:1].sum())
    yield case.changed({"label_smoothing": 0.0})
    yield case.changed({"weight": "none"}, weight=None)
    yield case.changed({"device": "cpu"})
    yield case.changed({"dtype": "float32"})
    if problem.has_index_target:
        ignored = given.target == problem.ignore_index
        yield case.changed({}, target=given.target.where(~ignored, 0))
        renamed = given.target.where(~ignored, DEFAULT_IGNORE_INDEX)
        yield case.changed({"ignore_index": DEFAULT_IGNORE_INDEX}, target=renamed)
    else:
        yield case.changed({"ignore_index": DEFAULT_IGNORE_INDEX})
        yield case.changed({"target_grad": False})
        labels = given.target.argmax(_class_axis(problem))
        yield case.changed({"target": "index", "target_grad": False}, target=labels)
        hard = torch.nn.functional.one_hot(labels, problem.num_classes).movedim(-1, _class_axis(problem))
        yield case.changed({"target": "one-hot"}, target=hard)


def _forms(case: Case) -> Iterator[Case]:
    """The plain form `(N, C)` of unbatched logits, and of those with further dimensions."""
    problem, given = case.problem, case.inputs
    each = problem.reduction == "none"
    if problem.batch_size is None:
        upstream = given.upstream[None] if each else given.upstream
        yield case.changed({"batch_size": 1}, logits=given.logits[None], target=given.target[None], upstream=upstream)
    if problem.dims:
        target = given.target if problem.has_index_target else _flat(given.target, problem)
        yield case.changed(
            {"batch_size": problem.rows, "dims": ()},
            logits=_flat(given.logits, problem),
            target=target.reshape(-1) if problem.has_index_target else target,
            upstream=given.upstream.reshape(-1) if each else given.upstream,
        )


def _classes(case: Case) -> Iterator[Case]:
    """Fewer classes; those that a label names stay, and what is left of a probability target adds up again."""
    problem, given = case.problem, case.inputs
    axis = _class_axis(problem)
    labels = (
        given.target if problem.has_index_target else given.target.argmax(axis) if problem.rows else given.target[:0]
    )
    named = {label for label in labels.flatten().tolist() if 0 <= label < problem.num_classes}
    if problem.has_index_target:
        named |= {problem.ignore_index} & set(range(problem.num_classes))
        if not given.target.eq(0).all():
            yield case.changed({}, target=given.target.where(given.target == problem.ignore_index, 0))
    spare = [place for place in range(problem.num_classes) if place not in named]
    for part in _parts(len(spare), fewest=0 if named else 1):
        kept = sorted(named | {spare[place] for place in part})
        index, place_of = torch.tensor(kept), {label: place for place, label in enumerate(kept)}
        if problem.has_index_target:
            target = given.target.clone().flatten()
            target = torch.tensor([place_of.get(int(label), int(label)) for label in target], dtype=torch.int64)
            target = target.reshape(problem.row_shape)
        else:
            target = _take(given.target, axis, index)
            target = target if problem.target == "unnormalised" else target / target.sum(axis, keepdim=True)
        yield case.changed(
            {"num_classes": len(kept), "ignore_index": place_of.get(problem.ignore_index, problem.ignore_index)},
            logits=_take(given.logits, axis, index),
            target=target,
            weight=None if given.weight is None else _take(given.weight, 0, index),
        )


def _values(case: Case) -> Iterator[Case]:
    """Plainer numbers: 0, whole, few digits; all of them at once, then in parts."""
    given, problem = case.inputs, case.problem
    for change in (torch.zeros_like, torch.round, _one_digit):
        yield case.changed({}, logits=change(given.logits))
    if given.weight is not None:
        for change in (torch.ones_like, _twos, torch.round, _one_digit):
            yield case.changed({}, weight=change(given.weight))
    for change in (_twos, torch.round, _one_digit):
        yield case.changed({}, upstream=change(given.upstream))
    if problem.target == "soft":
        yield case.changed({}, target=torch.full_like(given.target, 1.0 / problem.num_classes))
    if problem.target == "unnormalised":
        for change in (torch.ones_like, torch.round, _one_digit):
            yield case.changed({}, target=change(given.target))
    for part in _parts(problem.elements):
        for change in (torch.zeros_like, torch.round, _one_digit):
            yield case.changed({}, logits=_outside(given.logits, part, change))


STEPS: Final[tuple[Callable[[Case], Iterator[Case]], ...]] = (_rows, _options, _classes, _values)


def _parts(size: int, fewest: int = 1) -> Iterator[list[int]]:
    """Yield what to keep of `size` places: one, each half, each half but a quarter, ... all but one (of few)."""
    if size <= fewest:
        return
    yield list(range(fewest))
    chunk = (size + 1) // 2
    while chunk >= 1:
        starts: Sequence[int] = range(0, size, chunk)
        if chunk * 2 >= size:
            yield from (list(range(start, min(start + chunk, size))) for start in starts)
        if len(starts) > FEW:
            return
        yield from ([p for p in range(size) if not start <= p < start + chunk] for start in reversed(starts))
        chunk //= 2


def _outside(tensor: torch.Tensor, kept: list[int], change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Change all numbers but those at the flat places that are kept."""
    flat = tensor.flatten()
    result = change(flat)
    result[kept] = flat[kept]
    return result.reshape(tensor.shape)


def _twos(tensor: torch.Tensor) -> torch.Tensor:
    """Return the plainest number that cannot be left out of a product unseen."""
    return torch.full_like(tensor, 2.0)


def _one_digit(tensor: torch.Tensor) -> torch.Tensor:
    """Round to one significant digit; inf and NaN stay."""
    wide = tensor.double()
    scale = 10.0 ** torch.floor(torch.log10(wide.abs()))
    rounded = torch.round(wide / scale) * scale
    return torch.where(rounded.isfinite() & wide.isfinite(), rounded, wide).to(tensor.dtype)


def _take(tensor: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
    return tensor.index_select(axis, index.to(tensor.device))


def _flat(tensor: torch.Tensor, problem: Problem) -> torch.Tensor:
    return tensor.movedim(1, -1).reshape(problem.rows, problem.num_classes)


def _class_axis(problem: Problem) -> int:
    return 0 if problem.batch_size is None else 1
