"""Training by real workers: everybody ends in a status of their own, and nobody else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_sweep import Looking
from training_fixtures import STEPS, small_course
from worker_fixtures import ONE_GOOD, plugin

from xentbench import trained, training, workers
from xentbench.spec import Source, Status
from xentbench.trained import WorkloadUnavailableError
from xentbench.training import Terms, Trained

LOSSES = (
    ONE_GOOD
    + """
import itertools, os, sys, time
from xentbench.spec import WorkContract
calls = itertools.count()

def planted(name, **declared):
    def plant(fault):
        @implementation(name, **declared)
        def loss(input, target):
            return fault(F.cross_entropy(input, target), input, target, next(calls))
        return loss
    return plant

steep = planted("steep")(lambda loss, *_: loss * 1.01)
says_else = planted("says-else")(lambda loss, *_: loss + (loss.detach() * 0.01))
nan_late = planted("nan-late")(lambda loss, *rest: loss * float("nan") if rest[-1] > 20 else loss)
no_gradient = planted("no-gradient")(lambda loss, *_: loss.detach())
no_tensor = planted("no-tensor")(lambda loss, *_: 0.5)
two_only = planted("two-only", supports=lambda problem: "knows two classes")(lambda loss, *_: loss)

@planted("raises-late")
def raises(loss, input, target, call):
    if call > 20: raise ValueError("tired of [bold]training[/bold]\\x1b[31m")
    return loss

@planted("exits")
def exits(loss, input, target, call):
    if call > 20: os._exit(3)
    return loss

@planted("aborts")
def aborts(loss, input, target, call):
    if call > 20: os.abort()
    return loss

@planted("hangs")
def hangs(loss, input, target, call):
    while call > 20: time.sleep(0.1)
    return loss

@planted("slow")
def slow(loss, input, target, call):
    time.sleep(0.2)
    return loss

@planted("writes")
def writes(loss, input, target, call):
    if call > 20: input.data.zero_()
    return loss

@planted("may-write", work=WorkContract(overwrites_input=True))
def may_write(loss, input, target, call):
    input.data.zero_()
    return loss
"""
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every course be the small one, and limits short."""
    monkeypatch.setattr(trained, "course", small_course)
    monkeypatch.setattr(training, "WORKLOADS", ("digits",))
    monkeypatch.setattr(training, "BUDGET_S", 3.0)
    monkeypatch.setattr(workers, "DEADLINES_S", {**workers.DEADLINES_S, "train": 6.0})


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict:
    file = plugin(tmp_path_factory.mktemp("training"), LOSSES)
    return {entry.name: entry for entry in workers.describe(Source("file", str(file)), [])}


def came(entries: dict, *names: str, terms: Terms | None = None) -> dict[str, Trained]:
    found: list[Trained] = []
    training.train_all([entries[name] for name in names], 7, Looking(), found.append, terms)
    return {one.implementation: one for one in found}


def test_everybody_ends_in_a_status_of_their_own(entries):
    ends = {
        "good": (Status.PASSED, ""),
        "steep": (Status.TRAINS_DIFFERENTLY, "at step 1 the loss is"),
        "says-else": (Status.WRONG_VALUE, "at step 0 the loss that it reports is"),
        "nan-late": (Status.TRAINS_DIFFERENTLY, "the loss is nan"),
        "no-gradient": (Status.RAISED, "does not require grad"),
        "no-tensor": (Status.WRONG_TYPE, "must be a torch.Tensor, got float"),
        "two-only": (Status.UNSUPPORTED, "knows two classes"),
        "raises-late": (Status.RAISED, "ValueError: tired"),
        "exits": (Status.EXITED, "left with code 3"),
        "aborts": (Status.CRASHED, "SIGABRT"),
        "hangs": (Status.TIMED_OUT, "train did not end within"),
        "slow": (Status.SKIPPED, "within 3 s: too slow to be trained with"),
        "writes": (Status.MUTATES_INPUT, "logits at step"),
        "may-write": (Status.PASSED, ""),
    }
    found = came(entries, *ends)
    assert {name: one.status for name, one in found.items()} == {name: status for name, (status, _) in ends.items()}
    for name, (_, told) in ends.items():
        assert told in found[name].reason, name
        assert "\x1b" not in found[name].reason
    assert found["good"].curve_ratio == found["good"].weights_ratio == 0.0


