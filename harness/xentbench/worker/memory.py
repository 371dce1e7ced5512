"""Bytes of one call by phase: the peak of the blocks that it allocates, as torch's profiler reports them.

Unlike resident size this is byte-identical on repeats, and it sees memory that the heap reuses. The profiler leaves a
second thread in the process for good, so a worker that has measured memory never times anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

from xentbench.spec import Phase, Problem
from xentbench.worker.calls import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xentbench.inputs import Inputs
    from xentbench.worker.calls import Loss


def peak_bytes(loss: Loss, problem: Problem, inputs: Inputs, phase: Phase) -> int:
    """Return the most bytes held at any moment of the phase beyond what was held before it.

    What the phase needs prepared (the forward of a backward) happens outside the window; gradients start as None.
    """
    logits, target = fresh(problem, inputs, phase)
    if phase is Phase.FORWARD_NO_GRAD:
        with torch.no_grad():
            return _peak(logits.device, lambda: loss(logits, target))
    if phase is Phase.FORWARD:
        return _peak(logits.device, lambda: loss(logits, target))
    if phase is Phase.FORWARD_BACKWARD:
        return _peak(logits.device, lambda: loss(logits, target).backward(inputs.upstream))  # type: ignore[no-untyped-call]
    result = loss(logits, target)
    return _peak(logits.device, lambda: result.backward(inputs.upstream))  # type: ignore[no-untyped-call]


def _peak(device: torch.device, call: Callable[[], object]) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = call()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    del kept
    recorded = profiler.profiler
    if recorded is None or recorded.kineto_results is None:
        return 0
    events = [event for event in _flat(recorded.kineto_results.experimental_event_tree()) if event.name == "[memory]"]
    alive: dict[int, int] = {}
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        block = event.extra_fields
        if block.alloc_size > 0:
            alive[block.ptr] = block.alloc_size
            held += block.alloc_size
        else:
            # Whether the profiler reports that a block of before the window is let go depends on whether it has ever
            # seen that address; such a block is nobody's credit here, so only our own are counted back.
            held -= alive.pop(block.ptr, 0)
        peak = max(peak, held)
    return peak


def _flat(events: Iterable[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _flat(event.children)
