"""The two built-in workloads, `digits` and `text`: models trained here for seconds, and their logits on held-out rows.

They are trained with `F.cross_entropy`, on one thread, then kept in the user's cache folder: one machine and one torch
version give the same bytes each time, another machine may give others. By a `course` others train the same models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import math
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench.files import user_cache
from xentbench.inputs import Recorded
from xentbench.models import Lesson, classifier, language_model
from xentbench.recordings import fingerprint, from_file, read_metadata, save
from xentbench.spec import UsageError
from xentbench.threads import one_thread

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from xentbench.models import Model

Trainer = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]

RECIPE: Final = 1
"""Number of the recipes below; raise it when one changes, so that no older cache is taken for it."""
SEED: Final = 0

DIGITS_ROWS, DIGITS_HIDDEN, DIGITS_CLASSES = 512, 256, 10
TEXT_ROWS, TEXT_WORDS, TEXT_CONTEXT, TEXT_WIDTH = 128, 8192, 3, 128
TEXT_HELD_OUT = 16
"""One paragraph of so many is held out."""

MOMENTUM: Final = 0.9
HELD_OUT_ROWS: Final = 512
"""Of a course: on which it is seen what came of it."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a model is trained on, what it is tried on, and the weights that it starts from.

    Attributes:
        inputs: `(rows, …)`.
        target: int64 `(rows,)`.
        held_inputs: of rows that are not trained on.
        held_target: of these.
        weights: in the order of the model.
    """

    inputs: torch.Tensor
    target: torch.Tensor
    held_inputs: torch.Tensor
    held_target: torch.Tensor
    weights: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a course goes: steps, rows of each, rate of the first."""

    steps: int
    rows: int
    rate: float


PACES: Final[Mapping[str, Pace]] = {"digits": Pace(300, 64, 0.1), "text": Pace(200, 32, 0.3)}
"""Steady enough that rounding is not amplified: see docs/training.md."""


@dataclass(frozen=True, slots=True)
class Course:
    """A lesson, and the rows on which it is seen what came of it.

    Attributes:
        lesson: data, weights and order of one training.
        held_inputs: of rows that are not trained on.
        held_target: of these, int64.
    """

    lesson: Lesson
    held_inputs: torch.Tensor
    held_target: torch.Tensor


class WorkloadUnavailableError(RuntimeError):
    """This installation lacks what a workload is made from; the message is the reason, for a skipped row."""


def digits() -> Recorded:
    """Return the logits of a small classifier of handwritten digits, for rows that it was not trained on.

    The classifier of the classic tutorial (`d → 256 → 10`, ReLU), trained for about a second on scikit-learn's bundled
    digits (8 by 8 pixels; Alpaydin and Kaynak 1998), or taken from the cache.

    Returns:
        logits float32 `(512, 10)`, target int64 `(512,)`, no weight.

    Raises:
        WorkloadUnavailableError: scikit-learn is not installed, and nothing is cached.
    """
    return _trained("digits")


def text() -> Recorded:
    """Return the logits of a small language model of the Python documentation, for words that it was not trained on.

    Three words, each embedded in 128 dimensions, → 128 (tanh) → the 8192 commonest words, output and input embedding
    tied (Bengio et al. 2003; Press and Wolf 2017), trained for seconds on one thread on the text that ships with
    CPython (`pydoc_data.topics`), or taken from the cache. Class 0 stands for every other word. No paragraph of the
    held-out rows was trained on, repeated ones included.

    Returns:
        logits float32 `(128, 8192)`, target int64 `(128,)`, no weight.

    Raises:
        WorkloadUnavailableError: this Python ships without `pydoc_data`, and nothing is cached.
    """
    return _trained("text")


def course(name: str, seed: int) -> Course:
    """Return the same data and model with initial weights and batches of this seed, to be trained by whoever likes.

    The weights go downhill by gradients with momentum (Polyak 1964). Adam, by which the workloads are made, divides a
    constant factor on the gradient out again, so that a loss with a wrong divisor would train as a right one does.

    Args:
        name: `digits` or `text`.
        seed: of weights and batches.

    Raises:
        WorkloadUnavailableError: as `digits` and `text`.
    """
    generator = torch.Generator().manual_seed(seed % 2**63)
    data, pace = _DATA[name](generator), PACES[name]
    batches = torch.stack(_batches(len(data.target), size=pace.rows, steps=pace.steps, generator=generator))
    chosen = torch.randperm(len(data.held_target), generator=generator)[:HELD_OUT_ROWS]
    lesson = Lesson(name, data.weights, data.inputs[batches], data.target[batches], pace.rate, MOMENTUM)
    return Course(lesson, data.held_inputs[chosen], data.held_target[chosen])


def cache_folder() -> Path:
    """Return the user's cache folder of trained workloads."""
    return user_cache("workloads")


def _trained(name: str) -> Recorded:
    """Return a private copy, so that nobody's writing reaches the next one who asks."""
    kept = _kept(name, cache_folder())
    return dataclasses.replace(kept, logits=kept.logits.clone(), target=kept.target.clone())


