import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench import recordings
from xentbench.inputs import Recorded
from xentbench.spec import UsageError

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
TARGET = torch.tensor([0, 2])
Call = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def recorded(logits: torch.Tensor, target: torch.Tensor = TARGET, weight: torch.Tensor | None = None) -> Recorded:
    return Recorded(logits, target, weight, recordings.fingerprint(logits, target, weight))


def write(folder: Path, metadata: dict[str, str] | None = None, **tensors: torch.Tensor) -> Path:
    path = folder / "logits.safetensors"
    save_file(tensors, path, metadata)
    return path


def message(path: Path, **options: int) -> str:
    """Return the whole error of reading a bad file, after making sure that it is one line."""
    with pytest.raises(UsageError) as caught:
        recordings.from_file(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Draw valid arguments: every dtype, number of dimensions and kind of target, with and without weight."""
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    classes, rows = draw(st.integers(1, 5)), draw(st.lists(st.integers(1, 3), max_size=3))
    shape = (rows[0], classes, *rows[1:]) if rows else (classes,)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    logits = torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
    if draw(st.booleans()):
        target = torch.randint(-1, classes, rows, generator=generator)
        target[target < 0] = -100
    else:
        target = torch.rand(shape, generator=generator).to(dtype)
    weight = torch.rand(classes, generator=generator).to(dtype) if draw(st.booleans()) else None
    return logits, target, weight


@settings(deadline=None, max_examples=60)
@given(call=calls())
def test_a_recording_reads_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, call: Call):
    path = tmp_path_factory.mktemp("recording") / "logits.safetensors"
    recordings.save(path, *call)
    read = recordings.from_file(path)
    for came, expected in zip((read.logits, read.target, read.weight), call, strict=True):
        assert (came is None) == (expected is None)
        if came is not None and expected is not None:
            assert came.dtype == expected.dtype
            assert torch.equal(came, expected)
    assert read.sha256 == recordings.fingerprint(*call)


def test_fingerprint_is_the_published_one():
    assert recordings.fingerprint(LOGITS, TARGET, None) == (
        "2c8440a3996f7c8240d4af8da66c20e8210760d5b5c01ebd5d0b6e4a7747ab49"
    )


@pytest.mark.parametrize(
    "other",
    [
        (LOGITS + 0.5, TARGET, None),
        (LOGITS, TARGET + 1, None),
        (LOGITS, TARGET, torch.ones(3)),
        (LOGITS.reshape(3, 2), TARGET, None),
        (LOGITS.view(torch.int32), TARGET, None),
    ],
    ids=["values", "target", "weight", "shape", "dtype"],
)
def test_fingerprint_differs_with(other: Call):
    assert recordings.fingerprint(*other) != recordings.fingerprint(LOGITS, TARGET, None)


def test_fingerprint_does_not_depend_on_the_layout():
    transposed = LOGITS.T.contiguous().T
    assert recordings.fingerprint(transposed, TARGET, None) == recordings.fingerprint(LOGITS, TARGET, None)


def test_a_failed_save_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path, logits=LOGITS, target=TARGET)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        recordings.save(path, LOGITS + 1, TARGET, None)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_read_does_not_follow_the_file(tmp_path: Path):
    path = write(tmp_path, logits=LOGITS, target=TARGET)
    read = recordings.from_file(path)
    path.write_bytes(b"")
    assert torch.equal(read.logits, LOGITS)
    assert torch.equal(read.target, TARGET)


def test_no_such_file(tmp_path: Path):
    assert "nowhere.safetensors must be a safetensors file, got no such file" in message(
        tmp_path / "nowhere.safetensors"
    )


def test_a_folder(tmp_path: Path):
    assert "must be a safetensors file, got a folder" in message(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not what was asked for", b"\xff" * 64])
def test_not_safetensors(tmp_path: Path, content: bytes):
    path = tmp_path / "logits.safetensors"
    path.write_bytes(content)
    assert re.search("must be a readable safetensors file, got .*: write it with xentbench.capture or", message(path))


def test_a_file_cut_short(tmp_path: Path):
    path = write(tmp_path, logits=LOGITS, target=TARGET)
    path.write_bytes(path.read_bytes()[:-3])
    assert "must be a readable safetensors file" in message(path)


def test_missing_tensor_names_those_that_are_there(tmp_path: Path):
    path = write(tmp_path, logits=LOGITS, labels=TARGET)
    assert re.search(
        "hold the tensors logits and target, got (labels, logits|logits, labels): save target", message(path)
    )


def test_no_tensors_at_all(tmp_path: Path):
    assert "got none: save logits and target under that name too" in message(write(tmp_path))


BAD = {
    "integer logits": ({"logits": LOGITS.long()}, "logits must be one of float64, .*, got int64"),
    "scalar logits": ({"logits": torch.tensor(1.0)}, r"logits must be \(C,\), .* got a single number"),
    "no rows": ({"logits": LOGITS[:0], "target": TARGET[:0]}, r"at least, got shape \(0, 3\)"),
    "no classes": ({"logits": LOGITS[:, :0]}, r"at least, got shape \(2, 0\)"),
    "int32 target": ({"target": TARGET.int()}, r"got int32: save target.to\(torch.int64\)"),
    "uint8 target": ({"target": TARGET.to(torch.uint8)}, r"got uint8: save target.to\(torch.int64\)"),
    "floating indices": ({"target": TARGET.float()}, r"got float32: save target.to\(torch.int64\)"),
    "wrong length": (
        {"target": torch.tensor([0, 1, 2])},
        r"target must have shape \(2,\) .*, got int64 of shape \(3,\)",
    ),
    "integer one-hot": ({"target": torch.eye(3)[TARGET].long()}, r"got int64 of shape \(2, 3\): save target.float\(\)"),
    "classes last": (
        {"logits": torch.zeros(2, 4, 3), "target": torch.zeros(2, 4).long()},
        r"target must have shape \(2, 3\) .* \(2, 4\): .* save logits.movedim\(-1, 1\)",
    ),
    "label too large": (
        {"target": torch.tensor([0, 7])},
        r"class indices in \[0, 3\) or ignore_index -100, got 7 and 0",
    ),
    "negative label": ({"target": torch.tensor([-1, -1])}, r"got -1 and 1 more outside: .* the ignore_index that"),
    "labels from 1": ({"target": torch.tensor([1, 3])}, r"got 3 .* save target - 1 if labels count from 1"),
    "weight size": ({"weight": torch.ones(2)}, r"weight must be floating and have shape \(3,\), .* of shape \(2,\)"),
    "weight dtype": ({"weight": torch.ones(3).long()}, r"weight must be floating .*, got int64 of shape \(3,\)"),
}


@pytest.mark.parametrize(("tensors", "expected"), BAD.values(), ids=BAD)
def test_bad_tensors(tmp_path: Path, tensors: dict[str, torch.Tensor], expected: str):
    path = write(tmp_path, **({"logits": LOGITS, "target": TARGET} | tensors))
    came = message(path)
    assert str(path) in came
    assert re.search(expected, came)


def test_ignore_index_is_the_argument_then_the_recorded_calls_then_the_default(tmp_path: Path):
    path = write(tmp_path, {"ignore_index": "-1"}, logits=LOGITS, target=torch.tensor([0, -1]))
    assert recordings.from_file(path).target.tolist() == [0, -1]
    assert "ignore_index -7" in message(path, ignore_index=-7)
    path = write(tmp_path, logits=LOGITS, target=torch.tensor([0, -100]))
    assert recordings.from_file(path).target.tolist() == [0, -100]


def test_recorded_options_have_their_types(tmp_path: Path):
    options = {"ignore_index": "-1", "reduction": "sum", "label_smoothing": "0.1", "note": "x"}
    path = write(tmp_path, options, logits=LOGITS, target=TARGET)
    assert recordings.recorded_options(path) == {"ignore_index": -1, "reduction": "sum", "label_smoothing": 0.1}
    assert recordings.recorded_options(write(tmp_path, logits=LOGITS, target=TARGET)) == {}


def test_an_option_that_is_no_number(tmp_path: Path):
    path = write(tmp_path, {"ignore_index": "padding"}, logits=LOGITS, target=TARGET)
    assert "options in the metadata must be numbers, got" in message(path)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    shape=st.sampled_from([(7,), (5, 2), (3, 1000), (2, 9, 4)]),
    spread=st.sampled_from([0.1, 1.0, 20.0]),
)
def test_a_softmax_is_told_from_its_logits(seed: int, dtype: torch.dtype, shape: tuple[int, ...], spread: float):
    logits = (spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
    axis = 1 if len(shape) > 1 else 0
    assert recordings.looks_like_probabilities(logits.softmax(axis))
    assert not recordings.looks_like_probabilities(logits)
    assert recordings.cautions(recorded(logits.softmax(axis))) == (recordings.PROBABILITIES,)
    assert recordings.cautions(recorded(logits.log_softmax(axis))) == (recordings.LOG_PROBABILITIES,)
    assert recordings.cautions(recorded(logits)) == ()


def test_a_softmax_over_a_large_vocabulary_in_half_precision_is_told_too():
    logits = 3 * torch.randn(4, 128_000, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        assert recordings.looks_like_probabilities(logits.softmax(1).to(dtype))


@pytest.mark.parametrize(
    "logits", [torch.ones(4, 1), torch.zeros(0, 3), torch.zeros(2, 3), torch.full((2, 3), torch.nan)]
)
def test_what_tells_nothing_is_not_called_probabilities(logits: torch.Tensor):
    assert not recordings.looks_like_probabilities(logits)


def test_one_row_that_does_not_sum_to_one_is_enough():
    rows = torch.full((3, 4), 0.25)
    rows[1, 2] = 0.5
    assert not recordings.looks_like_probabilities(rows)


def test_cautions_about_nan_and_about_targets_that_are_no_probabilities():
    logits = LOGITS.clone()
    logits[0, 1] = torch.nan
    said = recordings.cautions(recorded(logits, torch.tensor([[0.5, 0.5, 0.0], [2.0, 0.0, -1.0]])))
    assert [line.partition(":")[0] for line in said] == [
        "logits hold NaN or +inf in 1 rows",
        "target holds values outside [0, 1]",
    ]


def test_masked_classes_raise_no_caution():
    logits = LOGITS.clone()
    logits[:, 1] = -torch.inf
    assert recordings.cautions(recorded(logits)) == ()
    assert F.cross_entropy(logits, TARGET).isfinite()
