from __future__ import annotations

import copy
from pathlib import Path

import pytest

from xentbench import environment, resuming
from xentbench.shards import Shard
from xentbench.spec import UsageError

HEAD = {
    "run": "nightly",
    "environment": dict.fromkeys(environment.RESUMABLE, "same"),
    "plan": {"problems": ["N=8,C=10", "N=8,C=20"], "phases": ["forward"], "workers": 3, "seed": None},
    "implementations": [
        {"name": "mine", "origin": "losses.py", "status": "passed", "reason": "", "code": "00"},
        {"name": "naive", "origin": "implementations/naive.py", "status": "passed", "reason": "", "code": "11"},
    ],
}


def changed(*path: object, value: object) -> dict:
    head = copy.deepcopy(HEAD)
    place = head
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return head


def test_what_did_not_change_goes_on():
    resuming.demand_same(HEAD, copy.deepcopy(HEAD))
    resuming.demand_same(HEAD, changed("environment", "kernel", value="another"))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (changed("environment", "torch", value="2.14"), r"torch \(was same, is 2.14\)"),
        (changed("environment", "numpy", value="3"), "numpy"),
        (changed("environment", "cpu", value="another"), r"cpu \(was same, is another\)"),
        (changed("environment", "threads", value=2), "threads"),
        (changed("plan", "problems", value=["N=8,C=10", "N=9,C=3"]), "problems .without N=8,C=20 and with N=9,C=3"),
        (changed("plan", "problems", value=["N=8,C=20", "N=8,C=10"]), r"problems \(their order\)"),
        (changed("plan", "workers", value=5), r"the workers \(was 3, is 5\)"),
        (changed("plan", "seed", value=7), r"the seed \(was None, is 7\)"),
        (changed("implementations", 0, "code", value="22"), r"the source of mine \(losses.py\)"),
        (changed("implementations", 1, "status", value="import-failed"), "whether naive can be asked"),
    ],
)
def test_what_changed_is_refused_by_name_in_one_sentence(now, told: str):
    with pytest.raises(UsageError, match=told) as refused:
        resuming.demand_same(HEAD, now)
    assert "run nightly cannot be continued" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_run_json_holds_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert resuming.placed(str(tmp_path / "mine" / "losses.py")) == "mine/losses.py"
    assert resuming.placed("/elsewhere/losses.py:loss") == "losses.py:loss"
    assert resuming.placed("../losses.py") == "../losses.py"


def test_the_command_that_goes_on_repeats_what_it_could_not_find_from_here(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = "results/runs"
    near = {"--plugin": [str(tmp_path / "losses.py")], "": ["naive", "mine.py:loss"]}
    assert resuming.command("r", Shard(), runs, near) == "xentbench bench --resume r"
    far = {"--plugin": ["/else where/losses.py"], "": ["naive"]}
    expected = "xentbench bench --resume r --shard 3/8 --results out --plugin '/else where/losses.py'"
    assert resuming.command("r", Shard(3, 8), "out", far) == expected
