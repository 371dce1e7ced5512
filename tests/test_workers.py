from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_fixtures import ONE_GOOD, eventually_gone, plugin

from xentbench import pace, workers
from xentbench.spec import Description, Source, Status
from xentbench.templates import Template
from xentbench.workers import Worker, WorkerError

FAULTS = {
    "raises": ("raise ValueError('no luck today')", Status.RAISED, "no luck today"),
    "refuses": ("raise NotImplementedError('only on Sundays')", Status.UNSUPPORTED, "only on Sundays"),
    "leaves": ("import os; os._exit(0)", Status.EXITED, "code 0 and no answer"),
    "exits": ("raise SystemExit(0)", Status.RAISED, "SystemExit"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Status.CRASHED, "SIGSEGV"),
    "no_memory": ("torch.empty(2**50)", Status.OUT_OF_MEMORY, "allocate"),
    "chatters": ("print('x' * 10**6, flush=True); import os; os._exit(3)", Status.EXITED, "code 3"),
    "ends_its_group": ("import os, signal; os.killpg(0, signal.SIGKILL)", Status.CRASHED, "SIGKILL"),
    "asks_its_children": (
        "import subprocess; raise ValueError(subprocess.call(['false']), subprocess.call(['true']))",
        Status.RAISED,
        "(1, 0)",
    ),
    "leaves_a_thread": (
        "import os, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); os._exit(7)",
        Status.EXITED,
        "code 7",
    ),
    "interrupts": ("raise KeyboardInterrupt", Status.RAISED, "KeyboardInterrupt"),
}


WRITES_LATE = """
import os
def leave(code, leave=os._exit):
    for fd in range(3, 64):
        try:
            os.write(fd, b"1234")
        except OSError:
            pass
    leave(code)
os._exit = leave
"""


WRITES_SOON = """
import os, threading
def write():
    for fd in range(3, 64):
        try:
            os.write(fd, b"1234")
        except OSError:
            pass
threading.Timer(0.3, write).start()
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bodies = [
        f"@implementation('{name.replace('_', '-')}')\ndef {name}(input, target, **options):\n    {body}\n"
        for name, (body, _, _) in FAULTS.items()
    ]
    hang = "@implementation('hangs')\ndef hangs(input, target, **o):\n    while True: pass\n"
    return plugin(tmp_path_factory.mktemp("faulty"), ONE_GOOD + "\n".join([*bodies, hang]))


@pytest.fixture(scope="module", params=["exec'd", "forked"])
def template(request: pytest.FixtureRequest) -> Template | None:
    """Both kinds of start keep every promise; where templates cannot be had, both are exec'd."""
    return workers.template({}) if request.param == "forked" else None


def ready(file: Path, name: str, template: Template | None) -> Worker:
    worker = Worker(template=template)
    workers.load(worker, Description(name, Source("file", str(file)), file.name), threads=1)
    return worker


def asks_once(worker: Worker):
    return worker.ask("set-up", {"problem": "N=4,C=3", "seed": 0, "phases": ["forward"]})


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_in_its_own_status_with_its_message(faulty: Path, template, name: str):
    _, status, told = FAULTS[name]
    with ready(faulty, name.replace("_", "-"), template) as worker, pytest.raises(WorkerError) as caught:
        asks_once(worker)
    assert caught.value.status is status
    assert told in caught.value.reason
    assert len(caught.value.reason) < 4500


def test_a_worker_outlives_an_exception_and_not_a_crash(faulty: Path, template):
    with ready(faulty, "raises", template) as worker:
        for _ in range(2):
            with pytest.raises(WorkerError) as caught:
                asks_once(worker)
            assert not caught.value.lost
    with ready(faulty, "crashes", template) as worker:
        with pytest.raises(WorkerError) as caught:
            asks_once(worker)
        assert caught.value.lost
        assert not worker.alive


