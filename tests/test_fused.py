"""The native kernel: as an operator of torch, as a library, where it cannot be built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from xentbench.implementations import _compiler, fused, fused_python
from xentbench.implementations._fused import building, operators

needs_compiler = pytest.mark.skipif(_compiler.found() is None, reason=_compiler.REMEDY)
CODES = {"ignore_index": -100, "reduction": 1, "label_smoothing": 0.0}


def logits(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * scale
    return made.to(dtype).requires_grad_()


def labels(rows: int, classes: int) -> torch.Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(2))


def both(x: torch.Tensor, target: torch.Tensor, **options: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return loss and gradient of the kernel and of torch's own loss in float64."""
    found = []
    for loss, dtype in ((fused.cross_entropy, x.dtype), (functional.cross_entropy, torch.float64)):
        own = x.detach().to(dtype).requires_grad_()
        value = loss(own, target, **options)
        value.sum().backward()
        found.append((value.detach().double(), own.grad.double()))
    return found


@needs_compiler
@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 63, 64, 65, 1000, 4095, 4097, 9001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_odd_sizes_are_right_in_every_dtype(classes: int, dtype: torch.dtype):
    x, unit = logits(19, classes, dtype=dtype), torch.finfo(dtype).eps
    (value, gradient), (right, expected) = both(x, labels(19, classes), reduction="none")
    torch.testing.assert_close(value, right, rtol=4 * unit, atol=8 * unit)
    torch.testing.assert_close(gradient, expected, rtol=32 * unit, atol=2 * unit)