@functools.cache
def _kept(name: str, folder: Path) -> Recorded:
    """Take a workload from the cache, or train it and cache it; a cache that cannot be used costs time, no more."""
    path = folder / f"{name}-recipe{RECIPE}-torch{torch.__version__}-python{platform.python_version()}.safetensors"
    with contextlib.suppress(UsageError):
        cached = from_file(path)
        if read_metadata(path).get("sha256") == cached.sha256:
            return cached
    # One order of additions, and so one result; and whoever calls may have gradients turned off.
    with one_thread(), torch.inference_mode(mode=False), torch.enable_grad():
        logits, target = _TRAINERS[name](torch.Generator().manual_seed(SEED))
    recorded = Recorded(logits, target, None, fingerprint(logits, target, None))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        save(path, logits, target, None, sha256=recorded.sha256)
    return recorded


def _train_digits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    data = _digits_data(generator)
    batches = _batches(len(data.target), size=64, steps=300, generator=generator)
    weights = _fit(classifier, data, batches, rate=3e-3)
    return classifier(weights, data.held_inputs).detach(), data.held_target


def _digits_data(generator: torch.Generator) -> Data:
    source = _import("sklearn.datasets", "the digits workload needs scikit-learn: pip install 'xentbench[workloads]'")
    pixels, labels = source.load_digits(return_X_y=True)
    inputs, target = torch.from_numpy(pixels).float() / 16.0, torch.from_numpy(labels).long()
    order = torch.randperm(len(target), generator=generator)
    held_out, rest = order[:DIGITS_ROWS], order[DIGITS_ROWS:]
    weights = (
        _uniform(64, DIGITS_HIDDEN, generator=generator),
        _uniform(DIGITS_HIDDEN, DIGITS_CLASSES, generator=generator),
        torch.zeros(DIGITS_HIDDEN),
        torch.zeros(DIGITS_CLASSES),
    )
    return Data(inputs[rest], target[rest], inputs[held_out], target[held_out], weights)


def _train_text(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    data = _text_data(generator)
    batches = _batches(len(data.target), size=512, steps=100, generator=generator)
    weights = _fit(language_model, data, batches, rate=4e-3)
    chosen = torch.randperm(len(data.held_target), generator=generator)[:TEXT_ROWS]
    return language_model(weights, data.held_inputs[chosen]).detach(), data.held_target[chosen]


def _text_data(generator: torch.Generator) -> Data:
    rows, held_out = _text_rows()
    # Starts from how common each word is, so that the few steps there are go into what the context tells.
    frequencies = torch.bincount(rows[:, -1], minlength=TEXT_WORDS) + 0.5
    weights = (
        torch.randn(TEXT_WORDS, TEXT_WIDTH, generator=generator).mul_(0.1),
        _uniform(TEXT_CONTEXT * TEXT_WIDTH, TEXT_WIDTH, generator=generator),
        torch.zeros(TEXT_WIDTH),
        (frequencies / frequencies.sum()).log(),
    )
    return Data(rows[:, :-1], rows[:, -1], held_out[:, :-1], held_out[:, -1], weights)


def _text_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Return int64 rows of word numbers, the preceding words and then the word itself: to train on, and held out."""
    source = _import("pydoc_data.topics", "the text workload needs pydoc_data, which this Python ships without")
    paragraphs = dict.fromkeys(part for topic in source.topics.values() for part in re.split(r"\n\s*\n", topic))
    lines = [words for paragraph in paragraphs if (words := paragraph.split())]
    commonest = Counter(word for words in lines for word in words).most_common(TEXT_WORDS - 1)
    numbers = {word: number for number, (word, _) in enumerate(commonest, start=1)}
    kept: tuple[list[list[int]], list[list[int]]] = ([], [])
    for line, words in enumerate(lines):
        padded = [0] * TEXT_CONTEXT + [numbers.get(word, 0) for word in words]
        rows = (padded[end - TEXT_CONTEXT : end + 1] for end in range(TEXT_CONTEXT, len(padded)))
        kept[line % TEXT_HELD_OUT == TEXT_HELD_OUT - 1].extend(rows)
    return torch.tensor(kept[0]), torch.tensor(kept[1])


_DATA: Final[Mapping[str, Callable[[torch.Generator], Data]]] = {"digits": _digits_data, "text": _text_data}
_TRAINERS: Final[dict[str, Trainer]] = {
    "digits": _train_digits,
    "text": _train_text,
}


def _fit(model: Model, data: Data, batches: list[torch.Tensor], *, rate: float) -> tuple[torch.Tensor, ...]:
    """Train by Adam (Kingma and Ba 2015), its rate falling linearly to zero; return the weights."""
    weights = tuple(weight.requires_grad_() for weight in data.weights)
    optimizer = torch.optim.Adam(weights, lr=rate)
    for done, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (1.0 - done / len(batches))
        optimizer.zero_grad()
        F.cross_entropy(model(weights, data.inputs[batch]), data.target[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights


def _batches(rows: int, *, size: int, steps: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Return the row numbers of each step: every row once before any comes again."""
    rounds = math.ceil(steps * size / rows)
    order = torch.cat([torch.randperm(rows, generator=generator) for _ in range(rounds)])
    return [order[start : start + size] for start in range(0, steps * size, size)]


def _uniform(inputs: int, outputs: int, *, generator: torch.Generator) -> torch.Tensor:
    """Return the weights that a linear layer of these sizes starts with: uniform within 1/sqrt(inputs)."""
    bound = 1.0 / math.sqrt(inputs)
    return torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)


def _import(module: str, reason: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise WorkloadUnavailableError(reason) from error
