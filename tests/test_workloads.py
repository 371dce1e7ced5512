import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench import inputs, recordings, workloads
from xentbench.spec import Problem, UsageError

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
TARGET = torch.tensor([0, 2])
FILE = Problem(logits="file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "logits.safetensors"
    recordings.save(path, LOGITS, TARGET, None)
    return path


def message(problem: Problem, path: Path | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        workloads.resolve(problem, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits_are_resolved_by_their_plain_name_and_by_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sklearn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem, recorded = workloads.resolve(Problem(logits="digits", reduction="sum"))
    assert (problem.batch_size, problem.num_classes, problem.dims) == (512, 10, ())
    assert problem.logits == f"digits@{recorded.sha256[:12]}"
    assert problem.reduction == "sum"
    again, same = workloads.resolve(Problem.parse(problem.key))
    assert again == problem
    assert same.sha256 == recorded.sha256
    came = message(dataclasses.replace(problem, logits="digits@0123456789ab"))
    assert f"SHA-256 0123456789ab, got {recorded.sha256[:12]} here: recorded logits depend on machine and torch" in came
    assert came.endswith("so ask for the plain logits=digits")


def test_what_a_worker_is_asked_is_the_recording(path: Path):
    problem, recorded = workloads.resolve(FILE, path)
    made = inputs.make(problem, seed=3, recorded=recorded)
    assert torch.equal(made.logits, LOGITS)
    assert torch.equal(made.target, TARGET)
    assert made.weight is None
    scaled = inputs.make(dataclasses.replace(problem, scale=2.0, dtype="float64"), seed=3, recorded=recorded)
    assert torch.equal(scaled.logits, 2 * LOGITS.double())


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_sizes_follow_the_recording(path: Path, shape: tuple[int, ...]):
    logits = torch.zeros(shape)
    recordings.save(path, logits, logits.argmax(1 if len(shape) > 1 else 0), None)
    problem, _ = workloads.resolve(FILE, path)
    assert problem.logits_shape == shape


@settings(deadline=None, max_examples=50)
@given(
    shape=st.sampled_from([(3,), (2, 3), (2, 12), (2, 3, 4)]),
    soft=st.booleans(),
    weighted=st.booleans(),
    dtype=st.sampled_from(["float32", "float64", "bfloat16"]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
)
def test_resolving_a_resolved_key_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    shape: tuple[int, ...],
    soft: bool,
    weighted: bool,
    dtype: str,
    reduction: str,
):
    path = tmp_path_factory.mktemp("file") / "logits.safetensors"
    axis = 1 if len(shape) > 1 else 0
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    target = logits.softmax(axis) if soft else logits.argmax(axis)
    recordings.save(path, logits, target, torch.ones(shape[axis]) if weighted else None)
    problem, _ = workloads.resolve(Problem(logits="file", dtype=dtype, reduction=reduction), path)
    again, recorded = workloads.resolve(Problem.parse(problem.key), path)
    assert again == problem
    assert (problem.dtype, problem.reduction) == (dtype, reduction)
    made = inputs.make(problem, seed=0, recorded=recorded)
    assert made.logits.shape == problem.logits_shape
    loss = F.cross_entropy(made.logits, made.target, made.weight, reduction=reduction)
    assert loss.shape == made.upstream.shape


def test_probabilities_give_the_kind_of_target(path: Path):
    soft = LOGITS.softmax(1)
    recordings.save(path, LOGITS, soft, None)
    assert workloads.resolve(FILE, path)[0].target == "soft"
    recordings.save(path, LOGITS, 2 * soft, None)
    assert workloads.resolve(FILE, path)[0].target == "unnormalised"


def test_a_recorded_weight_is_used(path: Path):
    weight = torch.tensor([1.0, 2.0, 0.5])
    recordings.save(path, LOGITS, TARGET, weight)
    problem, recorded = workloads.resolve(FILE, path)
    assert problem.weight == "recorded"
    made = inputs.make(problem, seed=0, recorded=recorded)
    assert made.weight is not None
    assert torch.equal(made.weight, weight)


def test_a_family_of_weights_goes_with_a_recording_that_has_none(path: Path):
    problem, recorded = workloads.resolve(dataclasses.replace(FILE, weight="random"), path)
    assert problem.weight == "random"
    made = inputs.make(problem, seed=0, recorded=recorded)
    assert made.weight is not None
    assert made.weight.shape == (3,)


def test_the_files_ignore_index_holds_unless_another_is_set(path: Path):
    recordings.save(path, LOGITS, torch.tensor([0, -1]), None, ignore_index="-1")
    problem, _ = workloads.resolve(FILE, path)
    assert problem.ignore_index == -1
    assert workloads.resolve(Problem.parse(problem.key), path)[0] == problem
    assert "or ignore_index -7, got -1" in message(dataclasses.replace(FILE, ignore_index=-7), path)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"labels": "zipf"}, "labels must be left out with recorded logits, which bring their target, got zipf"),
        ({"ignored": 0.25}, "ignored must be left out with recorded logits, which bring their target, got 0.25"),
        ({"batch_size": 4}, "batch size must agree with the recording (2) or be left out, got 4"),
        ({"num_classes": 7}, "num classes must agree with the recording (3) or be left out, got 7"),
        ({"batch_size": 2, "dims": (5,)}, "dims must agree with the recording (()) or be left out, got (5,)"),
        ({"target": "soft"}, "target must agree with the recording (index) or be left out, got soft"),
        ({"weight": "recorded"}, "weight 'recorded' needs a recording that holds a weight, got none: leave it out"),
        ({"weight": "absent-only"}, "weight 'absent-only' was expected with synthetic labels only"),
        ({"logits": "file@0123"}, "must have the SHA-256 0123, got "),
    ],
)
def test_an_axis_that_makes_no_sense_is_refused(path: Path, axes: dict[str, object], expected: str):
    problem = dataclasses.replace(FILE, **axes)
    came = message(problem, path)
    assert came.startswith(f"problem {problem.key}: ")
    assert expected in came


def test_another_weight_than_the_recorded_is_refused(path: Path):
    recordings.save(path, LOGITS, TARGET, torch.ones(3))
    came = message(dataclasses.replace(FILE, weight="random"), path)
    assert "weight must agree with the recording (recorded) or be left out, got random" in came


def test_a_recorded_weight_needs_recorded_logits():
    with pytest.raises(UsageError, match="weight 'recorded' needs recorded logits, got the family 'normal'"):
        Problem(weight="recorded")


def test_unknown_names_and_a_missing_file_are_refused():
    assert "logits 'digit' is unknown: did you mean 'digits'?" in message(Problem(logits="digit"))
    assert "logits 'file' must come with a safetensors file, got none: give --logits" in message(FILE)
    with pytest.raises(UsageError, match="logits 'normal' is unknown"):
        workloads.record("normal")
