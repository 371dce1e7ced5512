"""How many bytes the operations of a call read and write: `with Traffic() as seen: …`, then `seen.moved_bytes`.

Each operation of torch, and each operator of a kernel, counts its inputs as read and its outputs as written, whole, as
if nothing were in a cache: what is counted is what a loss asks for, not what comes from memory. Views and arrays that
are only allocated move nothing; what is expanded counts once; where an operation reads or writes some entries of an
array alone, by index, those count. What is within an operation is not seen: a kernel that reads its input twice counts
once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch._ops import OpOverload

OVERWRITES: Final = frozenset({"copy_", "fill_", "zero_"})
"""In-place operations that do not read what they write over; any `out=` is one, too."""
ALLOCATES: Final = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
INDEXED: Final = {
    "gather": ("self", "index"),
    "scatter_": ("self", "index"),
    "scatter_add_": ("self", "index"),
    "index_select": ("self", "index"),
    "nll_loss_forward": ("self", "target"),
    "nll_loss_backward": ("self", "target"),
}
"""Operations that touch, of one argument, as many entries as another one holds indices."""


class Traffic(TorchDispatchMode):
    """Counts what is called within it.

    Attributes:
        moved_bytes: read and written so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moved_bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever the operation returns
        del types
        result = func(*args, **(kwargs or {}))
        self.moved_bytes += moved_bytes(func, args, kwargs or {}, result)
        return result


def moved_bytes(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> int:
    """Return the bytes that one call of an operation reads and writes."""
    name, schema = func._schema.name.partition("::")[2], func._schema  # noqa: SLF001 - torch offers no other way
    if func.is_view or name in ALLOCATES:
        return 0
    given = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
    total = 0
    for argument in schema.arguments:
        touched = sum(map(touched_bytes, tensors(given.get(argument.name))))
        if name in INDEXED and argument.name == INDEXED[name][0]:
            touched = given[INDEXED[name][1]].numel() * given[argument.name].element_size()
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        is_read = not is_written or not (argument.is_out or name in OVERWRITES or name == "scatter_")
        total += touched * (is_read + is_written)
    results = result if isinstance(result, tuple) else (result,)
    fresh = [value for value, told in zip(results, schema.returns, strict=False) if told.alias_info is None]
    return total + sum(map(touched_bytes, tensors(fresh)))


def tensors(value: object) -> Iterator[torch.Tensor]:
    """Yield a tensor, or those of a list or tuple."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def touched_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's different elements: what is expanded has stride 0 and is there once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not size)
    return math.prod(sizes) * tensor.element_size()
