from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from worker_fixtures import ONE_GOOD, eventually_gone, heed_interrupts, plugin

from xentbench import templates, workers
from xentbench.spec import Description, Phase, Source, Status
from xentbench.templates import Execed, Forked
from xentbench.workers import WARM_HEAP, Worker, WorkerError

pytestmark = pytest.mark.skipif(not templates._forks_here(), reason="Linux without an accelerator only")

TELLS = """
import os, pathlib, subprocess, sys, tempfile

def tell(*what):
    pathlib.Path(__file__).with_suffix(".told").write_text(repr(what))

@implementation("tells")
def tells(input, target, **options):
    tell(dict(os.environ), open("/proc/self/environ").read(), os.getcwd(), tempfile.gettempdir(), sys.path[0],
         os.sched_getaffinity(0), os.getsid(0) == os.getpid(), len(os.listdir("/proc/self/fd")), hash("xentbench"))
    return F.cross_entropy(input, target)

@implementation("leaves-children")
def leaves_children(input, target, **options):
    tell(subprocess.Popen(["sh", "-c", "sleep 0.1 & exec sleep 300"]).pid)
    return F.cross_entropy(input, target)

@implementation("leaves-orphans")
def leaves_orphans(input, target, **options):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
        os._exit(0)
    os.wait()
    return F.cross_entropy(input, target)
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch):
    """No template is there yet; what the test starts ends with it."""
    monkeypatch.setattr(templates, "_started", {})
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    yield
    templates._end_all()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin(tmp_path_factory.mktemp("telling"), ONE_GOOD + TELLS)


def load(worker: Worker, file: Path, name: str) -> Worker:
    workers.load(worker, Description(name, Source("file", str(file)), file.name), threads=1)
    return worker


def set_up(worker: Worker):
    return worker.ask("set-up", {"problem": "N=64,C=33", "seed": 5, "phases": list(Phase)})


def told(worker: Worker, file: Path, name: str = "tells"):
    set_up(load(worker, file, name))
    return eval(file.with_suffix(".told").read_text())  # noqa: S307 - our own text


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def test_forked_and_execed_workers_answer_with_the_same_bytes(file: Path):
    answers = []
    for template in (None, workers.template({})):
        with load(Worker(template=template), file, "good") as worker:
            assert isinstance(worker._process, Forked if template else Execed)
            set_up(worker)
            answers.append(worker.ask("answer")[1])
    assert answers[0].keys() == answers[1].keys()
    assert all(torch.equal(answers[0][name], answers[1][name]) for name in answers[0])


@pytest.mark.usefixtures("fresh")
def test_a_fork_is_given_what_an_execed_worker_is_given_and_nothing_else(file: Path):
    core = max(os.sched_getaffinity(0))
    seen = []
    for template in (None, workers.template({"PYTHONHASHSEED": "7"})):
        with Worker({"PYTHONHASHSEED": "7", "TORCHINDUCTOR_CACHE_DIR": "there"}, core, template) as worker:
            seen.append(told(worker, file))
            scratch = worker._scratch
        environment, at_exec, *folders, cores, leads, descriptors, hashed = seen[-1]
        assert "hidden" not in str(environment) + at_exec
        assert environment["TORCHINDUCTOR_CACHE_DIR"] == "there"
        assert folders == [scratch] * 3
        assert (cores, leads) == ({core}, True)
        assert descriptors <= seen[0][-2]
        assert hashed == seen[0][-1]
    assert seen[0][0].keys() == seen[1][0].keys()


@pytest.mark.usefixtures("fresh")
def test_workers_end_with_their_template_and_the_next_is_execed(file: Path):
    template = workers.template({})
    assert template is not None
    with Worker(template=template) as worker:
        pid = load(worker, file, "good").ask("hello")[0]["pid"]
        assert children(template.pid) == [pid]
        template.kill()
        assert eventually_gone(pid)
        with pytest.raises(WorkerError) as caught:
            set_up(worker)
        assert caught.value.status is Status.CRASHED
    assert workers.template({}) is template
    with load(Worker(template=template), file, "good") as worker:
        assert isinstance(worker._process, Execed)
        set_up(worker)


CTRL_C = """
import sys
from xentbench import workers
from xentbench.spec import Description, Source
worker = workers.Worker(template=workers.template({}))
workers.load(worker, Description("hangs", Source("file", sys.argv[1]), "losses.py"), threads=1)
print(worker.ask("hello")[0]["pid"], worker._process.keeper_pid, flush=True)
with workers.stoppable(1) as pool:
    pool.submit(worker.ask, "set-up", {"problem": "N=4,C=3", "seed": 0, "phases": ["forward"]}).result()
"""


def test_ctrl_c_ends_at_once_with_workers_and_templates(tmp_path: Path):
    file = plugin(
        tmp_path, "@implementation('hangs')\ndef hangs(x, y, **o):\n    open('begun', 'w')\n    while True: pass\n"
    )
    command = [sys.executable, "-c", CTRL_C, str(file)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, env=environment, preexec_fn=heed_interrupts, **pipes)  # noqa: PLW1509 - no threads
    assert run.stdout is not None
    pids = [int(pid) for pid in run.stdout.readline().split()]
    for _ in range(1000):
        if list(tmp_path.glob("*/begun")):
            break
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=120)
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert all(eventually_gone(pid) for pid in pids)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("xentbench")] == []


@pytest.mark.usefixtures("fresh")
def test_a_template_that_is_stopped_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(templates, "END_S", 0.2)
    template = workers.template({})
    assert template is not None
    worker = Worker(template=template)
    os.kill(template.pid, signal.SIGSTOP)
    worker.close()
    assert not worker.alive
    assert eventually_gone(template.pid)


def test_the_rest_of_a_process_group_ends_with_its_worker_and_no_zombie_stays(file: Path):
    template = workers.template({})
    assert template is not None
    with Worker(template=template) as worker:
        (child,) = told(worker, file, "leaves-children")
        assert Path(f"/proc/{child}").exists()
    assert eventually_gone(child)
    with load(Worker(template=template), file, "leaves-orphans") as worker:
        set_up(worker)
    for _ in range(100):
        if not children(template.pid):
            break
        time.sleep(0.05)
    assert children(template.pid) == []


def test_an_idle_worker_that_was_killed_is_told_of_once_it_is_asked(file: Path):
    with load(Worker(template=workers.template({})), file, "good") as worker:
        os.kill(worker._process.pid, signal.SIGTERM)
        with pytest.raises(WorkerError, match="SIGTERM"):
            set_up(worker)


class FakeTemplate:
    def __init__(self, environment):
        self.environment = environment

    def end(self): ...


@pytest.mark.usefixtures("fresh")
def test_one_template_serves_what_differs_in_folders_only(monkeypatch):
    monkeypatch.setattr(templates, "Template", FakeTemplate)
    plain, warm = workers.template({}), workers.template(WARM_HEAP)
    assert plain is not warm
    assert workers.template(workers.build_caches(Path("there"))) is plain
    assert workers.template({**WARM_HEAP, "PYTHONHASHSEED": "1"}) not in (plain, warm)
    assert workers.template({"OMP_NUM_THREADS": "2"}) is None
    assert workers.template({}, compiles=True) is None
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    elsewhere = workers.template({})
    assert elsewhere is not None
    assert elsewhere.environment["PYTHONPATH"] == str(Path("elsewhere").absolute())


@pytest.mark.usefixtures("fresh")
def test_a_template_that_cannot_start_costs_no_worker(file: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", shutil.which("false"))
        template = workers.template({})
    with load(Worker(template=template), file, "good") as worker:
        assert isinstance(worker._process, Execed)
