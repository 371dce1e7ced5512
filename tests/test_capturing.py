import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

import xentbench
from xentbench.capturing import capture
from xentbench.recordings import from_file, recorded_options
from xentbench.spec import UsageError

ORIGINAL = F.cross_entropy
LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
TARGET = torch.tensor([0, 2])


@pytest.fixture(autouse=True)
def _original_is_back() -> Iterator[None]:
    yield
    assert F.cross_entropy is ORIGINAL


@pytest.fixture
def path(tmp_path: Path):
    return tmp_path / "logits.safetensors"


def train(steps: int, loss: nn.Module) -> tuple[nn.Linear, list[torch.Tensor]]:
    """Train a linear classifier for a few steps and return it with the logits of each step."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    rows, target, seen = torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(rows)
        seen.append(logits.detach().clone())
        loss(logits, target).backward()
        optimizer.step()
    return model, seen


def test_it_is_public():
    assert xentbench.capture is capture


@pytest.mark.parametrize("call", [0, 2])
def test_a_training_loop_is_recorded_and_not_changed(path: Path, call: int):
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1)
    expected, _ = train(4, loss)
    with capture(path, call=call):
        model, seen = train(4, loss)
    assert torch.equal(model.weight, expected.weight)
    read = from_file(path)
    assert torch.equal(read.logits, seen[call])
    assert read.target.shape == (8,)
    assert read.weight is not None
    assert read.weight.tolist() == [1.0, 2.0, 0.5]
    assert recorded_options(path) == {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.1}


def test_a_path_may_be_text(path: Path):
    with capture(str(path)):
        F.cross_entropy(LOGITS, TARGET)
    assert torch.equal(from_file(path).logits, LOGITS)


def test_values_gradients_and_type_of_the_call_stay(path: Path):
    logits = LOGITS.clone().requires_grad_()
    with capture(path):
        loss = F.cross_entropy(logits, TARGET, reduction="none")
        loss.sum().backward()
    again = LOGITS.clone().requires_grad_()
    expected = F.cross_entropy(again, TARGET, reduction="none")
    expected.sum().backward()
    assert torch.equal(loss, expected)
    assert torch.equal(logits.grad, again.grad)
    assert recorded_options(path)["reduction"] == "none"


def test_later_writing_into_the_logits_does_not_reach_the_recording(path: Path):
    logits = LOGITS.clone()
    with capture(path):
        F.cross_entropy(logits, TARGET)
        logits.zero_()
    assert torch.equal(from_file(path).logits, LOGITS)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.sampled_from([(3,), (2, 3), (2, 3, 4), (2, 3, 2, 2)]),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    soft=st.booleans(),
    weighted=st.booleans(),
    transposed=st.booleans(),
    ignore_index=st.sampled_from([-100, -1, 1, 255]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    label_smoothing=st.sampled_from([0.0, 0.25]),
)
def test_what_was_captured_gives_the_same_loss(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    soft: bool,
    weighted: bool,
    transposed: bool,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
):
    path = tmp_path_factory.mktemp("capture") / "logits.safetensors"
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(shape, generator=generator).to(dtype) - 1
    if transposed:
        logits = logits.transpose(0, -1).contiguous().transpose(0, -1)
    target = torch.randint(3, shape[:1] + shape[2:] if len(shape) > 1 else (), generator=generator)
    if soft:
        target, ignore_index = torch.rand(shape, generator=generator).to(dtype), -100
    elif target.dim():
        target.view(-1)[0] = ignore_index
    weight = torch.rand(3, generator=generator).to(dtype) if weighted else None
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    with capture(path):
        loss = F.cross_entropy(logits, target, weight, **options)
    read = from_file(path)
    assert recorded_options(path) == options
    again = F.cross_entropy(read.logits, read.target, read.weight, **recorded_options(path))
    assert torch.equal(again.nan_to_num(), loss.nan_to_num())


@pytest.mark.filterwarnings("ignore:size_average and reduce args:UserWarning")
@pytest.mark.parametrize(
    ("arguments", "reduction"),
    [
        ((None, None, 1), "mean"),
        ((None, False, 1), "sum"),
        ((None, True, 1, True), "mean"),
        ((None, None, 1, False), "none"),
        ((None, True, 1, False), "none"),
        ((None, None, 1, None, "sum"), "sum"),
    ],
)
def test_positional_and_deprecated_arguments_pass_through(path: Path, arguments: tuple[Any, ...], reduction: str):
    with capture(path):
        loss = F.cross_entropy(LOGITS, TARGET, *arguments)
    assert torch.equal(loss, F.cross_entropy(LOGITS, TARGET, *arguments))
    assert recorded_options(path) == {"ignore_index": 1, "reduction": reduction, "label_smoothing": 0.0}
    assert torch.equal(loss, F.cross_entropy(LOGITS, TARGET, ignore_index=1, reduction=reduction))


def test_arguments_by_name(path: Path):
    with capture(path):
        F.cross_entropy(target=TARGET, input=LOGITS)
    assert torch.equal(from_file(path).logits, LOGITS)


def test_uint8_indices_are_written_as_int64(path: Path):
    with capture(path):
        F.cross_entropy(LOGITS, TARGET.to(torch.uint8))
    assert torch.equal(from_file(path).target, TARGET)


def test_an_exception_passes_and_what_was_seen_is_written(path: Path):
    def interrupted() -> None:
        F.cross_entropy(LOGITS, TARGET)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), capture(path):
        interrupted()
    assert torch.equal(from_file(path).logits, LOGITS)


def test_an_exception_before_any_call_is_not_covered_by_a_warning(path: Path):
    with pytest.raises(ZeroDivisionError), capture(path):
        raise ZeroDivisionError
    assert not path.exists()


def test_the_losss_own_error_stays(path: Path):
    with pytest.raises(RuntimeError) as bare:
        F.cross_entropy(LOGITS, TARGET.int())
    with pytest.raises(RuntimeError) as passed, capture(path):
        F.cross_entropy(LOGITS, TARGET.int())
    assert str(passed.value) == str(bare.value)
    with pytest.raises(TypeError), capture(path):
        F.cross_entropy(LOGITS)


def test_no_call_warns_at_the_with_and_writes_nothing(path: Path):
    from torch.nn.functional import cross_entropy

    with (
        pytest.warns(UserWarning, match=r"saw no call and wrote no .*from torch.nn.functional import") as said,
        capture(path),
    ):
        cross_entropy(LOGITS, TARGET)
    assert [warning.filename for warning in said] == [__file__]
    assert not path.exists()


def test_too_few_calls_warn_with_their_number(path: Path):
    with (
        pytest.warns(UserWarning, match=r"saw 2 calls of cross_entropy while call=5 was asked for"),
        capture(path, call=5),
    ):
        train(2, nn.CrossEntropyLoss())
    assert not path.exists()


def test_probabilities_warn_and_are_written(path: Path):
    with (
        pytest.warns(UserWarning, match=r"captured logits look like probabilities .* log_softmax itself") as said,
        capture(path),
    ):
        F.cross_entropy(LOGITS.softmax(1), TARGET)
    assert [warning.filename for warning in said] == [__file__]
    assert torch.equal(from_file(path).logits, LOGITS.softmax(1))


def test_a_folder_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path):
    ran = []
    with (
        pytest.raises(UsageError, match="in a folder that does not exist: make the folder"),
        capture(tmp_path / "no" / "x"),
    ):
        ran.append(1)
    with pytest.raises(UsageError, match="got the folder"), capture(tmp_path):
        ran.append(1)
    with pytest.raises(UsageError, match="call must be 0 or more, got -1"), capture(tmp_path / "x", call=-1):
        ran.append(1)
    assert ran == []


def test_a_file_that_cannot_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UsageError, match="got No space left on device: choose another"), capture(path):
        F.cross_entropy(LOGITS, TARGET)


def test_captures_nest(tmp_path: Path):
    with capture(tmp_path / "outer", call=1), capture(tmp_path / "inner"):
        F.cross_entropy(LOGITS, TARGET)
        F.cross_entropy(LOGITS + 1, TARGET)
    assert torch.equal(from_file(tmp_path / "inner").logits, LOGITS)
    assert torch.equal(from_file(tmp_path / "outer").logits, LOGITS + 1)


def test_captures_may_end_in_any_order(tmp_path: Path):
    first, second = capture(tmp_path / "first"), capture(tmp_path / "second", call=1)
    first.__enter__()
    second.__enter__()
    F.cross_entropy(LOGITS, TARGET)
    first.__exit__(None, None, None)
    F.cross_entropy(LOGITS + 1, TARGET)
    second.__exit__(None, None, None)
    assert F.cross_entropy is ORIGINAL
    assert torch.equal(from_file(tmp_path / "first").logits, LOGITS)
    assert torch.equal(from_file(tmp_path / "second").logits, LOGITS + 1)


def test_someone_elses_replacement_stays_and_goes_on_working(path: Path):
    with pytest.MonkeyPatch.context() as patch:
        with capture(path):
            ours = F.cross_entropy
            patch.setattr(F, "cross_entropy", theirs := lambda *args: 2 * ours(*args))
            F.cross_entropy(LOGITS, TARGET)
        assert F.cross_entropy is theirs
        with capture(path.with_name("second")):
            loss = F.cross_entropy(LOGITS + 1, TARGET)
        assert F.cross_entropy is theirs
    assert torch.equal(loss, 2 * ORIGINAL(LOGITS + 1, TARGET))
    assert torch.equal(from_file(path).logits, LOGITS)
    F.cross_entropy = ORIGINAL


def test_calls_of_many_threads_are_counted_once_each(path: Path):
    def work() -> None:
        for _ in range(25):
            F.cross_entropy(LOGITS, TARGET)

    with capture(path, call=99):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert torch.equal(from_file(path).logits, LOGITS)


def test_torch_func_goes_on_working_unseen(path: Path):
    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, TARGET)

    expected = torch.func.grad(loss)(LOGITS)
    with pytest.warns(UserWarning, match="saw no call"), capture(path):
        gradient = torch.func.grad(loss)(LOGITS)
    assert torch.equal(gradient, expected)


def test_torch_compile_goes_on_working_unseen_in_one_graph(path: Path):
    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, TARGET)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    with pytest.warns(UserWarning, match="saw no call"), capture(path):
        value = compiled(LOGITS)
    assert torch.equal(value, loss(LOGITS))
