"""A sweep against real workers: what ends where, in which order, and what is never timed."""

from __future__ import annotations

import pytest
from training_fixtures import small_course
from worker_fixtures import ONE_GOOD, plugin

from xentbench import planning, results, sweep, trained, training, workers
from xentbench.limits import Survey
from xentbench.machine import Machine
from xentbench.measured import Measured
from xentbench.spec import Comparison, Phase, Problem, Source, Status

PROBLEMS = (Problem(batch_size=8, num_classes=10), Problem(batch_size=4, num_classes=3))


class Looking:
    def __init__(self) -> None:
        self.stages, self.steps, self.cells, self.lefts_s = [], 0, [], []

    def stage(self, title: str, steps: int) -> None:
        self.stages.append((title, steps))

    def step(self, text: str) -> None:
        self.steps += 1

    def cell(self, fields) -> None:
        self.cells.append(fields)

    def left(self, seconds: float) -> None:
        self.lefts_s.append(seconds)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sweep")
    text = ONE_GOOD + (
        "count = [0]\n"
        "@implementation('wrong-at-three')\ndef wrong(input, target):\n"
        "    return F.cross_entropy(input, target) * (2 if input.shape[1] == 3 else 1)\n"
        "@implementation('dies-late')\ndef dies(input, target):\n"
        "    count[0] += 1\n    if count[0] > 400: raise ValueError('tired')\n"
        "    return F.cross_entropy(input, target)\n"
        "@implementation('crashes-late')\ndef crashes(input, target):\n"
        "    count[0] += 1\n    if count[0] > 200: import os; os.abort()\n"
        "    return F.cross_entropy(input, target)\n"
    )
    entries = workers.describe(Source("file", str(plugin(folder, text))), [problem.key for problem in PROBLEMS])
    posed = planning.Posed(PROBLEMS, {}, {}, ())
    plan = planning.make(posed, entries, list(Phase), planning.Preset(30.0, 1, 0.01), seed=3)
    journal, watch = results.create(folder / "runs"), Looking()
    journal.head({"run": journal.run})
    # A machine so slow that every real time is below its floor.
    slow = Machine({2**16: 1.0}, {2**16: 1.0}, {"float32": 1.0})
    sweep.Sweep(plan, journal, watch, survey=Survey(lambda *_: slow)).run()
    return results.read(journal.folder), watch, journal


def test_every_cell_ends_once(swept):
    run, watch, _ = swept
    keys = run.cells[["implementation", "problem", "phase"]].apply(tuple, axis=1)
    assert len(keys) == len(set(keys)) == 4 * 2 * 4
    assert len(watch.cells) == 32


def test_what_is_wrong_on_a_problem_is_timed_on_the_others_only(swept):
    cells = swept[0].cells
    mine = cells[cells["implementation"] == "wrong-at-three"]
    assert set(mine.loc[mine["num_classes"] == 3, "status"]) == {Status.WRONG_VALUE}
    assert mine.loc[mine["num_classes"] == 3, "latency_s"].isna().all()
    assert set(mine.loc[mine["num_classes"] == 10, "status"]) == {Status.PASSED}
    assert mine.loc[mine["num_classes"] == 10, "latency_s"].notna().all()


def test_what_fails_while_it_is_timed_is_a_status_and_never_a_time(swept):
    cells = swept[0].cells
    mine = cells[(cells["implementation"] == "dies-late") & (cells["status"] != Status.PASSED)]
    assert len(mine)
    assert set(mine["status"]) == {Status.RAISED}
    assert mine["reason"].str.contains("tired").all()
    assert mine["latency_s"].isna().all()


def test_a_crash_while_it_is_timed_costs_its_own_cells_and_no_other(swept):
    cells = swept[0].cells
    mine = cells[cells["implementation"] == "crashes-late"]
    assert len(mine) == 8
    assert set(mine["status"]) <= {Status.PASSED, Status.CRASHED}
    crashed = mine[mine["status"] == Status.CRASHED]
    assert len(crashed)
    assert crashed["reason"].str.contains("SIGABRT").all()


def test_the_good_one_is_untouched_by_its_neighbours(swept):
    cells = swept[0].cells
    good = cells[cells["implementation"] == "good"]
    assert set(good["status"]) == {Status.PASSED}
    assert (good["peak_bytes"] >= good["minimum_bytes"]).all()
    assert good["setup_s"].notna().all()
    assert (good["rounds"] > 0).all()


def test_every_raw_time_is_kept(swept):
    run, _, journal = swept
    raw = {(line["implementation"], line["problem"], line["phase"]): line for line in results.samples(journal.folder)}
    timed = run.cells[run.cells["latency_s"].notna()]
    for _, cell in timed.iterrows():
        line = raw[cell["implementation"], cell["problem"], cell["phase"]]
        rounds = sum(len(burst) for worker in line["bursts_wall_ns"] for burst in worker)
        assert rounds > cell["rounds"]


