from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import columns, load, results
from xentbench.journal import sealed
from xentbench.spec import UsageError

CELL = {
    "implementation": "naive",
    "problem": "cross_entropy:N=8,C=10",
    "phase": "forward",
    "status": "passed",
    "reason": "",
    "labels": ["delegate"],
    "ratio": 2.0,
}
HEAD = {
    "run": "r",
    "plan": {
        "problems": ["cross_entropy:N=8,C=10", "cross_entropy:N=4,C=3"],
        "implementations": ["one-hot", "naive"],
        "phases": ["forward-no-grad", "forward"],
    },
}


@pytest.fixture
def journal(tmp_path: Path) -> results.Journal:
    journal = results.create(tmp_path / "runs")
    journal.head(HEAD)
    return journal


def test_what_was_written_is_read_back_with_the_problems_columns(journal: results.Journal):
    journal.cell(CELL, {"bursts_wall_ns": [[[[1, 2, 3]]]]})
    frame = results.read(journal.folder).cells
    assert list(frame.columns) == list(columns.CELL_COLUMNS)
    row = frame.iloc[0]
    assert (row["batch_size"], row["num_classes"], row["label"], row["labels"]) == (8, 10, "(8, 10)", "delegate")
    assert load(journal.folder).equals(frame)
    (raw,) = results.samples(journal.folder)
    assert raw["bursts_wall_ns"] == [[[[1, 2, 3]]]]


def test_cells_come_back_in_plan_order(journal: results.Journal):
    for name in ("naive", "one-hot"):
        for problem in ("cross_entropy:N=4,C=3", "cross_entropy:N=8,C=10"):
            for phase in ("forward", "forward-no-grad"):
                journal.cell({**CELL, "implementation": name, "problem": problem, "phase": phase})
    frame = results.read(journal.folder).cells
    assert frame["problem"].tolist()[:4] == ["cross_entropy:N=8,C=10"] * 4
    assert frame["implementation"].tolist()[:4] == ["one-hot", "one-hot", "naive", "naive"]
    assert frame["phase"].tolist()[:2] == ["forward-no-grad", "forward"]


@given(cut=st.integers(1, 200))
def test_a_torn_last_line_is_dropped_without_a_word(tmp_path_factory, cut: int):
    journal = results.create(tmp_path_factory.mktemp("torn"))
    journal.head(HEAD)
    journal.cell(CELL)
    journal.cell({**CELL, "phase": "backward"})
    file = journal.folder / results.JOURNAL
    whole = file.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    file.write_bytes(whole[: -min(cut, last)])
    run = results.read(journal.folder)
    assert run.cells["phase"].tolist() == ["forward"]
    assert run.damage == ()


@given(where=st.integers(0, 150), byte=st.integers(0, 255))
def test_a_damaged_line_is_noted_and_the_others_are_read(tmp_path_factory, where: int, byte: int):
    journal = results.create(tmp_path_factory.mktemp("damaged"))
    journal.head(HEAD)
    journal.cell(CELL)
    journal.cell({**CELL, "phase": "backward"})
    file = journal.folder / results.JOURNAL
    content = bytearray(file.read_bytes())
    if content[where] == byte:
        return
    content[where] = byte
    file.write_bytes(content)
    run = results.read(journal.folder)
    assert "backward" in run.cells["phase"].tolist()
    assert len(run.damage) >= 1
    assert "line 1" in run.damage[0]


def test_another_schema_is_refused(journal: results.Journal):
    head = journal.folder / results.HEAD
    head.write_text(json.dumps({**json.loads(head.read_text()), "schema": 999}))
    with pytest.raises(UsageError, match="schema 999"):
        results.read(journal.folder)


def test_a_folder_that_cannot_be_written_is_told_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--results expected a folder that can be written"):
        results.create(tmp_path / "file")


def test_a_run_is_found_by_folder_id_or_latest(journal: results.Journal):
    runs = journal.folder.parent
    assert results.find(journal.folder, runs) == journal.folder
    assert results.find(journal.run, runs) == journal.folder
    assert results.find("latest", runs) == journal.folder
    with pytest.raises(UsageError, match=journal.run):
        results.find("20010101T000000Z-0000", runs)


