"""A run in pytest-benchmark's format: read back by it, with the numbers that it would have made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats

from xentbench import exchange, results

PROBLEMS = ["cross_entropy:N=8,C=10", "cross_entropy:N=4,C=3"]
HEAD = {
    "run": "r",
    "started": "2026-03-01T12:00:00+00:00",
    "environment": {"cpu": "A Processor", "cores": 2, "python": "3.11.7", "os": "Linux", "smt": float("nan")},
    "plan": {"problems": PROBLEMS, "implementations": ["naive", "one-hot"], "phases": ["forward"]},
}
CELL = {"phase": "forward", "status": "passed", "reason": "", "labels": ["delegate"], "ratio": 2.0, "peak_bytes": 96}


def cell(name: str, problem: str, **fields: object) -> dict[str, object]:
    return {**CELL, "implementation": name, "problem": problem, **fields}


def burst(*candidate_us: float) -> list[list[int]]:
    return [[900, round(1000 * each), 950] for each in candidate_us]


@pytest.fixture
def run(tmp_path: Path) -> results.Run:
    """Two cells that were timed by two workers, one whose times are lost, one that is wrong."""
    journal = results.create(tmp_path / "runs", "r")
    journal.head(HEAD)
    workers = [[burst(99, 3, 4), burst(99, 99, *range(5, 12))], [burst(99, 2)]]
    for problem in PROBLEMS:
        journal.cell(cell("naive", problem), {"bursts_wall_ns": workers})
    journal.cell(cell("one-hot", PROBLEMS[0]), {"bursts_wall_ns": [[["x"]], 3]})
    journal.cell(cell("one-hot", PROBLEMS[1], status="wrong-value", ratio=None))
    journal.close()
    return results.read(journal.folder)


def exported(run: results.Run) -> dict[str, Any]:
    return json.loads(exchange.pytest_benchmark(run))


def test_the_times_are_those_of_kept_rounds_of_all_workers(run: results.Run):
    first, second = exported(run)["benchmarks"]
    assert first["stats"]["data"] == pytest.approx([3e-6, 4e-6, *(each * 1e-6 for each in range(5, 12)), 2e-6])
    assert (first["stats"]["rounds"], first["stats"]["iterations"]) == (10, 1)
    assert first["fullname"] == "cross_entropy::forward[naive-N=8,C=10]"
    assert first["params"] == {"implementation": "naive", "problem": PROBLEMS[0], "phase": "forward"}
    assert second["group"] == "forward (4, 3)"
    assert (first["extra_info"]["ratio"], first["extra_info"]["peak_bytes"]) == (2.0, 96)


def test_what_was_not_timed_or_is_lost_is_left_out(run: results.Run):
    assert {each["params"]["implementation"] for each in exported(run)["benchmarks"]} == {"naive"}


def test_the_machine_is_told_and_its_name_is_not(run: results.Run):
    told = exported(run)
    assert told["machine_info"]["node"] == ""
    assert told["machine_info"]["cpu"] == {"brand_raw": "A Processor", "count": 2}
    assert told["datetime"] == HEAD["started"]


def test_a_run_without_anything_timed_is_a_file_without_benchmarks(tmp_path: Path):
    journal = results.create(tmp_path)
    journal.head({"plan": {}})
    assert exported(results.read(journal.folder))["benchmarks"] == []


def files(run: results.Run, folder: Path) -> list[str]:
    paths = [folder / "0001_before.json", folder / "0002_after.json"]
    for path in paths:
        path.write_text(exchange.pytest_benchmark(run))
    return [path.name for path in paths]


@pytest.mark.parametrize("group", ["group", "func", "param:problem", "param:implementation"])
def test_pytest_benchmark_compares_two_exports(run: results.Run, tmp_path: Path, group: str):
    command = [Path(sys.executable).parent / "pytest-benchmark", "compare", *files(run, tmp_path)]
    if not command[0].exists():
        command = [shutil.which("pytest-benchmark"), *command[1:]]
    seen = subprocess.run(
        [
            *command,
            f"--group-by={group}",
            "--csv=out.csv",
            "--columns=min,max,mean,stddev,median,iqr,outliers,ops,rounds",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert seen.returncode == 0, seen.stderr
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2
    assert seen.stdout.count("forward[naive-N=8,C=10]") == 2
    assert "Failed to load" not in seen.stdout + seen.stderr


def test_pytest_compares_its_own_benchmarks_with_an_export(run: results.Run, tmp_path: Path):
    record = exported(run)
    record["benchmarks"][0]["fullname"] = "test_it.py::test_it"
    (tmp_path / "0001_before.json").write_text(json.dumps(record))
    (tmp_path / "test_it.py").write_text("def test_it(benchmark):\n    benchmark(lambda: 1)\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_it.py"]
    seen = subprocess.run(
        [*command, "--benchmark-compare=0001_before.json", "--benchmark-min-rounds=2", "--benchmark-max-time=0.01"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
    )
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert "Comparing against benchmarks from: 0001_before.json" in seen.stdout + seen.stderr
    assert "(0001_before" in seen.stdout


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60))
def test_the_statistics_are_pytest_benchmarks(times_ns: list[int]):
    theirs = Stats()
    for ns in times_ns:
        theirs.update(ns / 1e9)
    ours, told = exchange.summary([ns / 1e9 for ns in times_ns]), theirs.as_dict()
    assert list(ours) == list(told)
    counts = {"outliers", "iqr_outliers", "stddev_outliers"}
    for name, value in told.items():
        if name not in counts:
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-15), name
    near = [told["q1"] - 1.5 * told["iqr"], told["q3"] + 1.5 * told["iqr"]]
    if not any(value == pytest.approx(fence, rel=1e-9, abs=1e-15) for value in theirs.data for fence in near):
        assert ours["iqr_outliers"] == told["iqr_outliers"]