def test_the_stages_are_announced_with_their_steps(swept):
    _, watch, _ = swept
    assert watch.stages == [("judging", 8), ("timing", 7 * 4)]
    assert watch.steps == 36


def test_the_time_left_is_told_and_falls_to_what_the_report_takes(swept):
    _, watch, _ = swept
    assert len(watch.lefts_s) == 2 + 2 * 4
    assert watch.lefts_s[-1] == pytest.approx(sweep.REPORT_S)
    assert max(watch.lefts_s) <= 30.0


def test_one_that_writes_after_its_last_answer_is_not_timed(tmp_path):
    late = (
        "import os\ndef leave(code, leave=os._exit):\n    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'1234')\n        except OSError: pass\n    leave(code)\nos._exit = leave\n"
    )
    entries = workers.describe(Source("file", str(plugin(tmp_path, late + ONE_GOOD))), [PROBLEMS[0].key])
    plan = planning.make(planning.Posed(PROBLEMS[:1], {}, {}, ()), entries, list(Phase), planning.Preset(20.0, 1, 1), 3)
    journal = results.create(tmp_path / "runs")
    journal.head({"run": journal.run})
    sweep.Sweep(plan, journal, Looking()).run()
    cells = results.read(journal.folder).cells
    assert len(cells) == len(Phase)
    assert set(cells["status"]) == {Status.FORGED}
    assert cells["latency_s"].isna().all()


def test_the_default_allocator_is_timed_beside_the_kept_heap_where_that_is_wanted(tmp_path):
    entries = workers.describe(Source("file", str(plugin(tmp_path, ONE_GOOD))), [PROBLEMS[0].key])
    posed = planning.Posed(PROBLEMS[:1], {}, {}, ())
    preset = planning.Preset(30.0, 1, 0.05)
    plan = planning.make(posed, entries, [Phase.FORWARD], preset, 3, beside_cold=True)
    journal = results.create(tmp_path / "runs")
    journal.head({"run": journal.run})
    sweep.Sweep(plan, journal, Looking()).run()
    (cell,) = results.read(journal.folder).cells.to_dict("records")
    assert cell["cold_low"] < cell["cold_ratio"] < cell["cold_high"]
    assert cell["cold_latency_s"] > 0
    assert cell["cold_minor_faults"] >= 0


def test_who_makes_its_gradient_in_forward_is_compared_by_the_sum_alone(tmp_path):
    text = ONE_GOOD.replace('("good")', '("good", work=WorkContract(gradient_in_forward=True))')
    text = "from xentbench.spec import WorkContract\n" + text
    (entry,) = workers.describe(Source("file", str(plugin(tmp_path, text))), [])
    seen = Measured(Status.PASSED, ratio=3.0, verdict=Comparison.SLOWER)
    for phase in (Phase.FORWARD, Phase.BACKWARD):
        assert sweep.split(entry, phase, seen)["verdict"] is Comparison.INCONCLUSIVE
        assert "compared by forward+backward" in sweep.split(entry, phase, seen)["reason"]
    assert sweep.split(entry, Phase.FORWARD_BACKWARD, seen) == sweep.split(entry, Phase.FORWARD_NO_GRAD, seen) == {}
    assert sweep.split(entry, Phase.FORWARD, Measured(Status.RAISED)) == {}


def test_a_time_below_the_floor_is_flagged_and_every_time_stands_beside_its_limit(swept):
    cells = swept[0].cells
    timed = cells[cells["latency_s"].notna()]
    assert timed["labels"].str.contains("below-floor").all()
    backward = timed["phase"] == "backward"
    assert set(timed.loc[backward, "limit_by"]) == {"bytes"}
    plain = timed[(timed["phase"] == "forward") & (timed["num_classes"] == 10)]
    assert set(plain["floor_s"]) == {8 * 10 * 4 + 8 * 8 + 4}
    assert (timed["reached_ratio"] * timed["latency_s"]).to_numpy() == pytest.approx(timed["limit_s"].to_numpy())