def test_a_run_without_cells_is_an_empty_table_with_all_columns(journal: results.Journal):
    run = results.read(journal.folder)
    assert run.cells.empty
    assert list(run.verdicts.columns) == list(columns.VERDICT_COLUMNS)
    assert stat.S_ISDIR(journal.folder.stat().st_mode)


def test_a_full_disk_is_an_error_and_the_journal_stays_readable(journal: results.Journal):
    resource = pytest.importorskip("resource")
    journal.cell(CELL)
    size = (journal.folder / results.JOURNAL).stat().st_size
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, previous[1]))
        with pytest.raises(OSError, match="space left|too large"):
            journal.cell({**CELL, "phase": "backward"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, handler)
    run = results.read(journal.folder)
    assert run.cells["phase"].tolist() == ["forward"]


def test_a_verdict_is_asked_again_with_the_seed_that_its_sitting_told_when_it_ended(tmp_path: Path):
    for seed in (7, None):
        journal = results.create(tmp_path, "r")
        journal.found(HEAD)
        journal.began({"part": "", "started": f"2026-03-0{1 if seed else 2}"})
        name = "ended" if seed else "killed"
        verdict = {"implementation": name, "problem": CELL["problem"], "status": "passed"}
        journal.verdict({**verdict, "reproduce": "xentbench parity x"})
        if seed:
            journal.ended({"seed": seed, "wall_s": 1.0, "ended": "finished"})
        journal.close()
    run = results.read(journal.folder)
    told = dict(zip(run.verdicts["implementation"], run.verdicts["reproduce"], strict=True))
    assert told == {"ended": "xentbench parity x --seed 7", "killed": "xentbench parity x"}
    assert run.info["seed"] is None
    assert [(one["seed"], one["ended"]) for one in run.info["sittings"]] == [(7, "finished"), (None, None)]


def test_a_training_is_asked_again_with_its_seed_and_the_latest_of_each_workload_stands(tmp_path: Path):
    journal = results.create(tmp_path, "r")
    journal.found(HEAD)
    journal.began({"part": "", "started": "2026-03-01"})
    one = {"implementation": "naive", "workload": "digits", "status": "skipped", "reproduce": "xentbench parity x"}
    journal.training(one)
    journal.training({**one, "status": "passed", "losses": [2.0, 1.0], "curve_ratio": 0.5})
    journal.training({**one, "workload": "text"})
    journal.ended({"seed": 7, "wall_s": 1.0, "ended": "finished"})
    journal.close()
    run = results.read(journal.folder)
    assert list(run.trainings.columns) == list(columns.TRAINING_COLUMNS)
    assert run.trainings["status"].tolist() == ["passed", "skipped"]
    assert run.trainings["losses"][0] == [2.0, 1.0]
    assert set(run.trainings["reproduce"]) == {"xentbench parity x --seed 7"}
    assert results.trained(run) == {("naive", "digits"), ("naive", "text")}


def test_a_run_of_the_first_schema_is_still_read(tmp_path: Path):
    (tmp_path / results.HEAD).write_text(json.dumps({**HEAD, "schema": 1, "seed": 3}))
    marks = {"schema": 1, "run": "r", "contract": "cross_entropy"}
    verdict = {"kind": "verdict", "implementation": "naive", "problem": CELL["problem"], "reproduce": "x --seed 3"}
    lines = [sealed({**marks, "kind": "cell", **CELL}), sealed({**marks, **verdict})]
    (tmp_path / results.JOURNAL).write_bytes(b"".join(lines))
    run = results.read(tmp_path)
    assert (len(run.cells), run.damage, run.info["seed"]) == (1, (), 3)
    assert run.verdicts["reproduce"].tolist() == ["x --seed 3"]


def test_a_cell_without_its_verdict_is_not_finished_unless_nobody_was_asked(journal: results.Journal):
    journal.cell(CELL)
    journal.cell({**CELL, "implementation": "one-hot"})
    journal.cell({**CELL, "implementation": "absent", "status": "skipped"})
    journal.cell({**CELL, "implementation": "odd", "status": "no status"})
    journal.verdict({"implementation": "one-hot", "problem": CELL["problem"], "status": "passed"})
    done = results.finished(results.read(journal.folder))
    assert sorted(name for name, _, _ in done) == ["absent", "one-hot"]


def test_a_cell_that_came_too_late_for_its_budget_is_not_finished(journal: results.Journal):
    late = {"status": "skipped", "reason": f"{results.SPENT} 15 s, less what its report needs, left no time for it"}
    journal.cell({**CELL, **late})
    journal.cell({**CELL, "implementation": "absent", "status": "skipped", "reason": "does not fit into memory"})
    assert [name for name, _, _ in results.finished(results.read(journal.folder))] == ["absent"]


def test_what_could_not_be_described_is_finished_without_a_verdict_however_that_ended(journal: results.Journal):
    ends = {"crashes": "crashed", "hangs": "timed-out", "right": "passed"}
    journal.head({**HEAD, "implementations": [{"name": name, "status": status} for name, status in ends.items()]})
    for name, status in ends.items():
        journal.cell({**CELL, "implementation": name, "status": status})
    done = results.finished(results.read(journal.folder))
    assert sorted(name for name, _, _ in done) == ["crashes", "hangs"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "7", '{"schema": 2, "plan": 3}', "[" * 100_000, "\x00"])
