"""The memory that a duel times on: one logit of every row and an eighth of the labels change between calls.

Unchanged inputs could be answered from a memo, and every row must change, or an incremental one would be right. In half
of the rows it is the label's logit that moves, all of them in one direction: else the mean loss of many rows would
hardly change, and in a coarse format not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from xentbench.worker.calls import fresh

if TYPE_CHECKING:
    import numpy.typing as npt

    from xentbench.drawing import Stream
    from xentbench.inputs import Inputs
    from xentbench.spec import Phase, Problem

REFRESHED_TARGETS: Final = 8
"""One target in so many is drawn anew for every visit."""
LONE_ROWS: Final = 8
"""One refresh in so many changes one row alone, lest the rest of the input stand for it."""


class Cells:
    """A tensor's memory, read and written at an index past autograd and past the version counter.

    On the CPU through a NumPy view, bfloat16 as its bits: ten times cheaper than an indexed write of torch's, which
    matters beside calls of five microseconds. Elsewhere through `.data`.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        whole = tensor.data if tensor.dim() else tensor.data.view(1)
        self._device, self._is_bfloat16 = whole.device, whole.dtype is torch.bfloat16
        self._values: Any = whole
        if whole.device.type == "cpu":
            self._values = (whole.view(torch.int16) if self._is_bfloat16 else whole).numpy()

    def read(self, index: tuple[Any, ...]) -> Any:  # noqa: ANN401 - an array or a tensor, as stored
        """Return the stored values at the index, a copy."""
        return self._values[self._here(index)]

    def write(self, index: tuple[Any, ...], stored: Any) -> None:  # noqa: ANN401 - as `read` gives them
        """Store values at the index."""
        self._values[self._here(index)] = stored

    def moved(self, stored: Any, steps: npt.NDArray[np.float64]) -> Any:  # noqa: ANN401 - as `read` gives them
        """Return stored values moved by so many steps of 1, or of a sixteenth of their size; not finite ones stay."""
        old = self.decoded(stored)
        finite = np.isfinite(old)
        size = np.where(finite, 1.0 + np.abs(old) / 16.0, 0.0)
        new = np.where(finite, old, 0.0) + steps.reshape(old.shape) * size
        new = np.where(finite, new, old)
        if isinstance(stored, torch.Tensor):
            return torch.from_numpy(new).to(stored)
        if self._is_bfloat16:  # the upper half of a float32's bits, cut off rather than rounded: any value will do
            return (new.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
        return new.astype(stored.dtype)

    def decoded(self, stored: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401 - as `read` gives them
        """Return stored values as numbers."""
        if isinstance(stored, torch.Tensor):
            return stored.double().cpu().numpy()
        if self._is_bfloat16:
            stored = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        numbers: npt.NDArray[np.float64] = stored.astype(np.float64)
        return numbers

    def _here(self, index: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._device.type == "cpu":
            return index
        return tuple(torch.as_tensor(part, device=self._device) for part in index)


class Storage:
    """One pair of logits and target that is refreshed in place between visits.

    A refresh departs from the original values every time, so that real logits stay real however often they are timed.
    """

    def __init__(self, problem: Problem, inputs: Inputs, phase: Phase, *, restore: bool) -> None:
        self.problem = problem
        self.logits, self.target = fresh(problem, inputs, phase)
        self._logits, self._target = Cells(self.logits), Cells(self.target)
        self._row_shape = problem.row_shape or (1,)
        self._rows = tuple(np.unravel_index(np.arange(problem.rows), self._row_shape))
        self._labels = self._label_numbers()
        self._undo: list[tuple[Cells, tuple[Any, ...], Any]] = []
        # An implementation that overwrites its logits by design gets them back before every call, as every arm does.
        self._master = self.logits.detach().clone() if restore else None

    @property
    def nbytes(self) -> int:
        """Size of logits and target, in bytes."""
        return self.logits.nbytes + self.target.nbytes

    def refresh(self, numbers: Numbers) -> None:
        """Change one logit in every row, and one label in eight, without a trace in the tensors' version counters."""
        for cells, index, original in reversed(self._undo):
            cells.write(index, original)
        self._undo = []
        self.restore()
        if not self.problem.rows:
            return
        drawn = numbers.next()
        classes, steps = drawn.moves(self._labels, self.problem.ignore_index)
        first, *rest = self._rows
        # Logits are (N, C, d1, …), or (C,) for the one row of an unbatched problem.
        index = (classes,) if self.problem.batch_size is None else (first, classes, *rest)
        old = self._logits.read(index)
        self._change(self._logits, index, old, self._logits.moved(old, steps))
        if self.problem.has_index_target:
            self._relabel(int(drawn.classes[0]), drawn.donors)

    def restore(self) -> None:
        """Bring back logits that a declared implementation overwrites."""
        if self._master is not None:
            with torch.no_grad():
                self.logits.copy_(self._master)

    def _label_numbers(self) -> npt.NDArray[np.int64] | None:
        """Return the original labels of all rows, None of probability targets."""
        if not self.problem.has_index_target:
            return None
        read = self._target.read(self._rows if self.problem.row_shape else (np.zeros(1, dtype=np.int64),))
        return np.asarray(read.cpu() if isinstance(read, torch.Tensor) else read, dtype=np.int64)

    def _relabel(self, first: int, donors: npt.NDArray[np.int64]) -> None:
        """Give every eighth row the label of another, so that their distribution stays; ignored rows stay ignored."""
        some = slice(first % REFRESHED_TARGETS, None, REFRESHED_TARGETS)
        index = tuple(part[some] for part in self._rows)
        old = self._target.read(index)
        new = self._target.read(tuple(part[donors[some]] for part in self._rows))
        kept = (old == self.problem.ignore_index) | (new == self.problem.ignore_index)
        where: Any = torch.where if isinstance(old, torch.Tensor) else np.where
        self._change(self._target, index, old, where(kept, old, new))

    def _change(self, cells: Cells, index: tuple[Any, ...], old: Any, new: Any) -> None:  # noqa: ANN401 - as stored
        self._undo.append((cells, index, old))
        cells.write(index, new)


class Drawn(NamedTuple):
    """Random numbers of one refresh, each `(rows,)` but the last.

    Attributes:
        steps: by which a logit is moved.
        classes: of that logit, where it is not the label's.
        donors: row that a new label comes from.
        at_label: whether it is the label's.
        common: step that all logits of labels make besides their own.
        alone: the one row that changes, and no label, in every eighth refresh; else -1.
    """

    steps: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    donors: npt.NDArray[np.int64]
    at_label: npt.NDArray[np.bool_]
    common: float
    alone: int

    def moves(
        self, labels: npt.NDArray[np.int64] | None, ignored: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return which class of every row moves, and by how many steps, where the original labels are these."""
        steps, classes = self.steps, self.classes
        if labels is not None:
            where = self.at_label & (labels != ignored)
            classes, steps = np.where(where, labels, classes), steps + self.common * where
        if self.alone >= 0:
            steps = np.where(np.arange(len(steps)) == self.alone, steps, 0.0)
        return classes, steps


class Numbers:
    """Random numbers of the refreshes of one burst, drawn many visits at a time: a draw costs more than its use."""

    def __init__(self, problem: Problem, stream: Stream) -> None:
        self._rows, self._classes, self._stream = problem.rows, problem.num_classes, stream
        self._visits = max(1, 4096 // max(1, problem.rows))
        self._drawn: list[Drawn] = []

    def next(self) -> Drawn:
        """Return the numbers of the next refresh."""
        if not self._drawn:
            shape = (self._visits, self._rows)
            steps, classes = self._stream.normal(*shape), self._stream.integers(self._classes, *shape)
            at_label, common = self._stream.uniform(*shape) < 0.5, self._stream.normal(self._visits)  # noqa: PLR2004 - half
            donors = self._stream.integers(self._rows, *shape)
            alone = self._stream.integers(LONE_ROWS * self._rows, self._visits)
            donors = np.where((alone < self._rows)[:, None], np.arange(self._rows), donors)
            alone = np.where(alone < self._rows, alone, -1)
            self._drawn = list(map(Drawn, steps, classes, donors, at_label, common.tolist(), alone.tolist()))
        return self._drawn.pop()