def test_the_right_ones_train_between_judging_and_timing_and_only_once(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "course", small_course)
    monkeypatch.setattr(training, "WORKLOADS", ("digits",))
    text = (
        ONE_GOOD
        + "@implementation('negated')\ndef negated(input, target):\n    return -F.cross_entropy(input, target)\n"
    )
    entries = workers.describe(Source("file", str(plugin(tmp_path, text))), [PROBLEMS[0].key])
    posed, preset = planning.Posed(PROBLEMS[:1], {}, {}, ()), planning.Preset(300.0, 1, 0.05)
    plan = planning.make(posed, entries, [Phase.FORWARD], preset, 3, trains=True)
    journal, watch = results.create(tmp_path / "runs"), Looking()
    journal.head({"run": journal.run})
    sweep.Sweep(plan, journal, watch).run()
    assert [title for title, _ in watch.stages] == ["judging", "training", "timing"]
    run = results.read(journal.folder)
    ends = dict(run.trainings[["implementation", "status"]].itertuples(index=False, name=None))
    assert ends == {"good": Status.PASSED, "negated": Status.SKIPPED}
    assert results.trained(run) == {("good", "digits"), ("negated", "digits")}
    (good,) = run.trainings[run.trainings["implementation"] == "good"].to_dict("records")
    assert len(good["losses"]) == good["steps"]
    assert good["curve_ratio"] == 0.0
    again = Looking()
    finished = results.finished(run)
    sweep.Sweep(plan, journal, again, finished=finished, trained=results.trained(run)).run()
    assert [title for title, _ in again.stages] == ["judging", "timing"]
    assert len(results.read(journal.folder).trainings) == 2


def test_a_short_budget_is_left_to_the_clock(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "course", small_course)
    entries = workers.describe(Source("file", str(plugin(tmp_path, ONE_GOOD))), [PROBLEMS[0].key])
    posed, preset = planning.Posed(PROBLEMS[:1], {}, {}, ()), planning.Preset(40.0, 1, 0.05)
    plan = planning.make(posed, entries, [Phase.FORWARD], preset, 3, trains=True)
    journal = results.create(tmp_path / "runs")
    journal.head({"run": journal.run})
    sweep.Sweep(plan, journal, Looking()).run()
    run = results.read(journal.folder)
    assert set(run.trainings["status"]) == {Status.SKIPPED}
    assert run.trainings["reason"].str.contains("raise --budget").all()
    assert run.cells["latency_s"].notna().all()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory):
    """A run that was killed: some cells of a sweep are there, one group has lost one of its two."""
    folder = tmp_path_factory.mktemp("resumed")
    text = ONE_GOOD + "@implementation('twin')\ndef twin(input, target):\n    return F.cross_entropy(input, target)\n"
    text += "@implementation('negated')\ndef negated(input, target):\n    return -F.cross_entropy(input, target)\n"
    entries = workers.describe(Source("file", str(plugin(folder, text))), [problem.key for problem in PROBLEMS])
    posed = planning.Posed(PROBLEMS, {}, {}, ())
    phases = [Phase.FORWARD, Phase.BACKWARD]
    plan = planning.make(posed, entries, phases, planning.Preset(60.0, 1, 0.05), seed=987654321987654)
    first, other = (problem.key for problem in PROBLEMS)
    done = {
        (name, key, phase): Status.PASSED for name in ("good", "twin") for key in (first, other) for phase in phases
    }
    done |= {("negated", key, phase): Status.WRONG_VALUE for key in (first, other) for phase in phases}
    del done["twin", first, Phase.BACKWARD]
    journal, watch = results.create(folder / "runs"), Looking()
    journal.head({"run": journal.run})
    sweep.Sweep(plan, journal, watch, finished=done).run()
    return results.read(journal.folder), watch, journal


def test_a_group_with_a_cell_missing_is_timed_again_and_nothing_else(resumed):
    run, watch, _ = resumed
    keys = run.cells[["implementation", "problem", "phase", "status"]].itertuples(index=False, name=None)
    again = [(name, PROBLEMS[0].key, "backward", "passed") for name in ("good", "twin")]
    assert sorted(keys) == sorted(again)
    assert watch.stages == [("judging", 2), ("timing", 2)]
    assert watch.steps == 4


def test_only_who_is_timed_again_is_judged_again(resumed):
    verdicts = resumed[0].verdicts
    assert set(verdicts["implementation"]) == {"good", "twin"}
    assert set(verdicts["problem"]) == {PROBLEMS[0].key}


def test_the_seed_of_a_run_is_in_no_file_of_it_while_it_runs(resumed):
    _, _, journal = resumed
    files = [file for file in journal.folder.rglob("*") if file.is_file()]
    assert files
    assert not any(b"987654321987654" in file.read_bytes() for file in files)


def test_a_run_of_which_nothing_is_missing_asks_nobody(tmp_path, swept):
    entries = workers.describe(Source("file", str(plugin(tmp_path, ONE_GOOD))), [PROBLEMS[0].key])
    plan = planning.make(
        planning.Posed(PROBLEMS[:1], {}, {}, ()), entries, [Phase.FORWARD], planning.PRESETS["quick"], 3
    )
    journal, watch = results.create(tmp_path / "runs"), Looking()
    done = {("good", PROBLEMS[0].key, Phase.FORWARD): Status.PASSED}
    sweep.Sweep(plan, journal, watch, finished=done).run()
    assert watch.stages == [("judging", 0), ("timing", 0)]
    assert not (journal.folder / "journal.jsonl").exists()