def test_what_passed_has_its_curve_within_its_band_and_tells_how_it_ended(entries):
    one = came(entries, "good")["good"]
    assert one.steps == STEPS == len(one.losses)
    assert all(low < loss < high for low, loss, high in zip(one.losses_low, one.losses, one.losses_high, strict=True))
    assert one.held_out_loss < one.losses[0]
    assert one.held_out_accuracy > 0.9
    assert one.wall_s > 0
    assert one.reproduce.endswith("--train --grid quick")


def test_a_curve_that_is_no_number_is_null_from_there_on_and_its_distance_too(entries):
    one = came(entries, "nan-late")["nan-late"]
    assert None in one.losses
    assert one.losses[0] is not None
    assert one.curve_ratio is one.weights_ratio is one.held_out_loss is None


def test_a_lost_worker_is_replaced_but_a_hang_is_not_waited_for_twice(entries, monkeypatch):
    monkeypatch.setattr(training, "WORKLOADS", ("digits", "again"))
    found: list[Trained] = []
    training.train_all([entries["exits"], entries["hangs"]], 7, Looking(), found.append)
    told = {name: [one.reason for one in found if one.implementation == name] for name in ("exits", "hangs")}
    assert told["exits"] == ["train: left with code 3 and no answer"] * 2
    assert told["hangs"][1].startswith("not trained again after: train did not end")


def test_what_was_trained_is_not_trained_again_and_who_is_barred_is_told_why(entries):
    terms = Terms(done=frozenset({("good", "digits")}), barred={"steep": "no answer of it was right"})
    found = came(entries, "good", "steep", terms=terms)
    assert set(found) == {"steep"}
    assert (found["steep"].status, found["steep"].reason) == (Status.SKIPPED, "no answer of it was right")


def test_no_training_begins_once_it_is_late(entries):
    one = came(entries, "good", terms=Terms(late=lambda: "the budget was spent"))["good"]
    assert (one.status, one.reason) == (Status.SKIPPED, "the budget was spent")


def test_who_was_not_begun_with_has_no_time(entries, monkeypatch):
    monkeypatch.setattr(training, "WORKLOADS", ("digits", "again"))
    late = iter(["", "", "the budget was spent"])
    found: list[Trained] = []
    training.train_all([entries["good"]], 7, Looking(), found.append, Terms(late=lambda: next(late)))
    begun, skipped = found
    assert (begun.status, skipped.status, skipped.reason) == (Status.PASSED, Status.SKIPPED, "the budget was spent")
    assert begun.wall_s > 0
    assert skipped.wall_s is None


def test_where_the_data_is_missing_everybody_is_skipped_with_that_reason(entries, monkeypatch):
    def missing(_name: str, _seed: int):
        raise WorkloadUnavailableError("the digits workload needs scikit-learn")

    monkeypatch.setattr(trained, "course", missing)
    found = came(entries, "good", "steep")
    assert {(one.status, one.reason) for one in found.values()} == {
        (Status.SKIPPED, "the digits workload needs scikit-learn")
    }


def test_weights_of_another_form_are_forged(entries, monkeypatch):
    lesson = small_course().lesson
    answered = {f"weight{number}": weight for number, weight in enumerate(lesson.weights)}
    curve = lesson.target[:, 0].double()
    good = {**answered, "losses": curve, "reported": curve}
    assert training._read(lesson, {"changed": []}, good).changed == ()
    spoilt = [
        {**good, "weight0": good["weight0"][1:]},
        {**good, "weight1": good["weight1"].double()},
        {**good, "losses": curve.float()},
        {**good, "reported": curve[1:]},
        {**good, "losses": curve.repeat(2), "reported": curve.repeat(2)},
    ]
    for answer in spoilt:
        with pytest.raises(ValueError, match="another form"):
            training._read(lesson, {"changed": []}, answer)
    with pytest.raises(KeyError):
        training._read(lesson, {"changed": []}, {})


def test_one_that_writes_after_its_last_answer_is_not_believed(tmp_path: Path):
    late = (
        "import os\ndef leave(code, leave=os._exit):\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'1234')\n        except OSError: pass\n    leave(code)\nos._exit = leave\n"
    )
    (entry,) = workers.describe(Source("file", str(plugin(tmp_path, late + ONE_GOOD))), [])
    one = came({"good": entry}, "good")["good"]
    assert one.status is Status.FORGED
    assert one.curve_ratio is None
