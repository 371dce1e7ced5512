"""Bytes of one call by phase: the peak of the blocks that it allocates, and what a forward keeps for its backward.

On CPU both come from the allocator events of torch's profiler: unlike resident size they are byte-identical on repeats,
and they see memory that the heap reuses. The profiler leaves a second thread in the process for good, so a worker that
has measured memory never times anything.
"""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.profiler import ProfilerActivity, profile

from xentbench.spec import Phase, Problem
from xentbench.worker.calls import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xentbench.inputs import Inputs
    from xentbench.worker.calls import Loss

MOST_READINGS: Final = 4
"""The first may pay for what is set up lazily, the next two have to agree, and one more is patience."""
MAPPED_BYTES: Final = 128 * 2**10
"""Blocks from here on are mapped one by one: glibc's default, which it raises to 32 MiB as such blocks are freed."""
REFERENCE: Final = frozenset({"aten::cross_entropy_loss", "aten::nll_loss_nd", "aten::nll_loss", "aten::nll_loss2d"})
"""Operators that do the work of the loss: who calls one of them delegates."""
WORKSPACE_BYTES: Final = 1024
"""Tensors of fewer bytes that an implementation keeps between calls are constants, no workspace."""
_CUDA_BLOCK_BYTES: Final = 512
"""The caching allocator of CUDA counts whole blocks of this size."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a phase takes of torch's allocator.

    Attributes:
        peak_bytes: most bytes held at any moment of the phase beyond what was held before it.
        saved_bytes: what a forward with grad still holds at its end, less the loss's own bytes; None without grad.
            Whatever holds it counts: saved tensors, attributes of `ctx`, a gradient made in advance, workspaces. The
            logits do not, since the caller holds them.
        delegates: whether an operator of `REFERENCE` ran (seen on CPU).
    """

    peak_bytes: int
    saved_bytes: int | None
    delegates: bool = False


def map_large_blocks() -> None:
    """Hold the heap at mapping each large block by itself, so that resident size follows the blocks (glibc only).

    Else the holes that earlier blocks left in the heap would count as the call's: up to four times its own blocks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_mmap_threshold = -3
        mallopt(m_mmap_threshold, MAPPED_BYTES)


def settled(read: Callable[[], Reading]) -> tuple[Reading, bool]:
    """Read until two successive readings agree, at most `MOST_READINGS` times; return it, and whether they agreed.

    Where none agree, each number is the largest that was seen.
    """
    seen = [read()]
    while len(seen) < MOST_READINGS:
        seen.append(read())
        if seen[-1] == seen[-2]:
            return seen[-1], True
    saved = max((one.saved_bytes for one in seen if one.saved_bytes is not None), default=None)
    delegates = any(one.delegates for one in seen)
    return Reading(max(one.peak_bytes for one in seen), saved, delegates), False


def reading(loss: Loss, problem: Problem, inputs: Inputs, phase: Phase) -> Reading:
    """Call the phase once and return what it took; what it needs prepared lies outside the window."""
    device = inputs.logits.device
    peak, saved, delegates = _window(device, prepared(loss, problem, inputs, phase))
    if phase is Phase.FORWARD_NO_GRAD:
        return Reading(peak, None, delegates)
    if phase is not Phase.FORWARD:
        _, saved, forward = _window(device, prepared(loss, problem, inputs, Phase.FORWARD))
        delegates |= forward
    return Reading(peak, saved, delegates)


def kept_bytes(known: Iterable[torch.Tensor]) -> int:
    """Return the bytes of all tensors that Python holds besides the known ones: workspaces kept between calls.

    What was alive when the implementation had been loaded is frozen, and not among what the collector lists.
    """
    gc.collect()
    ours = {tensor.untyped_storage().data_ptr() for tensor in known}
    found = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and thing.layout is torch.strided:
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(size for place, size in found.items() if place not in ours and size >= WORKSPACE_BYTES)


def prepared(loss: Loss, problem: Problem, inputs: Inputs, phase: Phase) -> Callable[[], torch.Tensor | None]:
    """Return one call of the phase, with its inputs and the forward of a backward made already; gradients are None."""
    logits, target = fresh(problem, inputs, phase)
    if phase is Phase.FORWARD_NO_GRAD:
        return torch.no_grad()(lambda: loss(logits, target))
    if phase is Phase.FORWARD:
        return lambda: loss(logits, target)
    if phase is Phase.FORWARD_BACKWARD:
        return lambda: loss(logits, target).backward(inputs.upstream)  # type: ignore[no-untyped-call]
    result = loss(logits, target)
    return lambda: result.backward(inputs.upstream)  # type: ignore[no-untyped-call]


def _window(device: torch.device, call: Callable[[], torch.Tensor | None]) -> tuple[int, int, bool]:
    """Return the peak of what the call allocates, what it holds at its end besides its result, whether it delegates."""
    if device.type != "cuda":
        return _on_cpu(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    kept = call()
    torch.cuda.synchronize(device)
    own = -(-_own_bytes(kept) // _CUDA_BLOCK_BYTES) * _CUDA_BLOCK_BYTES
    held = torch.cuda.memory_allocated(device) - before - own
    return torch.cuda.max_memory_allocated(device) - before, max(0, held), False


def _on_cpu(call: Callable[[], torch.Tensor | None]) -> tuple[int, int, bool]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = call()
    recorded = profiler.profiler
    if recorded is None or recorded.kineto_results is None:
        return 0, 0, False
    every = list(_flat(recorded.kineto_results.experimental_event_tree()))
    events = [event for event in every if event.name == "[memory]"]
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
    is_ours = kept is not None and kept.untyped_storage().data_ptr() in alive
    delegates = any(event.name in REFERENCE for event in every)
    return peak, held - (_own_bytes(kept) if is_ours else 0), delegates


def _own_bytes(result: torch.Tensor | None) -> int:
    return 0 if result is None else result.numel() * result.element_size()


def _flat(events: Iterable[Any]) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _flat(event.children)