def test_a_hang_ends_at_the_deadline_and_leaves_no_process(faulty: Path, template, monkeypatch):
    monkeypatch.setattr(workers, "DEADLINES_S", {**workers.DEADLINES_S, "set-up": 1.0})
    worker = ready(faulty, "hangs", template)
    pid = worker._process.pid
    with pytest.raises(WorkerError) as caught:
        asks_once(worker)
    assert caught.value.status is Status.TIMED_OUT
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_gets_a_scrubbed_environment_and_a_scratch_folder_that_goes(tmp_path: Path, template, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    text = (
        "import os\n@implementation('tells')\ndef tells(input, target, **o):\n"
        "    raise ValueError(repr((os.environ.get('SECRET_TOKEN'), os.getcwd(), os.environ['OMP_NUM_THREADS'])))\n"
    )
    with ready(plugin(tmp_path, text), "tells", template) as worker, pytest.raises(WorkerError) as caught:
        asks_once(worker)
    secret, folder, threads = eval(caught.value.reason.removeprefix("ValueError: "))  # noqa: S307 - our own text
    assert (secret, threads) == (None, "1")
    assert Path(folder) != Path.cwd()
    assert not Path(folder).exists()


def test_a_relative_pythonpath_means_the_folder_that_it_meant_outside(tmp_path: Path, monkeypatch):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "beside.py").write_text("NAME = 'tells'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "src")
    text = "import beside\n@implementation(beside.NAME)\ndef tells(input, target, **o):\n    return input.sum()\n"
    with ready(plugin(tmp_path, text), "tells", None) as worker:  # a template has it from its start
        assert worker.alive


DAEMONS = """
import os, subprocess, time
def tell(pid):
    with open(__file__ + ".pids", "a") as file:
        file.write(f"{pid} ")
tell(subprocess.Popen(["sleep", "1000"], env={}, start_new_session=True).pid)
if os.fork() == 0:
    os.setsid()
    daemon = os.fork()
    if daemon == 0:
        time.sleep(1000)
    tell(daemon)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("start", ["Worker()", "Worker(template=workers.template({}))"])
def test_a_worker_and_whatever_it_started_die_with_its_parent(start: str, tmp_path: Path):
    file = plugin(tmp_path, DAEMONS + ONE_GOOD)
    script = (
        f"import time\nfrom xentbench import workers\nfrom xentbench.workers import Worker\nworker = {start}\n"
        "from xentbench.spec import Description, Source\n"
        f"workers.load(worker, Description('good', Source('file', {str(file)!r}), ''), threads=1)\n"
        "print(worker.ask('hello')[0]['pid'], worker._process.keeper_pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = list(map(int, parent.stdout.readline().split()))
    daemons = list(map(int, Path(f"{file}.pids").read_text().split()))
    assert len(daemons) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for pid in [*pids, *daemons]:
        assert eventually_gone(pid)


def test_bytes_after_the_final_record_are_a_forgery(tmp_path: Path, template):
    file = plugin(tmp_path, WRITES_LATE + ONE_GOOD)
    worker = ready(file, "good", template)
    asks_once(worker)
    worker.close()
    assert worker.ending == (Status.FORGED, "stop: bytes came that answer no request")
    honest = ready(plugin(tmp_path, ONE_GOOD, "honest.py"), "good", template)
    honest.close()
    assert honest.ending is None


def test_a_record_that_nobody_asked_for_is_a_forgery_before_the_next_request(tmp_path: Path, template):
    file = plugin(tmp_path, WRITES_SOON + ONE_GOOD)
    with ready(file, "good", template) as worker:
        for _ in range(200):
            if not worker._channel.is_silent():
                break
            time.sleep(0.02)
        with pytest.raises(WorkerError) as caught:
            asks_once(worker)
    assert caught.value.status is Status.FORGED
    assert caught.value.lost


def test_a_busy_machine_makes_a_deadline_longer_and_says_so(faulty: Path, template, monkeypatch):
    monkeypatch.setattr(workers, "DEADLINES_S", {**workers.DEADLINES_S, "set-up": 0.2})
    monkeypatch.setattr(pace, "slowness", lambda: 3.0)
    with ready(faulty, "hangs", template) as worker, pytest.raises(WorkerError, match="as long: the machine is busy"):
        asks_once(worker)


def test_a_source_is_described_with_what_it_refuses_and_what_is_broken(faulty: Path, tmp_path: Path):
    found = workers.describe(Source("file", str(faulty)), ["N=4,C=3"])
    assert {entry.name for entry in found} == {"good", "hangs", *(name.replace("_", "-") for name in FAULTS)}
    two = plugin(
        tmp_path,
        "two = implementation('two', supports=lambda p: 'two classes only' if p.num_classes != 2 else None,"
        " packages=())(F.cross_entropy)\n"
        "lacks = implementation('lacks', packages=('no_such_package_here',))(F.cross_entropy)\n",
    )
    described = {entry.name: entry for entry in workers.describe(Source("file", str(two)), ["cross_entropy:N=4,C=3"])}
    assert described["two"].refusals == {"cross_entropy:N=4,C=3": "two classes only"}
    assert described["lacks"].status is Status.UNSUPPORTED
    assert "pip install no-such-package-here" in described["lacks"].reason


def test_a_source_that_ends_its_worker_is_an_entry_and_not_the_end(tmp_path: Path):
    (entry,) = workers.describe(Source("file", str(plugin(tmp_path, "import os\nos._exit(5)\n"))), [])
    assert entry.status is Status.EXITED
    assert "code 5" in entry.reason
