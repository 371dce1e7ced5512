import numpy as np
import pytest
import torch

from xentbench.replies import Reply
from xentbench.spec import Status
from xentbench.workers import WorkerError

RECORD = {
    "elapsed_ns": 900,
    "cpu_ns": 880,
    "began_ns": 1000,
    "whole_ns": 950,
    "changed": [],
    "leaks": "",
    "shared": "",
    "delegates": False,
}


def tables(rounds=4, metered=0, losses=(4, 1), primes=4):
    one = {name: torch.full((rows, 3), 100) for name, rows in (("wall_ns", rounds), ("prime_ns", primes))}
    read = {name: torch.full((metered, 3), 90) for name in ("busy_ns", "faults")}
    return {**one, **read, "losses": torch.zeros(losses, dtype=torch.float64)}


def test_a_reply_is_read_as_it_was_told():
    reply = Reply.read(RECORD | {"changed": ["torch.exp"], "delegates": True}, tables(metered=4))
    assert reply.burst.wall_ns.shape == (4, 3)
    assert np.array_equal(reply.burst.busy_ns, np.full((4, 3), 90))
    assert (reply.burst.elapsed_ns, reply.burst.cpu_ns, reply.began_ns, reply.whole_ns) == (900, 880, 1000, 950)
    assert reply.changed == ("torch.exp",)
    assert reply.delegates


@pytest.mark.parametrize("name", RECORD)
def test_a_reply_that_leaves_something_out_is_forged(name: str):
    with pytest.raises(WorkerError) as caught:
        Reply.read({key: value for key, value in RECORD.items() if key != name}, tables())
    assert caught.value.status is Status.FORGED


@pytest.mark.parametrize(
    "damaged",
    [
        *(tables(metered=2), tables(losses=(3, 1)), tables(losses=(4,)), tables(primes=3)),
        tables() | {"wall_ns": torch.zeros(5, dtype=torch.int64)},
        {name: table for name, table in tables().items() if name != "prime_ns"},
    ],
    ids=["half metered", "a loss too few", "a flat table of losses", "a prime too few", "not three arms", "no primes"],
)
def test_tables_that_do_not_fit_each_other_are_forged(damaged: dict[str, torch.Tensor]):
    with pytest.raises(WorkerError, match="its times are not understood") as caught:
        Reply.read(RECORD, damaged)
    assert caught.value.status is Status.FORGED


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        ({"began_ns": 799}, Status.TAMPERED, "before it was asked for"),
        ({"changed": []}, Status.TAMPERED, "does not see what was planted"),
        ({"changed": ["planted 7", "a", "b", "c", "d"]}, Status.TAMPERED, "changed a, b, c and more"),
        ({"changed": ["planted 7"], "leaks": "3 threads"}, Status.LEAKING, "3 threads"),
        ({"changed": ["planted 7"], "shared": "two losses"}, Status.ALIASED, "two losses"),
    ],
)
def test_what_a_watch_tells_is_judged(told: dict[str, object], status: Status, words: str):
    with pytest.raises(WorkerError, match=words) as caught:
        Reply.read(RECORD | told, tables()).check("planted 7", 800)
    assert caught.value.status is status


def test_who_has_changed_nothing_passes():
    Reply.read(RECORD, tables()).check("", 1000)
    Reply.read(RECORD | {"changed": ["planted 7"]}, tables()).check("planted 7", 1000)
