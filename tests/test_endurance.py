"""A sweep that is killed, shared, filled up and resumed ends with the cells of one that nobody disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from worker_fixtures import ONE_GOOD, plugin

from xentbench import results
from xentbench.spec import Status

BENCH = [sys.executable, "-c", "from xentbench.cli import main; main()", "bench"]
LOSSES = ONE_GOOD + (
    "@implementation('negated')\ndef negated(input, target):\n    return -F.cross_entropy(input, target)\n"
    "@implementation('interrupts')\ndef interrupts(input, target):\n"
    "    import os, signal\n    os.killpg(0, signal.SIGINT)\n    raise KeyboardInterrupt\n"
)
STATUSES = {"good": {Status.PASSED}, "negated": {Status.WRONG_VALUE}, "interrupts": {Status.RAISED}}
GONE_S = 2.0
"""In which no worker is left of a parent that was killed."""
IMPORTED_S = 60.0
"""In which nothing else is left either: a template ends when it has imported torch, and holds no implementation."""


@dataclass
class Endured:
    """A run in a folder of its own; its processes and all theirs carry that folder's name in their environment."""

    folder: Path
    classes: int = 5
    phases: tuple[str, ...] = ("forward", "backward")
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir()
        self.plugin = plugin(self.folder, LOSSES)

    @property
    def asked(self) -> list[str]:
        sizes = ",".join(str(c) for c in range(3, 3 + self.classes))
        names = [part for name in STATUSES for part in ("--implementation", name)]
        phases = [part for phase in self.phases for part in ("--phase", phase)]
        budget = ["--workers", "1", "--budget", "10m", "--no-train"]
        return ["--plugin", str(self.plugin), *names, "--batch-size", "4", "--num-classes", sizes, *phases, *budget]

    def start(self, *arguments: str, largest_bytes: int | None = None) -> subprocess.Popen[str]:
        def limit() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
            if largest_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest_bytes))

        environment = {**os.environ, "TMPDIR": str(self.folder / "tmp"), "CI": "1"}
        command = [*BENCH, *arguments, "--results", str(self.folder / "runs")]
        pipe = subprocess.PIPE
        settings = {"env": environment, "stdout": pipe, "stderr": pipe, "text": True}
        return subprocess.Popen(command, preexec_fn=limit, **settings)  # noqa: PLW1509 - this process has no threads

    def finish(self, *arguments: str, **settings: int) -> tuple[int, str]:
        with self.start(*arguments, **settings) as process:
            _, told = process.communicate(timeout=600)
        return process.returncode, told

    def lines(self, name: str = "journal*.jsonl") -> int:
        return sum(file.read_bytes().count(b'"kind":"cell"') for file in self.folder.glob(f"runs/*/{name}"))

    def kill(self, process: subprocess.Popen[str], *, after: float, lines: int = 0) -> None:
        """Kill the harness so many seconds after it has written a cell more than `lines`, or its end."""
        while self.lines() <= lines and process.poll() is None:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        is_running = process.poll() is None
        assert not is_running or str(process.pid) in self.alive()
        process.kill()
        process.communicate()
        for kind, limit_s in (("worker", GONE_S), ("", IMPORTED_S)):
            end_s = time.monotonic() + limit_s
            while self.alive(kind) and time.monotonic() < end_s:
                time.sleep(0.02)
            assert self.alive(kind) == {}

    def alive(self, kind: str = "") -> dict[str, str]:
        """Return pid and working folder of the processes that carry this run's mark."""
        mark, found = os.fsencode(self.folder / "tmp"), {}
        for place in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in place.read_bytes():
                    found[place.parent.name] = str((place.parent / "cwd").readlink())
        return {pid: folder for pid, folder in found.items() if f"xentbench-{kind}" in folder or not kind}

    def cells(self) -> dict[tuple[str, str, str], str]:
        """Return how each cell ended; none comes twice."""
        (folder,) = (self.folder / "runs").iterdir()
        run = results.read(folder)
        assert run.damage == ()
        rows = run.cells[[*results.CELL, "status"]].to_numpy().tolist()
        assert len({tuple(row[:3]) for row in rows}) == len(rows)
        return {tuple(row[:3]): row[3] for row in rows}

    def expected(self) -> dict[tuple[str, str, str], str]:
        keys = [f"cross_entropy:N=4,C={c}" for c in range(3, 3 + self.classes)]
        return {(n, key, p): s for n, (s,) in STATUSES.items() for key in keys for p in self.phases}


