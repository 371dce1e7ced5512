"""The command line from outside: exit codes, one-line errors before long work, JSON for machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from safetensors.torch import save_file
from worker_fixtures import ONE_GOOD, heed_interrupts, plugin

ROOT = Path(__file__).parent.parent
VERBS = ("list", "parity", "bench", "report", "compare", "selftest")


def xentbench(*arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "xentbench", *arguments]
    environment = {**os.environ, "CI": "1", "COLUMNS": "100"}
    settings = {"cwd": cwd, "timeout": timeout, "env": environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str):
    told = xentbench(verb, "--help")
    assert told.returncode == 0
    assert "Example: xentbench" in told.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)])
def test_help_and_version_do_not_import_torch_or_pandas(arguments: list[str]):
    script = (
        "import sys\nfrom xentbench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as error:\n    assert not error.code\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, *arguments]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "[]"


BAD = {
    "no such verb": (["benhc"], "benhc"),
    "no such option": (["bench", "--quikc"], "--quikc"),
    "unknown implementation": (["bench", "naiv", "--results", "{tmp}/r"], "did you mean 'naive'"),
    "unknown implementation by name": (["parity", "naiv"], "did you mean 'naive'"),
    "a file without a name": (["parity", "{tmp}/raises.py"], "raises.py:NAME, with the name of the function in it"),
    "unknown grid": (["bench", "--grid", "defualt"], "did you mean 'default'"),
    "unknown panel": (["parity", "--grid", "fll"], "did you mean 'full'"),
    "a panel is not timed": (["bench", "--grid", "full"], "grid 'full' is unknown"),
    "unknown required option": (["parity", "naive", "--require-option", "weight,reducton"], "did you mean 'reduction'"),
    "required and not asked": (["parity", "--problem", "N=8,C=10", "--require-option", "k-dim"], "ask a whole panel"),
    "no baseline": (["parity", "--baseline", "{tmp}/absent.json"], "No such file"),
    "no baseline's file": (["parity", "--baseline", "{tmp}/notes.txt"], "--baseline expected a file"),
    "baseline and seed": (["parity", "--baseline", "{tmp}/notes.txt", "--seed", "3"], "brings its own panel and seed"),
    "baseline and grid": (["parity", "--baseline", "{tmp}/x", "--grid", "full"], "brings its own panel and seed"),
    "baseline of some problems": (["parity", "--write-baseline", "{tmp}/x", "--dtype", "float64"], "a whole panel"),
    "baseline nowhere": (["parity", "--write-baseline", "{tmp}/no/x"], "--write-baseline expected a file"),
    "baseline is a folder": (["parity", "--write-baseline", "{tmp}"], "it is a folder"),
    "no found file": (["parity", "--found", "{tmp}/notes.txt"], "--found expected a file"),
    "unknown phase": (["bench", "--phase", "backwards"], "did you mean 'backward'"),
    "unknown device": (["bench", "--device", "gpu"], "device 'gpu' is unknown"),
    "unknown dtype": (["bench", "--dtype", "float31"], "did you mean 'float32'"),
    "negative batch": (["bench", "--batch-size", "-3"], "must be 0 or more, got -3"),
    "negative classes": (["bench", "--num-classes", "-3"], "must be 1 or more, got -3"),
    "sizes and grid": (["bench", "--grid", "small", "--num-classes", "3"], "without --grid"),
    "bad problem": (["parity", "--problem", "N=8,C"], "expected AXIS=VALUE"),
    "untimed problem": (["bench", "--problem", "N=3,C=5,invalid=reduction"], "only parity asks"),
    "compile with a baseline": (["parity", "--compile", "--found", "f.json"], "--compile judges another program"),
    "bad budget": (["bench", "--budget", "soon"], "expected a duration such as 90s"),
    "plugin is no Python file": (["bench", "--plugin", "{tmp}/notes.txt", "--results", "{tmp}/r"], "is no Python file"),
    "plugin does not exist": (["parity", "--plugin", "{tmp}/absent.py"], "does not exist"),
    "plugin raises at import": (["parity", "--plugin", "{tmp}/raises.py"], "could not be loaded: ValueError: no"),
    "plugin holds nothing": (["parity", "--plugin", "{tmp}/empty.py"], "holds no implementation"),
    "object is not callable": (["parity", "{tmp}/empty.py:number"], "could not be loaded"),
    "object is missing": (["parity", "{tmp}/empty.py:los"], "has no 'los'"),
    "no logits file": (["bench", "--logits", "{tmp}/absent.safetensors", "--results", "{tmp}/r"], "absent.safetensors"),
    "logits of wrong shape": (["bench", "--logits", "{tmp}/shape.safetensors", "--results", "{tmp}/r"], "target"),
    "logits of wrong dtype": (["parity", "--logits", "{tmp}/dtype.safetensors"], "logits"),
    "targets out of range": (["parity", "--logits", "{tmp}/range.safetensors"], "target"),
    "results folder": (["bench", "--results", "{tmp}/notes.txt"], "--results expected a folder that can be written"),
    "json file": (["list", "--json", "{tmp}/no/such/folder/x.json"], "--json expected a file that can be written"),
    "markdown file": (["bench", "--markdown", "{tmp}/no/x.md"], "--markdown expected a file that can be written"),
    "junit file": (["parity", "--junit", "{tmp}"], "--junit expected a file that can be written"),
    "two results on one output": (
        ["bench", "--json", "-", "--markdown", "-"],
        "--json and --markdown expected at most",
    ),
    "no settings": (["list", "--config", "{tmp}/absent.toml"], "absent.toml expected a file that can be read"),
    "settings of binary": (["bench", "--config", "{tmp}/dtype.safetensors"], "dtype.safetensors expected TOML"),
    "settings of nothing": (["bench", "--config", "{tmp}/unknown.toml"], "did you mean 'budget'"),
    "no such revision": (["compare", "no-such-rev:examples/tutorial.py:loss", "naive"], "no revision 'no-such-rev'"),
    "a margin that is no share": (["compare", "naive", "naive", "--margin", "5"], "--margin expected a share"),
    "a margin of runs": (["compare", "{tmp}/run", "{tmp}/run", "--margin", "5%"], "between two runs it is 2%"),
    "a markdown file in no folder": (
        ["compare", "naive", "naive", "--markdown", "{tmp}/no/such.md"],
        "--markdown expected a file that can be written",
    ),
    "a run and an implementation": (["compare", "{tmp}/run", "naive"], "got one of each"),
    "shard of nothing": (["bench", "--shard", "9/8", "--run", "r"], "--shard expected I/N"),
    "shard without a run": (["bench", "--shard", "3/8"], "needs --run NAME"),
    "run and resume": (["bench", "--run", "r", "--resume", "latest"], "give one of them"),
    "run is no name": (["bench", "naive", "--run", "../r", "--results", "{tmp}/r"], "expected a plain name"),
    "run is a file": (["bench", "naive", "--run", "notes.txt", "--results", "{tmp}"], "is a file"),
    "resume of no run": (["bench", "--resume", "latest", "--results", "{tmp}/none"], "was not found"),
    "resume of an old run": (["bench", "--resume", "{tmp}/old"], "did not keep what was asked"),
    "no device of all": (["bench", "--device", "xpu:all"], "--device xpu:all expected xpu devices"),
    "no such run": (["report", "latest", "--results", "{tmp}/none"], "was not found"),
    "report output": (["report", "latest", "--results", "{tmp}/none", "--output", "/dev/null/x"], "was not found"),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "notes.txt").write_text("hello")
    (folder / "unknown.toml").write_text("[tool.xentbench]\nbugdet = '5m'")
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    (folder / "old").mkdir()
    (folder / "old" / "run.json").write_text('{"schema": 1, "run": "old"}')
    plugin(folder, "raise ValueError('no')\n", "raises.py")
    plugin(folder, "number = 7\n", "empty.py")
    good, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    save_file({"logits": good, "target": labels[:3]}, folder / "shape.safetensors")
    save_file({"logits": labels.reshape(4, 1).clone(), "target": labels}, folder / "dtype.safetensors")
    save_file({"logits": good, "target": labels + 5}, folder / "range.safetensors")
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_exit_2_before_anything_long(case: str, bad_files: Path):
    arguments, told = BAD[case]
    seen = xentbench(*(argument.replace("{tmp}", str(bad_files)) for argument in arguments), timeout=60)
    assert seen.returncode == 2, seen.stderr
    assert told in seen.stderr
    assert len(seen.stderr.strip().splitlines()) == 1, seen.stderr
    assert "Traceback" not in seen.stderr


def test_a_device_that_is_required_and_absent_is_exit_3(tmp_path: Path):
    seen = xentbench("bench", "--require", "cuda:99", "--results", str(tmp_path))
    assert seen.returncode == 3
    assert "cuda:99" in seen.stderr
    assert list(tmp_path.iterdir()) == []


def test_list_shows_what_is_found_and_what_is_broken_with_its_message(tmp_path: Path):
    file = plugin(tmp_path, ONE_GOOD + "naive = implementation('naive')(F.cross_entropy)\n")
    out = tmp_path / "list.json"
    seen = xentbench("list", "--plugin", str(file), "--json", str(out))
    assert seen.returncode == 1
    told = json.loads(out.read_text())
    assert told["schema"] == 1
    entries = {entry["name"]: entry for entry in told["implementations"]}
    assert set(entries["good"]) == {"name", "origin", "status", "reason"}
    assert entries["good"]["status"] == "passed"
    assert "defined twice" in entries["naive"]["reason"]
    assert "implementations/naive.py" in entries["naive"]["reason"]
    assert "losses.py" in entries["naive"]["reason"]


def test_the_tutorials_bug_fails_parity_by_name_and_names_the_sign(tmp_path: Path):
    out = tmp_path / "parity.json"
    seen = xentbench("parity", "examples/tutorial_bug.py:custom_cross_entropy", "--json", str(out), cwd=ROOT)
    assert seen.returncode == 1
    assert "sign" in seen.stdout
    told = json.loads(out.read_text())
    entry = told["implementations"]["custom_cross_entropy"]
    assert (told["schema"], told["contract"], entry["verdict"], entry["grade"]) == (1, "cross_entropy", "fail", "FAIL")
    assert set(entry["failures"][0]) == {"problem", "quantity", "message", "reproduce", "counterexample", "snippet"}
    assert "sign" in entry["failures"][0]["message"]
    assert "logits [[0, 0]]" in seen.stdout
    assert entry["failures"][0]["counterexample"] in seen.stdout
    again = xentbench(*entry["failures"][0]["reproduce"].split()[1:], cwd=ROOT)
    assert again.returncode == 1
    assert "sign" in again.stdout


def test_naive_passes_with_a_declared_deviation_that_occurs(tmp_path: Path):
    out = tmp_path / "parity.json"
    assert xentbench("parity", "naive", "--json", str(out)).returncode == 0
    entry = json.loads(out.read_text())["implementations"]["naive"]
    assert entry["verdict"] == "pass"
    assert "declared-deviation:unshifted-exponent" in entry["labels"]


def test_a_declaration_that_no_longer_occurs_is_a_failure(tmp_path: Path):
    text = ONE_GOOD.replace('("good")', '("good", deviations=[Deviation("unshifted-exponent", "not so")])')
    file = plugin(tmp_path, "from xentbench import Deviation\n" + text)
    seen = xentbench("parity", f"{file}:good")
    assert seen.returncode == 1
    assert "did not occur" in seen.stdout


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("run")
    text = ONE_GOOD + (
        "@implementation('negated')\ndef negated(input, target):\n    return -F.cross_entropy(input, target)\n"
        "@implementation('aborts')\ndef aborts(input, target):\n    import os; os.abort()\n"
        "@implementation('<b>two</b>'.strip('<b>/'), supports=lambda p: '<script>only two</script>')\n"
        "def two(input, target):\n    return F.cross_entropy(input, target)\n"
    )
    file = plugin(folder, text)
    sizes = ["--batch-size", "8", "--num-classes", "10", "--num-classes", "20"]
    chosen = [name for wanted in ("good", "negated", "aborts", "two") for name in ("--implementation", wanted)]
    budget = [
        "--budget",
        "40s",
        "--workers",
        "1",
        "--results",
        str(folder / "runs"),
        "--json",
        str(folder / "out.json"),
    ]
    return folder, xentbench("bench", "--plugin", str(file), *chosen, *sizes, *budget, "--no-train", "--seed", "7")


def test_a_run_that_had_no_time_to_time_anything_says_so_and_exits_with_3(tmp_path: Path):
    arguments = ("f-cross-entropy", "--problem", "N=8,C=10", "--budget", "5s", "--results", str(tmp_path))
    seen = xentbench("bench", *arguments)
    told = " ".join(seen.stdout.split())
    assert (
        "4 cells skipped: the budget of 5 s, less what its report needs, left no time for it: raise --budget (4)"
        in told
    )
    assert seen.returncode == 3
    assert seen.stderr.splitlines()[-1].startswith("xentbench: nothing was timed: the budget of 5 s, less what")


def test_a_run_has_a_cell_for_every_implementation_problem_and_phase(small_run):
    folder, seen = small_run
    told = json.loads((folder / "out.json").read_text())
    assert len(told["cells"]) == 4 * 2 * 4
    statuses = {cell["implementation"]: cell["status"] for cell in told["cells"]}
    assert statuses == {"good": "passed", "negated": "wrong-value", "aborts": "crashed", "two": "unsupported"}
    for cell in told["cells"]:
        timed = cell["implementation"] == "good"
        assert (cell["latency_s"] is not None) == (cell["ratio"] is not None) == timed
        assert (cell["verdict"] is not None) == timed
        assert cell["reason"] or timed
        assert isinstance(cell["labels"], list)
    assert seen.returncode == 1
    assert "report: " in seen.stdout.splitlines()[-1]
    assert "cells" in seen.stderr.splitlines()[0]


def test_a_run_leaves_its_tables_page_and_figures(small_run):
    folder, _ = small_run
    path = Path(json.loads((folder / "out.json").read_text())["path"])
    for name in ("table.csv", "summary.md", "report.md", "report.html", "run.json", "journal.jsonl", "samples.jsonl"):
        assert (path / name).stat().st_size > 0, name
    assert list(path.rglob("*.svg"))
    assert list(path.rglob("*.png"))
    assert "<script>only two" not in (path / "report.html").read_text()
    head = json.loads((path / "run.json").read_text())
    assert head["seed"] == 7
    assert str(folder) not in json.dumps(head)


def test_a_report_is_made_again_from_the_journal_alone(small_run, tmp_path: Path):
    folder, _ = small_run
    seen = xentbench("report", "latest", "--results", str(folder / "runs"), "--output", str(tmp_path / "again"))
    assert seen.returncode == 0
    assert (tmp_path / "again" / "report.html").exists()


def test_a_run_is_told_in_short_and_to_other_tools(small_run, tmp_path: Path):
    folder, _ = small_run
    where = ("report", "latest", "--results", str(folder / "runs"), "--output", str(tmp_path))
    seen = xentbench(*where, "--markdown", "-", "--pytest-benchmark", str(tmp_path / "b.json"))
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout == (tmp_path / "summary.md").read_text()
    assert seen.stdout.startswith("**Cross-entropy in PyTorch.** Of 4 implementations")
    told = json.loads((tmp_path / "b.json").read_text())["benchmarks"]
    assert {each["params"]["implementation"] for each in told} == {"good"}
    assert len(told) == 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("option", ["--markdown", "--pytest-benchmark", "--json"])
def test_a_full_disk_is_one_line(small_run, tmp_path: Path, option: str):
    folder, _ = small_run
    seen = xentbench("report", "--results", str(folder / "runs"), "--output", str(tmp_path), option, "/dev/full")
    assert (seen.returncode, seen.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in seen.stderr


def test_a_project_sets_its_plugins_and_grids_and_the_verdicts_go_to_a_ci(tmp_path: Path):
    plugin(tmp_path, ONE_GOOD + "@implementation('bad')\ndef bad(input, target):\n    return input.sum()\n")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.xentbench]\nplugin = 'losses.py'\nimplementation = ['good', 'bad']\ngrid = 'ours'\n"
        "[tool.xentbench.grids]\nours = ['N=8,C=10', 'N=4,C=3,dtype=bfloat16']\n"
    )
    (tmp_path / "deep").mkdir()
    seen = xentbench("parity", "--junit", "-", cwd=tmp_path / "deep")
    assert seen.returncode == 1, seen.stderr
    assert "settings of ../pyproject.toml: implementation, plugin, grid" in seen.stderr.splitlines()[0]
    suites = {suite.get("name"): suite for suite in ET.fromstring(seen.stdout)}  # noqa: S314 - our own
    assert {name: (suite.get("tests"), suite.get("failures")) for name, suite in suites.items()} == {
        "good": ("2", "0"),
        "bad": ("2", "2"),
    }
    again = xentbench("parity", "--junit", "-", "--no-config", "--problem", "N=8,C=10", "naive", cwd=tmp_path)
    assert again.returncode == 0
    assert "settings" not in again.stderr


def test_a_run_compared_with_itself_is_never_worse_and_a_margin_that_is_set_is_of_implementations(
    small_run, tmp_path: Path
):
    folder, _ = small_run
    run = next((folder / "runs").iterdir()).name
    seen = xentbench("compare", run, run, "--results", str(folder / "runs"), "--inconclusive", "pass")
    assert seen.returncode == 0, seen.stderr
    assert "worse" not in seen.stdout
    settings = tmp_path / "pyproject.toml"
    settings.write_text(f"[tool.xentbench]\nresults = '{folder / 'runs'}'\nmargin = '5%'\ninconclusive = 'pass'\n")
    assert xentbench("compare", run, run, "--config", str(settings)).stdout == seen.stdout


def test_two_implementations_duel_directly(tmp_path: Path):
    slow = ONE_GOOD.replace("good", "slow").replace("    return", "    F.cross_entropy(input, target)\n    return", 1)
    file = plugin(tmp_path, ONE_GOOD + slow)
    sizes = ["--problem", "N=64,C=100", "--phase", "forward", "--workers", "1"]
    seen = xentbench("compare", f"{file}:good", f"{file}:slow", *sizes, "--json", str(tmp_path / "out.json"))
    (entry,) = json.loads((tmp_path / "out.json").read_text())["differences"]
    assert entry["outcome"] in ("worse", "inconclusive"), seen.stderr
    assert seen.returncode == (1 if entry["outcome"] == "worse" else 3)
    assert entry["ratio"] > 1.2


def test_who_is_not_right_is_told_below_the_table_and_a_run_that_is_not_there_by_name(tmp_path: Path, small_run):
    file = plugin(tmp_path, ONE_GOOD + "@implementation('bad')\ndef bad(input, target):\n    return input.sum()\n")
    sizes = ["--problem", "N=8,C=10", "--phase", "forward", "--workers", "1"]
    first = xentbench("compare", f"{file}:bad", f"{file}:good", *sizes)
    assert first.returncode == 3
    assert "there is nothing to compare with" in first.stdout
    assert "FIRST is not right here: bad: wrong-value" in first.stdout
    second = xentbench("compare", f"{file}:good", f"{file}:bad", *sizes)
    assert second.returncode == 1
    assert "SECOND is wrong: bad: wrong-value" in second.stdout
    folder, _ = small_run
    absent = xentbench("compare", "latest", "nope", "--results", str(folder / "runs"))
    assert absent.returncode == 2
    assert "run 'nope' was not found" in absent.stderr
    assert "known: " in absent.stderr


def test_two_revisions_duel_each_with_its_own_modules(tmp_path: Path):
    settings = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    (tmp_path / "entrant").mkdir()
    (tmp_path / "entrant" / "losses.py").write_text(
        "from torch.nn import functional as F\nfrom entrant.inner import CALLS\ndef loss(input, target):\n"
        "    for _ in range(CALLS):\n        found = F.cross_entropy(input, target)\n    return found\n"
    )
    for command in (["init"], ["add", "."], ["commit", "-m", "one"]):
        (tmp_path / "entrant" / "inner.py").write_text("CALLS = 1\n")
        subprocess.run(["git", *settings, *command], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "entrant" / "inner.py").write_text("CALLS = 4\n")
    sizes = ["--problem", "N=64,C=100", "--phase", "forward", "--workers", "1"]
    names = ["HEAD:entrant.losses:loss", "entrant.losses:loss"]
    for pair, low, high in ((names, 2.0, 8.0), (names[::-1], 1 / 8, 1 / 2)):
        seen = xentbench("compare", *pair, *sizes, "--json", "out.json", cwd=tmp_path)
        told = json.loads((tmp_path / "out.json").read_text())
        (entry,) = told["differences"]
        assert [told["first"], told["second"]] == pair
        assert entry["implementation"] == ("loss@HEAD" if pair[1].startswith("HEAD") else "loss")
        assert low < entry["ratio"] < high, seen.stderr
    (tmp_path / "entrant" / "losses.py").write_text((tmp_path / "entrant" / "losses.py").read_text() + "new = loss\n")
    unknown = [
        xentbench("compare", f"HEAD:entrant.losses:{n}", "entrant.losses:new", *sizes, cwd=tmp_path)
        for n in ("new", "lost")
    ]
    assert [seen.returncode for seen in unknown] == [3, 2]
    assert "nothing to compare with" in unknown[0].stdout
    assert "'lost'" in unknown[1].stderr


def test_an_interrupt_ends_at_once_with_130_and_keeps_what_is_finished(tmp_path: Path):
    command = [sys.executable, "-c", "from xentbench.cli import main; main()", "bench", "f-cross-entropy", "nll-*"]
    with subprocess.Popen(
        [*command, "--results", str(tmp_path), "--workers", "1", "--no-train"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - this process has no threads
    ) as process:
        try:
            for _ in range(3000):  # a busy machine may take minutes to the first finished cell
                if any(file.stat().st_size for file in tmp_path.glob("*/journal.jsonl")):
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    (head,) = tmp_path.glob("*/run.json")
    assert "seed" in json.loads(head.read_text())
    run = head.parent.name
    assert told.strip().endswith(f"go on with: xentbench bench --resume {run} --results {tmp_path}")


def test_the_judges_selftest_finds_every_planted_fault():
    seen = xentbench("selftest", "judge", "--quick", "--seed", "1")
    assert seen.returncode == 0, seen.stdout
    assert "WRONG" not in seen.stdout


def test_standard_output_can_be_json_alone():
    told = xentbench("list", "--json", "-")
    assert json.loads(told.stdout)["schema"] == 1


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path: Path):
    assert xentbench("bench", "naiv", "--results", str(tmp_path / "runs")).returncode == 2
    assert list((tmp_path / "runs").iterdir()) == []