@needs_compiler
@pytest.mark.parametrize(
    "made",
    [
        lambda x: x[:, 1:],  # neither rows nor vectors are aligned
        lambda x: x[::2],
        lambda x: x[:, ::2],
        lambda x: x.t().contiguous().t(),
        lambda x: x[:1].expand(6, -1),
    ],
)
def test_strides_and_alignment_do_not_matter(made):
    x = made(logits(6, 301).detach())
    (value, gradient), (right, expected) = both(x, labels(len(x), x.shape[1]))
    torch.testing.assert_close(value, right, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def placed(classes: int, place: int, peak: float, rest: float = 0.0) -> torch.Tensor:
    """Return rows of small noise about `rest` with one peak."""
    x = logits(3, classes, scale=0.5).detach() + rest
    x[:, place] = peak
    return x


@needs_compiler
@pytest.mark.parametrize(
    "x",
    [
        placed(9001, 8000, 30.0),  # far above what the first logits showed: decided, in the last block
        placed(9001, 8000, 3.5),  # a little above: no block is computed again
        placed(9001, 8000, 3.5, -20.0),  # a little above, and decided for all others are far below
        placed(9001, 8000, -2e38, -3e38),
        placed(300, 299, 90.0),
        torch.arange(9001.0).mul(0.01).repeat(3, 1),  # every block has a larger maximum
        torch.arange(9001.0).mul(-0.01).repeat(3, 1),
        torch.cat([torch.full((3, 5000), -float("inf")), logits(3, 100).detach()], dim=1),
    ],
    ids=["decided", "above", "above-and-decided", "huge", "short", "ascending", "descending", "masked"],
)
@pytest.mark.parametrize("at_peak", [True, False])
def test_where_the_maximum_is_does_not_matter(x: torch.Tensor, at_peak: bool):
    target = x.argmax(dim=1) if at_peak else torch.full((3,), x.shape[1] - 2)
    (value, gradient), (right, expected) = both(x, target, reduction="none")
    assert right.isfinite().all()
    torch.testing.assert_close(value, right, rtol=1e-6, atol=6e-8 if right.max() < 0.1 else 1e-6)
    torch.testing.assert_close(gradient, expected, rtol=4e-6, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("special", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 300, 5000])
def test_what_is_no_number_is_shown_wherever_it_is(special: float, place: int):
    x = logits(2, 5001).detach()
    x[0, place] = special
    loss = fused.cross_entropy(x, labels(2, 5001), reduction="none")
    assert loss[0].isnan()
    assert loss[1].isfinite()


@needs_compiler
def test_probabilities_below_the_normal_numbers_are_not_lost():
    x = torch.tensor([[0.0, -88.0, -100.0, -103.0, *[-150.0] * 96]])
    (_, gradient), (_, expected) = both(x, torch.tensor([0]), reduction="sum")
    torch.testing.assert_close(gradient[0, 1:], expected[0, 1:], rtol=1e-6, atol=2.0**-149)
    assert gradient[0, 2] > 0


@needs_compiler
@pytest.mark.parametrize("classes", [8192, 8191])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_that_passes_the_caches_by_is_whole(classes: int, dtype: torch.dtype):
    rows = (16 << 20) // (8191 * dtype.itemsize) + 2
    x, target = logits(rows, classes, dtype=dtype), labels(rows, classes)
    target[3] = -100
    (_, gradient), (_, expected) = both(x, target, reduction="sum")
    torch.testing.assert_close(gradient, expected, rtol=32 * torch.finfo(dtype).eps, atol=1e-6)


@needs_compiler
def test_weights_that_require_a_gradient_are_refused_as_torch_refuses_them():
    weight = torch.rand(5, requires_grad=True)
    for loss in (fused.cross_entropy, functional.cross_entropy, fused_python.cross_entropy):
        with pytest.raises(RuntimeError, match="requires?_? ?(a )?grad"):
            loss(logits(3, 5), labels(3, 5), weight)
        with torch.no_grad():
            assert loss(logits(3, 5), labels(3, 5), weight).isfinite()


@needs_compiler
def test_no_rows_are_a_mean_of_nothing():
    x = logits(0, 5)
    assert fused.cross_entropy(x, labels(0, 5)).isnan()
    assert fused.cross_entropy(x, labels(0, 5), reduction="sum").item() == 0.0
    fused.cross_entropy(x, labels(0, 5), reduction="sum").backward()
    assert x.grad.shape == (0, 5)


@needs_compiler
def test_the_number_of_threads_changes_no_bit():
    x, target, told = logits(301, 1000), labels(301, 1000), []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        x.grad = None
        loss = fused.cross_entropy(x, target, label_smoothing=0.1)
        loss.backward()
        told.append((loss.item(), x.grad.clone()))
    torch.set_num_threads(before)
    assert all(value == told[0][0] and torch.equal(gradient, told[0][1]) for value, gradient in told)


@needs_compiler
@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_operator_keeps_torchs_rules(reduction: int, smoothing: float):
    operator = operators.cross_entropy()
    options = CODES | {"reduction": reduction, "label_smoothing": smoothing}
    torch.library.opcheck(operator, (logits(4, 70), labels(4, 70), None, *options.values()))
    torch.library.opcheck(operator, (logits(4, 7, 3), labels(12, 7).reshape(4, 3), torch.rand(7), *options.values()))
    soft = logits(4, 7).detach().softmax(1).requires_grad_()
    torch.library.opcheck(operator, (logits(4, 7), soft, None, *options.values()))


@needs_compiler
def test_first_and_second_derivatives_are_those_of_finite_differences():
    x, target = logits(3, 5, dtype=torch.float64, scale=1.0), labels(3, 5)
    assert torch.autograd.gradcheck(lambda x: fused.cross_entropy(x, target, label_smoothing=0.1), (x,))
    assert torch.autograd.gradgradcheck(lambda x: fused.cross_entropy(x, target), (x,))
    soft = x.detach().softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(fused.cross_entropy, (x, soft))


@needs_compiler
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
def test_a_gradient_with_a_graph_is_had_of_whichever_asks_for_it(wanted: tuple[bool, bool]):
    x, soft = logits(3, 5, dtype=torch.float64).detach(), logits(3, 5, dtype=torch.float64).detach().softmax(1)
    leaves = [leaf for leaf, asks in zip((x, soft), wanted, strict=True) if leaf.requires_grad_(asks).requires_grad]
    ours, theirs = (
        torch.autograd.grad(loss(x, soft), leaves, create_graph=True)
        for loss in (fused.cross_entropy, functional.cross_entropy)
    )
    torch.testing.assert_close(ours, theirs)


@needs_compiler
@pytest.mark.parametrize(
    "shape", [(3, 70), (2, 7, 3), (2, 4097, 3), (2, 4097, 3, 2), (2, 4097, 1), (2, 4097, 0), (4097,)]
)
def test_tracing_is_told_the_strides_that_come(shape: tuple[int, ...]):
    operators.cross_entropy()
    kernel, x = torch.ops.xentbench, logits(*shape).detach()
    soft = x.softmax(0 if x.dim() == 1 else 1)
    stats = kernel.cross_entropy_forward(x, soft, None, -100, 1, 0.0)[1]
    given = (stats.new_ones(()), x, soft, None, stats)
    with FakeTensorMode() as mode:
        told = [part if part is None else mode.from_tensor(part) for part in given]
        expected = kernel.cross_entropy_backward(*told, -100, 1, 0.0, True)
    for came, was_told in zip(kernel.cross_entropy_backward(*given, -100, 1, 0.0, True), expected, strict=True):
        assert (came.shape, came.stride(), came.dtype) == (was_told.shape, was_told.stride(), was_told.dtype)


@needs_compiler
def test_the_backward_reads_no_more_than_it_was_given():
    operators.cross_entropy()
    kernel, x, target = torch.ops.xentbench, logits(6, 5).detach(), labels(6, 5)
    stats = kernel.cross_entropy_forward(x, target, None, -100, 0, 0.0)[1]
    with pytest.raises(ValueError, match=r"stats must be the forward's, \(13\) contiguous, got \[12\]"):
        kernel.cross_entropy_backward(torch.ones(6), x, target, None, stats[:12], -100, 0, 0.0, False)
    with pytest.raises(ValueError, match=r"upstream must have the shape of the loss, got \[5\]"):
        kernel.cross_entropy_backward(torch.ones(5), x, target, None, stats, -100, 0, 0.0, False)


@needs_compiler
def test_it_is_one_graph_under_torch_compile():
    torch.compiler.reset()
    compiled = torch.compile(fused.cross_entropy, fullgraph=True, backend="aot_eager")
    x, target = logits(5, 300), labels(5, 300)
    loss = compiled(x, target)
    loss.backward()
    eager = x.detach().requires_grad_()
    fused.cross_entropy(eager, target).backward()
    assert loss.item() == fused.cross_entropy(x, target).item()
    assert torch.equal(x.grad, eager.grad)


@needs_compiler
def test_autocast_computes_and_answers_in_float32_as_torchs_own_loss_does():
    x, target = logits(4, 70, dtype=torch.bfloat16), labels(4, 70)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (loss(x, target) for loss in (fused.cross_entropy, functional.cross_entropy))
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    ours.backward()
    assert x.grad.dtype == torch.bfloat16


@needs_compiler
def test_the_module_takes_what_nn_cross_entropy_loss_takes():
    options = {"weight": torch.rand(7), "ignore_index": 2, "reduction": "sum", "label_smoothing": 0.1}
    x, target = logits(9, 7).detach(), labels(9, 7)
    ours, theirs = fused.FusedCrossEntropyLoss(**options), nn.CrossEntropyLoss(**options)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(ours(x, target), theirs(x, target))


@needs_compiler
def test_what_does_not_fit_is_refused():
    x = logits(3, 5).detach()
    with pytest.raises(IndexError, match=r"between 0 and 4 or be ignore_index -100, got 5"):
        fused.cross_entropy(x, torch.tensor([0, 5, 1]))
    with pytest.raises(ValueError, match="reduction must be"):
        fused.cross_entropy(x, labels(3, 5), reduction="average")
    with pytest.raises(ValueError, match="label_smoothing"):
        fused.cross_entropy(x, labels(3, 5), label_smoothing=1.5)
    with pytest.raises(ValueError, match="target must have shape"):
        fused.cross_entropy(x, labels(4, 5))


def test_without_a_compiler_the_reason_names_what_adds_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(building.BuildError, match=r"found no C\+\+ compiler: install .* `apt-get install g\+\+`"):
        building.library(folder=tmp_path)


def test_without_a_compiler_the_library_is_slower_and_as_right(tmp_path: Path):
    """In a process of its own: torch keeps operators for good."""
    code = (
        "import torch\nfrom xentbench.implementations.fused import cross_entropy\n"
        "x = torch.randn(4, 9, requires_grad=True)\nt = torch.tensor([0, 8, 3, 3])\n"
        "loss = cross_entropy(x, t)\nloss.backward()\n"
        "assert torch.allclose(loss, torch.nn.functional.cross_entropy(x, t))\ncross_entropy(x, t)\n"
    )
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    seen = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert seen.returncode == 0, seen.stderr
    assert seen.stderr.count("fused-python is used in place of fused") == 1


@needs_compiler
def test_a_build_that_fails_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "cross_entropy.cpp").write_text("int broken(\n")
    monkeypatch.setattr(building, "SOURCES", sources)
    with pytest.raises(building.BuildError, match="could not build the native kernel: .*error"):
        building.library(folder=tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


@needs_compiler
def test_a_library_is_built_once_and_again_where_its_sources_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    sources = tmp_path / "sources"
    sources.mkdir()
    monkeypatch.setattr(building, "SOURCES", sources)
    (sources / "cross_entropy.cpp").write_text("int one() { return 1; }\n")
    first = building.library(folder=tmp_path)
    made = first.stat().st_mtime_ns
    assert building.library(folder=tmp_path) == first
    assert first.stat().st_mtime_ns == made
    (sources / "cross_entropy.cpp").write_text("int two() { return 2; }\n")
    assert building.library(folder=tmp_path) != first