def test_a_head_that_is_none_is_one_sentence(tmp_path: Path, content: str):
    (tmp_path / results.HEAD).write_text(content)
    with pytest.raises(UsageError, match="readable run.json"):
        results.read(tmp_path)


def test_the_latest_run_is_the_one_begun_last_whatever_its_name(tmp_path: Path):
    for name, started in (("a-nightly", "2026-03-02"), ("z-nightly", "2026-03-01")):
        results.create(tmp_path, name).found({"started": started})
    assert results.find("latest", tmp_path).name == "a-nightly"


def test_shards_that_never_met_on_one_disk_are_told_where_they_differ(tmp_path: Path):
    here = {"torch": "2.13", "cpu": "one"}
    for number, there in ((1, here), (2, here | {"cpu": "another"}), (3, here)):
        journal = results.create(tmp_path, "r", f"{number}of3")
        journal.found({**HEAD, "environment": here, "digest": "a"})
        journal.began({"part": journal.part, "environment": there, "digest": "b" if number == 3 else "a"})
    notes = results.read(tmp_path / "r").damage
    assert len(notes) == 2
    assert "shard 2of3" in notes[0]
    assert "cpu (was one, is another)" in notes[0]
    assert "shard 3of3" in notes[1]
    assert "source" in notes[1]


def test_every_table_is_loaded_by_name_with_its_columns_though_the_run_is_empty(journal: results.Journal):
    for name, documented in columns.TABLES.items():
        assert list(load(journal.folder, name).columns) == list(documented)
        assert load(journal.folder, name).empty
    with pytest.raises(UsageError, match="table 'verdict' is unknown: did you mean 'verdicts'"):
        load(journal.folder, "verdict")


def test_a_loaded_table_tells_of_which_run_it_is(journal: results.Journal):
    journal.head({**HEAD, "started": "2026-03-01T12:00:00+00:00", "environment": {"torch": "2.13.0"}})
    told = load(journal.folder).attrs
    assert (told["run"], told["environment"]["torch"]) == (journal.run, "2.13.0")


def test_runs_are_loaded_from_where_the_project_keeps_them(
    journal: results.Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal.cell(CELL)
    assert len(load("latest", results=journal.folder.parent)) == 1
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    with pytest.raises(UsageError, match="'latest' was not found"):
        load("latest")
    (tmp_path / "pyproject.toml").write_text("[tool.xentbench]\nresults = 'runs'")
    assert len(load("latest")) == 1
    (tmp_path / "pyproject.toml").write_text("[tool.xentbench]\nresults = 3")
    with pytest.raises(UsageError, match=r"pyproject.toml: tool.xentbench.results expected text, got 3"):
        load("latest")
