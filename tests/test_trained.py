import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from xentbench import trained
from xentbench.inputs import Recorded


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """Train the language model once for all tests."""
    pytest.importorskip("pydoc_data.topics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("text-cache")))
        yield trained.text()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xentbench" / "workloads"


def forget() -> None:
    """Let the next call read the cache as a new process would."""
    trained._kept.cache_clear()


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any training fail."""

    def fail(_: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        pytest.fail("trained again")

    for name in ("digits", "text"):
        monkeypatch.setitem(trained._TRAINERS, name, fail)


def test_digits_are_real_logits_of_a_classifier_that_has_learnt():
    pytest.importorskip("sklearn")
    recorded = trained.digits()
    assert recorded.logits.shape == (512, 10)
    assert (recorded.logits.dtype, recorded.target.dtype) == (torch.float32, torch.int64)
    assert recorded.weight is None
    accuracy = (recorded.logits.argmax(1) == recorded.target).float().mean().item()
    assert 0.9 < accuracy < 1.0
    assert recorded.target.unique().tolist() == list(range(10))


def test_digits_are_the_same_each_time_whatever_the_threads_and_the_callers_state():
    pytest.importorskip("sklearn")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first = trained._train_digits(torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    torch.set_num_threads(2)
    moved = torch.get_rng_state()
    try:
        with torch.inference_mode():
            recorded = trained.digits()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), moved)
    torch.set_rng_state(state)
    assert torch.equal(recorded.logits, first[0])
    assert torch.equal(recorded.target, first[1])


def test_the_second_time_comes_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sklearn")
    first = trained.digits()
    (path,) = folder.iterdir()
    assert path.name.startswith(f"digits-recipe{trained.RECIPE}-torch{torch.__version__}-python")
    forget()
    refuse(monkeypatch)
    second = trained.digits()
    assert second.sha256 == first.sha256
    assert torch.equal(second.logits, first.logits)
    assert torch.equal(second.target, first.target)


def test_writing_into_the_result_does_not_reach_the_next_one():
    pytest.importorskip("sklearn")
    first = trained.digits()
    kept = first.logits.clone()
    first.logits.zero_()
    first.target.zero_()
    assert torch.equal(trained.digits().logits, kept)
    assert trained.digits().target.any()


def _cut(content: bytes) -> bytes:
    return content[:100]


def _flip_the_last_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _nothing(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("spoil", [_cut, _flip_the_last_bit, _nothing])
def test_a_corrupt_cache_is_made_again(folder: Path, spoil):
    pytest.importorskip("sklearn")
    first = trained.digits()
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(spoil(good))
    forget()
    assert trained.digits().sha256 == first.sha256
    assert path.read_bytes() == good


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path):
    pytest.importorskip("sklearn")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert trained.digits().logits.shape == (512, 10)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert trained.cache_folder() == tmp_path / "cache" / "xentbench" / "workloads"
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert trained.cache_folder() == tmp_path / ".cache" / "xentbench" / "workloads"


@pytest.mark.parametrize(
    ("module", "make", "reason"),
    [
        (
            "sklearn.datasets",
            trained.digits,
            r"the digits workload needs scikit-learn: pip install 'xentbench\[workloads\]'",
        ),
        ("pydoc_data.topics", trained.text, "the text workload needs pydoc_data, which this Python ships without"),
    ],
)
def test_what_is_missing_is_the_reason(monkeypatch: pytest.MonkeyPatch, module: str, make, reason: str):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(trained.WorkloadUnavailableError, match=reason):
        make()


def test_text_has_its_shape_and_real_words(text: Recorded):
    assert text.logits.shape == (128, 8192)
    assert (text.logits.dtype, text.target.dtype) == (torch.float32, torch.int64)
    assert int(text.target.min()) >= 0
    assert 40 < text.target.unique().numel() < 128


def test_text_has_learnt_more_than_how_common_each_word_is(text: Recorded):
    rows, _ = trained._text_rows()
    counts = torch.bincount(rows[:, -1], minlength=8192) + 0.5
    unigram = -(counts / counts.sum()).log()[text.target].mean().item()
    loss = F.cross_entropy(text.logits, text.target).item()
    assert loss < unigram - 0.2
    assert loss < math.log(8192) - 1.5


def test_text_words_are_numbered_from_the_commonest(text: Recorded):
    rows, held_out = trained._text_rows()
    counts = torch.bincount(torch.cat([rows, held_out])[:, -1], minlength=8192)
    assert torch.equal(counts[1:], counts[1:].sort(descending=True).values)
    share = counts[1:11].sum() / counts.sum()
    assert 0.1 < share.item() < 0.5  # Zipf's law: ten words make up about a quarter of a text
    known = {tuple(row) for row in held_out.tolist()}
    assert {int(number) for number in text.target} <= {row[-1] for row in known}


@pytest.mark.parametrize("name", ["digits", "text"])
def test_a_course_is_the_same_for_one_seed_and_another_for_another(name: str):
    pytest.importorskip("sklearn")
    one, same, other = (trained.course(name, seed) for seed in (2**64 + 3, 2**64 + 3, 4))
    for attribute in ("inputs", "target"):
        assert torch.equal(getattr(one.lesson, attribute), getattr(same.lesson, attribute))
        assert not torch.equal(getattr(one.lesson, attribute), getattr(other.lesson, attribute))
    assert all(map(torch.equal, one.lesson.weights, same.lesson.weights))
    assert not torch.equal(one.lesson.weights[0], other.lesson.weights[0])
    assert one.lesson.steps == trained.PACES[name].steps >= 200
    assert one.lesson.logits(one.lesson.weights, 0).shape == (
        trained.PACES[name].rows,
        {"digits": 10, "text": 8192}[name],
    )
    assert len(one.held_target) == len(one.held_inputs) == trained.HELD_OUT_ROWS