@pytest.fixture
def endured(tmp_path: Path) -> Endured:
    if not Path("/proc/self/environ").exists():
        pytest.skip("looks for processes in /proc")
    return Endured(tmp_path)


def test_a_run_outlives_a_full_disk_other_writers_and_kills(endured: Endured):
    code, told = endured.finish("--run", "it", *endured.asked, largest_bytes=9000)
    assert code == 1, told
    last = told.strip().splitlines()[-1]
    assert re.search(r"too large|No space left", last)
    assert "make room and go on with: xentbench bench --resume it --results" in last
    assert "Traceback" not in told
    folder = endured.folder / "runs" / "it"
    assert not (folder / "report.html").exists()
    cells = endured.cells()
    assert 0 < len(cells) < len(endured.expected())

    resume = ("--resume", "it", "--plugin", str(endured.plugin))
    process = endured.start(*resume)
    while endured.lines() <= len(cells) and process.poll() is None:
        time.sleep(0.02)
    code, told = endured.finish(*resume)
    assert code == 2
    assert f"run it is being written by process {process.pid}" in told
    endured.kill(process, after=endured.random.uniform(0, 0.5), lines=0)
    assert cells.items() <= endured.cells().items()

    endured.kill(endured.start(*resume), after=endured.random.uniform(0, 1), lines=-1)
    code, told = endured.finish(*resume)
    assert code == 1, told
    assert endured.cells() == endured.expected()
    assert (folder / "report.html").exists()
    sittings = json.loads((folder / "run.json").read_text())["sittings"]
    assert [one["ended"] for one in sittings if one["ended"]][-1] == "finished"
    assert sum(one["seed"] is None for one in sittings) >= 1

    endured.plugin.write_text(endured.plugin.read_text() + "\n")
    code, told = endured.finish(*resume)
    assert (code, len(told.strip().splitlines())) == (2, 1)
    assert "the source of good (losses.py)" in told


@pytest.mark.slow
def test_twenty_kills_at_random_moments_cost_no_cell(endured: Endured, tmp_path: Path):
    endured.classes, endured.phases = 12, ("forward-no-grad", "forward", "backward")
    asked = ("--run", "it", *endured.asked)  # the same command line begins the run and goes on with it
    for _ in range(20):
        process = endured.start(*asked)
        endured.kill(process, after=endured.random.uniform(0, 6), lines=-1)
    code, told = endured.finish(*asked)
    assert code == 1, told
    (tmp_path / "calm").mkdir()
    calm = Endured(tmp_path / "calm", endured.classes, endured.phases)
    assert calm.finish("--run", "it", *calm.asked)[0] == 1
    assert endured.cells() == calm.cells() == endured.expected()


@pytest.mark.slow
def test_eight_shards_of_which_a_third_are_killed_and_resumed_are_the_whole(endured: Endured, tmp_path: Path):
    endured.classes = 16
    killed = endured.random.sample(range(1, 9), 3)
    for number in range(1, 9):
        share = ("--run", "it", "--shard", f"{number}/8", *endured.asked)
        if number in killed:
            endured.kill(endured.start(*share), after=endured.random.uniform(0, 6), lines=-1)
            # Killed before it began a run, there is none to resume: the same command line begins it.
            if (endured.folder / "runs" / "it" / "run.json").exists():
                share = ("--resume", "it", "--shard", f"{number}/8", "--plugin", str(endured.plugin))
        code, told = endured.finish(*share)
        assert code == 1, told
    (tmp_path / "calm").mkdir()
    calm = Endured(tmp_path / "calm", endured.classes)
    assert calm.finish(*calm.asked)[0] == 1
    assert endured.cells() == calm.cells() == endured.expected()
    assert len(list((endured.folder / "runs" / "it").glob("journal-*of8.jsonl"))) == 8
    code, told = endured.finish("--resume", "it", "--plugin", str(endured.plugin))
    assert code == 2
    assert "the shards (was 8, is 1)" in told


@pytest.mark.slow
def test_two_shards_may_run_at_once(endured: Endured):
    endured.classes, endured.phases = 4, ("forward",)
    shares = [endured.start("--run", "it", "--shard", f"{number}/2", *endured.asked) for number in (1, 2)]
    for share in shares:
        assert share.wait(600) == 1
        share.communicate()
    assert endured.cells() == endured.expected()
