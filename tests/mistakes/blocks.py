"""Classes and rows in blocks: tails dropped, padding counted, sums not rescaled (class 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from xentbench.mistakes.call import wide
from xentbench.mistakes.frame import Frame, class_losses, mask
from xentbench.mistakes.kernel import Kernel, Saved, gradient_of, scaled
from xentbench.mistakes.mistake import Mistake

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def _tail_dropped(block: int) -> Callable[[Tensor], Tensor]:
    """Sum over whole blocks only, from the second block on."""

    def losses(logits: Tensor) -> Tensor:
        classes, logits = logits.shape[-1], wide(logits)
        whole = classes if classes <= block else classes - classes % block
        return logits[..., :whole].logsumexp(-1, keepdim=True) - logits

    return losses


def _padding_counted(block: int) -> Callable[[Tensor], Tensor]:
    """Fill the last block with zeros, which count as logits, from the second block on."""

    def losses(logits: Tensor) -> Tensor:
        classes, logits = logits.shape[-1], wide(logits)
        lanes = 0 if classes <= block else -classes % block
        return functional.pad(logits, (0, lanes)).logsumexp(-1, keepdim=True) - logits

    return losses


def _tail_counted_twice(block: int) -> Callable[[Tensor], Tensor]:
    """Move the last block back so that it is whole, and count its overlap twice."""

    def losses(logits: Tensor) -> Tensor:
        logits = wide(logits)
        classes = logits.shape[-1]
        if classes <= block or not classes % block:
            return class_losses(logits)
        whole = classes - classes % block
        parts = torch.cat([logits[..., :whole], logits[..., -block:]], -1)
        return parts.logsumexp(-1, keepdim=True) - logits

    return losses


def _first_block_only(block: int) -> Callable[[Tensor], Tensor]:
    """Sum over the classes that one block holds: the largest block that can be launched."""

    def losses(logits: Tensor) -> Tensor:
        logits = wide(logits)
        return logits[..., :block].logsumexp(-1, keepdim=True) - logits

    return losses


def running(block: int, *, rescaled: bool = True, guarded: bool = True) -> Callable[[Tensor], Tensor]:
    """Keep a running maximum and a running sum of exponentials over blocks of classes."""

    def losses(logits: Tensor) -> Tensor:
        logits = wide(logits)
        largest = logits.new_full((*logits.shape[:-1], 1), -torch.inf)
        total = torch.zeros_like(largest)
        for part in torch.split(logits, block, -1):
            larger = torch.maximum(largest, part.detach().amax(-1, keepdim=True))
            anchor = torch.where(larger == -torch.inf, 0.0, larger) if guarded else larger
            scale = torch.where(largest == -torch.inf, 0.0, (largest - anchor).exp())
            kept = total * scale if rescaled else total
            total = kept + (part - anchor).exp().sum(-1, keepdim=True)
            largest = larger
        return largest + total.log() - logits

    return losses


def _gradient_tail_unwritten(block: int) -> Callable[[Tensor, Tensor, Saved], Tensor]:
    """Leave the gradient of the classes in a partial block as it was allocated."""

    def tail_unwritten(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
        written = scaled(gradient, share, saved)
        classes = written.shape[-1]
        if classes > block and classes % block:
            written[:, classes - classes % block :] = 0.0
        return written

    return tail_unwritten


def _gradient_normalised_by_block(block: int) -> Callable[[Saved], Tensor]:
    """Normalise the probabilities of each block by what the sum was when the block was visited."""

    def gradient(saved: Saved) -> Tensor:
        if saved.logits.shape[-1] <= block:
            return gradient_of(saved)
        parts = torch.split(saved.logits, block, -1)
        known = [saved.logits[:, : (i + 1) * block].logsumexp(-1, keepdim=True) for i in range(len(parts))]
        p = torch.cat([(part - sum_).exp() for part, sum_ in zip(parts, known, strict=True)], -1)
        return saved.target.sum(-1, keepdim=True) * p - saved.target

    return gradient


def _last_rows_skipped(block: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Launch N // block programs, each for so many rows, from the second block on."""

    def skipped(rows: Tensor, ignored: Tensor) -> Tensor:
        whole = rows.numel() if rows.numel() <= block else rows.numel() - rows.numel() % block
        late = torch.arange(rows.numel(), device=rows.device).reshape(rows.shape) >= whole
        return mask(rows, ignored | late)

    return skipped


def _gradient_of_last_rows_unwritten(block: int) -> Callable[[Tensor, Tensor, Saved], Tensor]:
    def unwritten(gradient: Tensor, share: Tensor, saved: Saved) -> Tensor:
        written = scaled(gradient, share, saved)
        if len(written) > block:
            written[len(written) - len(written) % block :] = 0.0
        return written

    return unwritten


MISTAKES = (
    *(
        Mistake(
            f"tail-of-{block}-dropped",
            16,
            Frame(class_losses=_tail_dropped(block)),
            f"Classes after the last whole block of {block} are not in the sum.",
        )
        for block in (64, 512, 4096, 32768, 65536)
    ),
    *(
        Mistake(
            f"padding-to-{block}-counted",
            16,
            Frame(class_losses=_padding_counted(block)),
            f"The last of several blocks of {block} classes is filled with zeros that count.",
        )
        for block in (128, 1024, 8192)
    ),
    Mistake(
        "overlap-of-last-block-twice",
        16,
        Frame(class_losses=_tail_counted_twice(64)),
        "The last block of 64 classes is moved back and its overlap counted twice.",
    ),
    Mistake(
        "first-32768-classes-only",
        16,
        Frame(class_losses=_first_block_only(32768)),
        "One block of 32768 classes is the largest, and the only one.",
    ),
    Mistake(
        "first-65536-classes-only",
        16,
        Frame(class_losses=_first_block_only(65536)),
        "One block of 65536 classes is the largest, and the only one.",
    ),
    Mistake(
        "running-sum-not-rescaled",
        16,
        Frame(class_losses=running(64, rescaled=False)),
        "The running sum keeps its scale when a block of 64 raises the maximum.",
    ),
    Mistake(
        "leading-block-masked",
        16,
        Frame(class_losses=running(16, guarded=False)),
        "A first block of 16 classes all at -inf makes NaN of the row.",
    ),
    Mistake(
        "gradient-tail-of-64-unwritten",
        16,
        Kernel(scaled=_gradient_tail_unwritten(64)),
        "The gradient of classes after the last whole block of 64 is 0.",
    ),
    Mistake(
        "gradient-tail-of-4096-unwritten",
        16,
        Kernel(scaled=_gradient_tail_unwritten(4096)),
        "The gradient of classes after the last whole block of 4096 is 0.",
    ),
    Mistake(
        "blocks-normalised-when-visited",
        16,
        Kernel(gradient=_gradient_normalised_by_block(512)),
        "The gradient of each block of 512 classes is normalised by the sum up to there.",
    ),
    Mistake(
        "last-32-rows-skipped",
        16,
        Frame(mask=_last_rows_skipped(32)),
        "Rows after the last whole block of 32 cost nothing.",
    ),
    Mistake(
        "last-1024-rows-skipped",
        16,
        Frame(mask=_last_rows_skipped(1024)),
        "Rows after the last whole block of 1024 cost nothing.",
    ),
    Mistake(
        "gradient-of-last-128-rows-unwritten",
        16,
        Kernel(scaled=_gradient_of_last_rows_unwritten(128)),
        "Rows after the last whole block of 128 have gradient 0.",
    ),
)
