"""Raises what is hard to catch, to print or to send."""

from __future__ import annotations

from faults.fault import Faults
from xentbench.spec import Status

FAULTS = Faults("raises")


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("never to be printed")


class InterruptingError(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class NotSupportedError(NotImplementedError):
    def __str__(self):
        raise RuntimeError("never to be printed")


class Base(BaseException):
    pass


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("never to be sent")


def _raising(name: str, error: BaseException | type[BaseException], told: str, status: Status = Status.RAISED) -> None:
    @FAULTS(name, status, told)
    def loss(logits, target, **options):
        raise error

    globals()[name] = loss


_raising("raises-plainly", ValueError("no luck today"), "ValueError: no luck today")
_raising("raises-without-a-word", ValueError(), "ValueError")
_raising("raises-interrupt", KeyboardInterrupt, "KeyboardInterrupt")
_raising("raises-generator-exit", GeneratorExit, "GeneratorExit")
_raising("raises-stop", StopIteration(3), "StopIteration: 3")
_raising("raises-base", Base("below all others"), "Base: below all others")
_raising("raises-unprintable", UnprintableError(), "cannot be printed")
_raising("raises-interrupting", InterruptingError(), "cannot be printed")
_raising("raises-unpicklable", UnpicklableError("stay here"), "stay here")
_raising("raises-megabytes", ValueError(5_000_000 * "no "), "no no no")
_raising("raises-surrogates", ValueError("half \ud800 of it"), "half")
_raising("raises-escapes", ValueError("\x1b[31m[bold]red[/bold]\x1b[0m\n\x00\u202e|`=1"), "ValueError: [bold]red")
_raising("raises-a-group", BaseExceptionGroup("several", [ValueError("a"), KeyboardInterrupt()]), "several")
_raising("refuses", NotImplementedError("only on Sundays"), "only on Sundays", Status.UNSUPPORTED)
_raising("refuses-unprintably", NotSupportedError(), "cannot be printed", Status.UNSUPPORTED)


@FAULTS("recurses", Status.RAISED, "RecursionError")
def recurses(logits, target, **options):
    return recurses.function(logits, target, **options)
