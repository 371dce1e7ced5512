"""The panel: a fixed set of small problems that together reveal every class of mistake known to us.

`quick` is a couple of dozen problems, for the edit-run loop; `full` adds every pair of option values and the rarer
families; both begin with the smallest. The numbers come from the run's seed, so that verdicts hold for any. Where
`F.cross_entropy` itself is wrong in half precision (float16 sums that overflow: label smoothing over more than some
30 000 logits, means of 65 536 rows and more) there is no problem here.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any, Final

from xentbench.spec import DTYPE_BYTES, Problem, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PANEL: Final = 3
"""Number of this set of problems; it changes with every change of them, so that verdicts say what they rest on."""

Axes = dict[str, Any]

_INDEX_AXES: Final[Mapping[str, Sequence[Axes]]] = {
    "shape": (
        {"batch_size": 33, "num_classes": 10},
        {"batch_size": 3, "num_classes": 5, "dims": (7,)},
        {"batch_size": 2, "num_classes": 3, "dims": (4, 3)},
        {"batch_size": 32, "num_classes": 65},
        {"batch_size": 129, "num_classes": 2},
    ),
    "ignore": (
        {},
        {"ignored": 0.3, "ignore_index": -1},
        {"ignored": 0.2, "ignore_index": 0},
        {"ignored": 0.2, "ignore_index": 1},
        {"ignored": 0.3, "ignore_index": 255},
    ),
    "weight": ({}, {"weight": "random"}, {"weight": "unequal"}, {"weight": "some-zero"}),
    "dtype": tuple({"dtype": dtype} for dtype in DTYPE_BYTES),
    "reduction": ({"reduction": "none"}, {"reduction": "mean"}, {"reduction": "sum"}),
    "smoothing": ({}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}),
    "layout": (
        {},
        {"logits_layout": "transposed"},
        {"logits_layout": "column-slice"},
        {"logits_layout": "channels-last"},
    ),
    "upstream": ({}, {"upstream": "expanded"}, {"upstream": "strided"}),
}
_PROBABILITY_AXES: Final[Mapping[str, Sequence[Axes]]] = {
    "target": tuple({"target": target} for target in ("one-hot", "soft", "unnormalised")),
    "shape": (
        {"batch_size": 9, "num_classes": 10},
        {"batch_size": None, "num_classes": 7},
        {"batch_size": 3, "num_classes": 5, "dims": (7,)},
        {"batch_size": 65, "num_classes": 2},
    ),
    "dtype": tuple({"dtype": dtype} for dtype in DTYPE_BYTES),
    "reduction": ({"reduction": "none"}, {"reduction": "mean"}, {"reduction": "sum"}),
    "weight": ({}, {"weight": "random"}, {"weight": "some-zero"}),
    "smoothing": ({}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}),
    "layout": ({}, {"target_layout": "transposed"}, {"logits_layout": "row-slice"}),
    "target_grad": ({"target_grad": True}, {}),
}


_QUICK: Final = (
    # Degenerate sizes and divisors.
    "N=none,C=5",
    "N=0,C=4",
    "N=1,C=1,reduction=none",
    "N=4,C=10,ignored=1.0",
    "N=8,C=10,weight=absent-only,dtype=float64",
    # Two classes: all that some implementations support.
    "N=64,C=2,dtype=float64",
    "N=33,C=2,scale=10.0,labels=unlikely,reduction=none",
    "N=65,C=2,ignored=0.3",
    "N=64,C=2,dtype=float16,reduction=sum",
    # Options in float64, where bounds are tightest.
    "N=33,C=10,dtype=float64,reduction=none",
    "N=16,C=100,dtype=float64,logits=peaked,reduction=sum,label-smoothing=0.1",
    "N=33,C=10,dtype=float64,ignored=0.3,weight=random,label-smoothing=0.1",
    "N=16,C=10,dtype=float64,target=soft,target-grad=yes,reduction=none",
    "N=17,C=3,weight=unequal,ignore-index=1,ignored=0.2,reduction=sum",
    "N=16,C=10,target=unnormalised,weight=random,label-smoothing=0.1",
    "N=2,C=5,dims=3x4,weight=random,logits-layout=channels-last,reduction=none",
    # Where exp overflows or underflows unless the maximum is subtracted, one for each dtype; also large true losses.
    "N=33,C=10,dtype=float64,logits=wide,scale=10.0,reduction=none",
    "N=33,C=10,logits=wide,labels=unlikely,reduction=none",
    "N=16,C=10,dtype=bfloat16,logits=wide,reduction=none",
    "N=16,C=10,dtype=float16,scale=10.0,reduction=none",
    "N=16,C=10,offset=-300.0",
    "N=16,C=10,scale=100.0,labels=unlikely",  # of a probability that rounds to 0, for losses without any option
    # What must be refused, and what may be.
    "N=3,C=5,invalid=label-high",
    "N=3,C=5,invalid=label-low,reduction=none",
    "N=5,C=4,label-dtype=int32",
    # Families and sizes.
    "N=16,C=10,offset=10000.0,reduction=none",
    "N=33,C=10,logits=equal,reduction=none,logits-layout=column-slice",
    "N=7,C=100,logits=masked,reduction=none",
    "N=12,C=10,logits=special,reduction=none",
    "N=5,C=130,logits=leading-masked,reduction=sum,upstream=strided",
    "N=9,C=10,reduction=none,upstream=strided,dtype=float64",
    "N=300,C=3,dtype=bfloat16,labels=likely,ignored=0.3",
    "N=16,C=130,dtype=bfloat16,reduction=none",
    "N=5,C=1000,labels=zipf",
    "N=3,C=4097,labels=edges,reduction=none",
    "N=4,C=4097,dtype=bfloat16",
    "N=2,C=32769,labels=edges,reduction=none",
)
_FULL: Final = (
    # Degenerate sizes and divisors.
    "N=0,C=4,reduction=sum",
    "N=0,C=4,dims=3,reduction=none,dtype=bfloat16",
    "N=0,C=3,target=soft,dtype=float64",
    "N=none,C=5,ignored=1.0,dtype=float64",
    "N=none,C=1,label-smoothing=0.1",
    "N=1,C=10,reduction=none,weight=random",
    "N=5,C=3,ignored=1.0,reduction=sum,label-smoothing=0.1",
    "N=5,C=3,ignored=1.0,reduction=none,weight=random,dtype=float16",
    "N=5,C=3,ignored=1.0,label-smoothing=0.1,dtype=float64",
    "N=8,C=10,weight=absent-only,reduction=sum",
    "N=33,C=10,weight=tiny,dtype=float64",
    "N=33,C=10,weight=tiny,label-smoothing=0.1",
    # Two classes.
    "N=128,C=2,logits=peaked,label-smoothing=0.1",
    "N=33,C=2,dtype=bfloat16,weight=unequal",
    "N=16,C=2,dtype=float64,logits=wide,scale=10.0,labels=unlikely,reduction=sum",
    "N=8,C=2,dims=5,reduction=none",
    # Large losses, common offsets, extreme scales, masked classes, in every dtype.
    "N=16,C=10,dtype=float64,labels=unlikely,logits=wide,scale=10.0",
    "N=16,C=100,dtype=float64,offset=10000.0,reduction=sum",
    "N=16,C=10,scale=0.001,reduction=none",
    "N=16,C=10,scale=100.0,reduction=sum",
    "N=16,C=100,offset=-10000.0",
    "N=16,C=10,dtype=bfloat16,offset=-300.0,reduction=none",
    "N=16,C=10,dtype=bfloat16,labels=unlikely,scale=10.0",
    "N=16,C=10,dtype=float16,logits=wide,labels=unlikely,reduction=sum",
    "N=16,C=10,dtype=float16,offset=-300.0",
    "N=9,C=10,dtype=bfloat16,logits=masked,ignored=0.3,reduction=sum",
    "N=9,C=10,dtype=float16,logits=masked,weight=random,reduction=none",
    "N=9,C=10,logits=masked,label-smoothing=0.1,reduction=none",  # inf by definition
    "N=33,C=10,dtype=float64,logits=peaked,reduction=none",
    # Numbers that are none: on and off the label, in rows that count and in ignored ones.
    "N=12,C=10,logits=special,reduction=none,dtype=float64",
    "N=13,C=5,logits=special,reduction=none,dtype=bfloat16,weight=random",
    "N=13,C=5,logits=special,reduction=none,dtype=float16",
    "N=24,C=7,logits=special,reduction=none,ignored=0.6",
    "N=24,C=7,logits=special,ignored=1.0,reduction=sum",
    "N=6,C=4,logits=masked,target=soft,reduction=none",
    "N=7,C=10,logits=leading-masked,dtype=float64,ignored=0.3",
    "N=3,C=1000,logits=leading-masked,reduction=none",
    "N=2,C=4097,logits=leading-masked,dtype=bfloat16",
    # What must be refused, and what may be.
    "N=3,C=5,invalid=label-high,dtype=float64,reduction=sum",
    "N=3,C=5,invalid=label-high,weight=random,dtype=bfloat16",
    "N=2,C=5,dims=3,invalid=label-high",
    "N=3,C=5,invalid=label-high,label-smoothing=0.1",
    "N=40,C=70,invalid=label-low",
    "N=3,C=5,invalid=label-low,ignored=0.3,ignore-index=2",
    "N=9,C=5,invalid=weight-short,labels=edges",
    "N=3,C=5,invalid=weight-long",
    "N=3,C=5,invalid=reduction",
    "N=4,C=5,invalid=target-long,reduction=none",
    "N=5,C=4,label-dtype=uint8,reduction=none",
    "N=9,C=250,label-dtype=uint8",
    "N=5,C=300,label-dtype=int16",
    "N=5,C=4,label-dtype=float32",
    "N=5,C=4,label-dtype=int32,weight=random,label-smoothing=0.1",
    # Layouts and labels.
    "N=16,C=12,logits-layout=expanded,reduction=none",
    "N=16,C=12,logits-layout=row-slice,target-layout=column-slice",
    "N=16,C=12,target-layout=row-slice,weight=random,weight-layout=column-slice,reduction=none",
    "N=16,C=12,target-layout=offset,weight=random,weight-layout=offset,dtype=bfloat16",
    "N=16,C=12,target-layout=expanded,weight=random,weight-layout=expanded,reduction=sum",
    "N=4,C=6,dims=3,target-layout=channels-last,weight=random,weight-layout=transposed",
    "N=4,C=6,dims=3,target=one-hot,target-layout=expanded,weight=random,weight-layout=channels-last",
    "N=16,C=12,logits-layout=offset,weight=random,weight-layout=row-slice,reduction=sum",
    "N=4,C=6,dims=5,logits-layout=transposed,target-layout=transposed,dtype=float64",
    "N=4,C=6,dims=2x3,logits-layout=row-slice,target=soft,target-layout=channels-last",
    "N=31,C=64,labels=edges,ignored=0.3,label-smoothing=1.0",
    "N=16,C=128,labels=likely,logits=peaked,label-smoothing=0.1,reduction=none",
    "N=16,C=257,labels=edges,ignored=0.3,ignore-index=256",
    "N=16,C=10,upstream=one",
    # Many classes, many rows.
    "N=16,C=1000,dtype=float64",
    "N=16,C=1000,logits=equal,reduction=none",
    "N=16,C=1000,dtype=bfloat16,label-smoothing=0.1",
    "N=16,C=1000,dtype=float16,labels=zipf,reduction=none",
    "N=4,C=4097,dtype=float64,labels=edges,reduction=sum",
    "N=4,C=4097,logits=peaked,labels=zipf,label-smoothing=0.1",
    "N=4,C=4097,target=soft,reduction=none",
    "N=300,C=257,labels=edges,scale=4.0,weight=random",
    "N=3,C=1025,labels=edges,logits=peaked,reduction=none,dtype=float64",
    "N=3,C=4097,scale=4.0,reduction=sum,labels=edges",
    "N=3,C=32769,labels=edges,logits=peaked,dtype=bfloat16,reduction=none",
    "N=2,C=40000,labels=unlikely,reduction=none",
    "N=3,C=65537,logits=peaked,labels=edges,reduction=none",
    "N=2,C=65537,logits=uniform,dtype=float16,reduction=none",
    "N=2,C=65536,logits=equal,dtype=bfloat16,reduction=none",
    "N=3,C=128256,labels=edges,logits=peaked,dtype=bfloat16,reduction=none",
    "N=2,C=128256,scale=4.0",
    # More than 2^24 logits, which index arithmetic in float32 cannot tell apart; forward only, for the sake of time.
    "N=280,C=65537,logits=uniform,scale=8.0,dtype=bfloat16,reduction=none,mode=no-grad",
    "N=1025,C=33,ignored=0.5,dtype=float64",
    "N=20001,C=3,ignored=0.3",
    "N=32769,C=5,reduction=none,weight=random",
    "N=65537,C=3,ignored=0.5,weight=unequal",
    "N=65539,C=3,reduction=none,dtype=bfloat16",
    "N=65537,C=2,reduction=sum,dtype=float64",
    "N=4097,C=65,label-smoothing=0.1,ignored=0.3",
    "N=4099,C=3,dtype=bfloat16,weight=random",
    "N=4099,C=3,dtype=float16,ignored=0.3",
    "N=64,C=1000,ignored=0.3,weight=random",
)
_COMPILED: Final = (
    "N=33,C=10,dtype=float64,ignored=0.3,weight=random,label-smoothing=0.1,mode=grad",
    "N=16,C=10,dtype=float64,target=soft,target-grad=yes,reduction=none,mode=grad",
    "N=65,C=2,ignored=0.3,mode=grad",
    "N=17,C=3,weight=unequal,ignore-index=1,ignored=0.2,reduction=sum,mode=grad",
    "N=2,C=5,dims=3x4,weight=random,logits-layout=channels-last,reduction=none,mode=grad",
    "N=33,C=10,logits=wide,labels=unlikely,reduction=none,mode=grad",
    "N=3,C=4097,labels=edges,reduction=none,mode=grad",
    "N=16,C=10,dtype=bfloat16,logits=wide,reduction=none,mode=grad",
    "N=16,C=130,dtype=bfloat16,label-smoothing=0.1,mode=grad",
    "N=16,C=10,dtype=float16,scale=10.0,reduction=none,mode=grad",
    "N=33,C=10,weight=random,ignored=0.3,reduction=none,mode=no-grad",
    "N=16,C=1000,dtype=bfloat16,mode=no-grad",
)
_ACCURACY_FAMILIES: Final = ("normal", "uniform", "equal", "peaked", "wide", "masked")
"""Of logits: from what every loss bears to what needs the maximum subtracted, and -inf where a class is ruled out."""
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"quick": _QUICK, "full": (*_QUICK, *_FULL), "compiled": _COMPILED}


def panel(name: str) -> tuple[Problem, ...]:
    """Return the problems of a panel, smallest first.

    Args:
        name: `quick`, `full`, which contains `quick`, or `compiled`: a few of `quick`, for entrants that take seconds
            to set up each problem.

    Raises:
        UsageError: any other name.
    """
    if name not in _KEYS:
        msg = f"panel {name!r} is unknown: {nearest(name, _KEYS)}"
        raise UsageError(msg)
    return _panel(name)


def accuracy(devices: Sequence[str]) -> tuple[Problem, ...]:
    """Return what `bench` asks for accuracy alone: every dtype with every family of logits, on each of the devices.

    32 rows of 1000 classes, whose losses are told one by one: the largest error in units in the last place is of a row.
    """
    return tuple(
        Problem(batch_size=32, num_classes=1000, reduction="none", dtype=dtype, logits=family, device=device)
        for device in devices
        for dtype in DTYPE_BYTES
        for family in _ACCURACY_FAMILIES
    )


@functools.cache
def _panel(name: str) -> tuple[Problem, ...]:
    problems = [Problem.parse(key) for key in _KEYS[name]]
    if name == "full":
        problems += [Problem(**axes) for options in (_INDEX_AXES, _PROBABILITY_AXES) for axes in _pairwise(options)]
    return tuple(sorted(dict.fromkeys(problems), key=lambda problem: problem.elements))


def _pairwise(axes: Mapping[str, Sequence[Axes]]) -> Iterator[Axes]:
    """Yield settings in which every two values of two axes meet at least once (a greedy covering array)."""
    choices = [(name, place) for name, values in axes.items() for place in range(len(values))]
    uncovered = dict.fromkeys(pair for pair in itertools.combinations(choices, 2) if pair[0][0] != pair[1][0])
    while uncovered:
        setting = dict(next(iter(uncovered)))
        for name in axes:
            if name not in setting:
                setting[name] = max(range(len(axes[name])), key=_gain(uncovered, setting, name))
        for pair in itertools.combinations([(name, setting[name]) for name in axes], 2):
            uncovered.pop(pair, None)
        yield {key: value for name in axes for key, value in axes[name][setting[name]].items()}


def _gain(uncovered: Mapping[Any, None], setting: Mapping[str, int], name: str) -> Callable[[int], int]:
    """Return how many uncovered pairs each place of the axis `name` would cover, given what is set already."""

    def gain(place: int) -> int:
        new = (name, place)
        return sum(((old, new) in uncovered) + ((new, old) in uncovered) for old in setting.items())

    return gain
