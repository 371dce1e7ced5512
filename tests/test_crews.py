from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_fixtures import ONE_GOOD, plugin

from xentbench import crews, templates
from xentbench.crews import Crew, Examinee, Purse
from xentbench.posing import Questions
from xentbench.spec import Description, Phase, Problem, Source, Status

PROBLEM = Problem(batch_size=8, num_classes=10)


@given(st.lists(st.tuples(st.sampled_from([1.0, 3.0]), st.integers(1, 9)), min_size=1, max_size=20), st.floats(1, 1000))
def test_a_purse_is_never_overdrawn(cells: list[tuple[float, int]], left_s: float):
    purse = Purse(deadline_s=left_s, weight_left=sum(weight * workers for weight, workers in cells), problems_left=0)
    now_s = 0.0
    for weight, workers in cells:
        now_s += workers * purse.share_s(now_s, weight, workers, limit_s=1e9)
    assert now_s == pytest.approx(left_s)


def test_a_purse_keeps_time_for_the_set_up_that_is_still_to_come():
    purse = Purse(deadline_s=100.0, weight_left=10.0, problems_left=4)
    purse.paid_overhead(300.0)
    purse.paid_overhead(20.0)
    assert purse.share_s(20.0, 1.0, 1, limit_s=100.0) == pytest.approx((100 - 20 - 40) / 10)
    assert purse.share_s(99.0, 1.0, 1, limit_s=100.0) == 0.0
    assert Purse(100.0, 10.0, 0).share_s(0.0, 1.0, 1, limit_s=0.5) == 0.5


def test_what_the_first_problem_pays_for_all_is_not_kept_for_each_other():
    purse = Purse(deadline_s=400.0, weight_left=10.0, problems_left=6)
    purse.paid_overhead(43.0)
    assert purse.share_s(110.0, 3.0, 1, limit_s=100.0) == pytest.approx(290.0 * 2 / 3 * 3 / 10)
    purse.paid_overhead(3.0)
    assert purse.share_s(200.0, 3.0, 1, limit_s=100.0) == pytest.approx((200.0 - 4 * 3.0) * 3 / 7)


def test_cells_that_take_longer_than_they_were_given_leave_the_last_its_share():
    purse, now_s, spent_s = Purse(deadline_s=100.0, weight_left=100.0, problems_left=0), 0.0, []
    for _ in range(10):
        spent_s.append(2.0 * 10 * purse.share_s(now_s, 1.0, 10, limit_s=1e9))
        purse.paid(10.0, spent_s[-1])
        now_s += spent_s[-1]
    assert now_s <= 100.0
    assert spent_s[-1] == pytest.approx(spent_s[1], rel=0.02)


def test_few_large_problems_keep_all_that_their_set_up_costs():
    purse = Purse(deadline_s=450.0, weight_left=10.0, problems_left=4)
    purse.paid_overhead(30.0)
    assert purse.share_s(50.0, 3.0, 1, limit_s=200.0) == pytest.approx((400.0 - 90.0) * 3 / 10)


def test_the_time_left_goes_on_at_the_pace_so_far_and_never_past_the_deadline():
    purse = Purse(deadline_s=100.0, weight_left=40.0, problems_left=3)
    assert purse.left_s(90.0) == 0.0
    purse.paid_overhead(30.0)
    purse.paid_overhead(3.0)
    purse.share_s(0.0, 1.0, 10, limit_s=0.5)
    purse.paid(10.0, 4.0)
    assert purse.left_s(10.0) == pytest.approx(30 * 0.4 + 3.0)
    assert purse.left_s(95.0) == 5.0
    purse.spare(30.0)
    assert purse.left_s(10.0) == pytest.approx(3.0)


def entry(file: Path, name: str) -> Description:
    return Description(name, Source("file", str(file)), file.name)


def test_an_examinee_that_crashes_ends_one_problem_and_answers_the_next(tmp_path: Path):
    file = plugin(
        tmp_path,
        "@implementation('touchy')\ndef touchy(input, target, **o):\n"
        "    import os\n    if input.shape[0] == 8: os.abort()\n    return F.cross_entropy(input, target)\n",
    )
    questions = Questions(0, {})
    with Examinee(entry(file, "touchy"), {}) as examinee:
        first = examinee.examine(questions(PROBLEM), [], measure_memory=True)
        second = examinee.examine(questions(Problem(batch_size=4, num_classes=3)), list(Phase), measure_memory=True)
    assert first.verdict.status is Status.CRASHED
    assert "SIGABRT" in first.verdict.reason
    assert second.verdict.status is Status.PASSED
    assert second.weighed[Phase.BACKWARD].peak_bytes >= 4 * 3 * 4
    assert second.setup_s is not None


def test_a_crew_replaces_the_worker_that_it_lost(tmp_path: Path):
    with Crew(entry(plugin(tmp_path, ONE_GOOD), "good"), 2, {}, 1, None) as crew:
        crew.start()
        assert crew.set_up(PROBLEM.key, 0, list(Phase), None) is None
        crew.workers[0].abandon()  # ended, and nobody has noticed yet
        error = crew.set_up(PROBLEM.key, 0, list(Phase), None)
        assert error is not None
        assert error.status is Status.CRASHED
        crew.start()
        assert len(crew.workers) == 2
        assert crew.set_up(PROBLEM.key, 0, list(Phase), None) is None
        processes = [worker._process for worker in crew.workers]
    assert all(process.returncode is not None for process in processes)


def test_forks_that_load_quickly_are_fresh_for_every_problem_and_slow_ones_stay(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(crews, "QUICK_LOAD_S", 3.0)  # as a busy machine may need
    slow = plugin(tmp_path, "import time\ntime.sleep(3)\n" + ONE_GOOD, "slow.py")
    for file, fresh in ((plugin(tmp_path, ONE_GOOD), templates._forks_here()), (slow, False)):
        with Crew(entry(file, "good"), 1, {}, 1, None) as crew:
            crew.start()
            assert crew.set_up(PROBLEM.key, 0, list(Phase), None) is None
            before = crew.workers[0]
            crew.free()
            crew.start()
            assert (crew.workers[0] is not before) == fresh
            assert crew.set_up(PROBLEM.key, 0, list(Phase), None) is None


def test_what_no_longer_loads_is_a_status(tmp_path: Path):
    with Examinee(entry(plugin(tmp_path, ONE_GOOD), "gone"), {}) as examinee:
        seen = examinee.examine(Questions(0, {})(PROBLEM), [], measure_memory=False)
    assert seen.verdict.status is Status.IMPORT_FAILED
    assert "'gone' is not in its source any more" in seen.verdict.reason
