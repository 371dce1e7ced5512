"""What torch.compile did is noticed. The `eager` backend traces as the real one does and needs no compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_fixtures import plugin

from xentbench import workers
from xentbench.spec import Description, Phase, Source, Status
from xentbench.workers import Worker, WorkerError

PLUGIN = """
def entrant(name):
    return implementation(name, factory=True, compiles=True)

@entrant("compiles")
def compiles():
    return torch.compile(F.cross_entropy, backend="eager", fullgraph=True, dynamic=False)

@entrant("runs-eagerly")
def runs_eagerly():
    return F.cross_entropy

@entrant("breaks-its-graph")
def breaks():
    def loss(input, target, **options):
        torch._dynamo.graph_break()
        return F.cross_entropy(input + 0, target, **options)
    import torch._dynamo
    return torch.compile(loss, backend="eager", dynamic=False)

calls = []

@entrant("compiles-again")
def compiles_again():
    kept = []
    def loss(input, target, **options):
        return F.cross_entropy(input, target, **options) + len(kept) * 0
    inner = torch.compile(loss, backend="eager", fullgraph=True, dynamic=False)
    def outer(input, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        calls.append(1)
        if len(calls) == 40:
            kept.append(1)
        return inner(input, target)
    return outer

@entrant("cannot-compile")
def cannot():
    def loss(input, target, **options):
        if input.sum() > 0:
            return F.cross_entropy(input, target)
        return F.cross_entropy(input * 1, target)
    return torch.compile(loss, backend="eager", fullgraph=True, dynamic=False)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin(tmp_path_factory.mktemp("compiling"), PLUGIN)


def set_up(worker: Worker, file: Path, name: str):
    workers.load(worker, Description(name, Source("file", str(file)), file.name), threads=1)
    return worker.ask("set-up", {"problem": "N=8,C=10", "seed": 0, "phases": list(Phase)})


def test_every_phase_is_compiled_in_set_up_and_none_in_the_window(file: Path):
    with Worker() as worker:
        reply, _ = set_up(worker, file, "compiles")
        assert reply["unique_graphs"] == 2
        for phase in Phase:
            worker.ask("begin", {"phase": phase, "warm_calls": 3, "warm_s": 1.0})
            _, times = worker.ask("burst", {"seed": 1, "budget_s": 0.0, "least_rounds": 5, "most_rounds": 5})
            assert times["wall_ns"].shape == (5, 3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("runs-eagerly", "torch.compile was never used"),
        ("breaks-its-graph", "broke its graph"),
        ("cannot-compile", "Unsupported"),
    ],
)
def test_what_runs_eagerly_is_a_failed_set_up_and_never_a_time(file: Path, name: str, told: str):
    with Worker() as worker, pytest.raises(WorkerError) as caught:
        set_up(worker, file, name)
    assert caught.value.status is Status.SET_UP_FAILED
    assert told in caught.value.reason


def test_a_compilation_while_the_clock_runs_ends_the_cell(file: Path):
    with Worker() as worker:
        set_up(worker, file, "compiles-again")
        worker.ask("begin", {"phase": Phase.FORWARD, "warm_calls": 2, "warm_s": 1.0})
        with pytest.raises(WorkerError) as caught:
            worker.ask("burst", {"seed": 1, "budget_s": 0.0, "least_rounds": 60, "most_rounds": 60})
    assert caught.value.status is Status.RAISED
    assert "recompile" in caught.value.reason.lower()
