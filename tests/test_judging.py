"""`parity` from what is typed to what came of it: baselines, regression files, required options; real workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import xentbench
from training_fixtures import small_course
from worker_fixtures import ONE_GOOD, plugin

from xentbench import judging, junit, panel, spec, trained, training
from xentbench.judging import Judged
from xentbench.spec import Problem, Status, UsageError

NAME = "nll-log-softmax"
NOTHING = {f"axis_{name}": () for name in spec.problem_axes()} | {"grid": (), "problem": (), "logits_file": None}
HOW = {"required": (), "baseline": None, "write_baseline": None, "found": None, "compile": False, "seed": None}
HOW |= {"train": False, "train_figure": None}


def judged(*names: str, grid: str = "", problem: tuple[str, ...] = (), **how) -> Judged:
    asked = {**NOTHING, "grid": (grid,) if grid else (), "problem": problem}
    return judging.judge(judging.read(names, (), (), asked, {**HOW, **how}))


def failing(told: Judged) -> list[str]:
    return [change.message for change in told.changes if change.fails]


@pytest.fixture(scope="module")
def was(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a baseline that holds one implementation on the quick panel."""
    file = tmp_path_factory.mktemp("baseline") / "parity.json"
    told = judged(NAME, grid="quick", write_baseline=str(file), seed=7)
    assert not told.is_wrong
    assert str(file) in told.notes[0]
    return file.read_text()


def changed(was: str, folder: Path, **fields) -> str:
    record = json.loads(was)
    (folder / "parity.json").write_text(json.dumps({**record, **fields}))
    return str(folder / "parity.json")


def test_a_baseline_brings_panel_seed_and_implementations_and_the_same_again_passes(was: str, tmp_path: Path):
    told = judged(baseline=changed(was, tmp_path))
    assert [entry.entry.name for entry in told.checked] == [NAME]
    assert (told.seed, len(told.posed.problems), told.is_wrong) == (7, len(panel.panel("quick")), False)
    assert failing(told) == []
    assert told.notes == ("baseline held: 1 implementation",)
    assert any(change.implementation == "naive" for change in told.changes)
    assert not any(change.implementation.startswith("compiled") for change in told.changes)


def test_what_became_worse_and_what_is_gone_fails_and_the_command_line_says_so(was: str, tmp_path: Path):
    entries = json.loads(was)["implementations"]
    entries[NAME]["dtypes"]["float64"]["checks"] += 1
    file = changed(was, tmp_path, implementations={**entries, "gone": {"verdict": "pass", "dtypes": {}}})
    seen = xentbench("parity", "--baseline", file, "--json", str(tmp_path / "out.json"))
    assert seen.returncode == 1, seen.stderr
    assert f"fails {NAME} in float64: there were" in seen.stdout
    assert "gone is in the baseline and is found no more" in seen.stdout
    assert "baseline held" not in seen.stdout
    record = json.loads((tmp_path / "out.json").read_text())
    assert {change["implementation"] for change in record["changes"] if change["fails"]} == {NAME, "gone"}
    assert record["implementations"][NAME]["dtypes"]["float64"]["grade"] in ("A", "B", "B-")


def test_a_baseline_of_another_panel_is_exit_1_and_one_line_before_anything_is_asked(was: str, tmp_path: Path):
    seen = xentbench("parity", "--baseline", changed(was, tmp_path, panel=0))
    assert seen.returncode == 1
    assert len(seen.stderr.strip().splitlines()) == 1
    assert "--write-baseline" in seen.stderr


def test_what_fails_is_not_written_as_a_baseline(tmp_path: Path):
    file = plugin(tmp_path, "def mine(x, y):\n    return -F.cross_entropy(x, y)\n")
    told = judged(f"{file}:mine", grid="quick", write_baseline=str(tmp_path / "parity.json"))
    assert told.is_wrong
    assert "mine failed" in told.notes[0]
    assert not (tmp_path / "parity.json").exists()


def test_what_a_run_finds_is_asked_again_in_the_next_and_kept_once(tmp_path: Path):
    file = plugin(tmp_path, "def mine(x, y):\n    return -F.cross_entropy(x, y)\n" + ONE_GOOD)
    problems, kept = ("N=8,C=10", "N=4,C=3,dtype=float64"), str(tmp_path / "found.json")
    first = judged(f"{file}:mine", problem=problems, found=kept, seed=3)
    assert first.replayed == ()
    entries = json.loads(Path(kept).read_text())["found"]
    assert {(entry["seed"], entry["implementation"]) for entry in entries} == {(3, "mine")}
    assert {entry["quantity"] for entry in entries} == {"value", "gradient"}
    again = judged(f"{file}:mine", problem=problems, found=kept, seed=4)
    assert {failure["quantity"] for failure in again.replayed} == {"value", "gradient"}
    assert json.loads(Path(kept).read_text())["found"] == entries
    other = judged(f"{file}:good", problem=problems, found=kept, seed=4)
    assert not other.is_wrong
    assert other.replayed == ()


def test_a_required_option_that_is_not_offered_fails_with_its_reason(tmp_path: Path):
    file = plugin(
        tmp_path, "def mine(x, y, reduction='mean'):\n    return F.cross_entropy(x, y, reduction=reduction)\n"
    )
    problems = ("N=8,C=10", "N=8,C=10,weight=random", "N=8,C=10,reduction=sum")
    assert not judged(f"{file}:mine", problem=problems, required=("reduction",)).is_wrong
    told = judged(f"{file}:mine", problem=problems, required=("weight,reduction",))
    assert told.is_wrong
    (message,) = told.required
    assert message.startswith("mine does not offer weight")
    assert message.endswith("its signature does not have it")


UPCAST = """
def mine(x, y, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    options = dict(ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)
    wide = torch.promote_types(x.dtype, torch.float32)
    target = y.to(wide) if y.is_floating_point() else y
    weight = None if weight is None else weight.to(wide)
    return F.cross_entropy(x.to(wide), target, weight, **options).to(x.dtype)
"""


def test_a_loss_that_no_longer_accumulates_in_float32_passes_the_judge_and_fails_the_gate(tmp_path: Path):
    kept = str(tmp_path / "parity.json")
    loss = f"{plugin(tmp_path, UPCAST)}:mine"
    assert not judged(loss, grid="quick", write_baseline=kept, seed=7).is_wrong
    plugin(tmp_path, UPCAST.replace("torch.promote_types(x.dtype, torch.float32)", "x.dtype"))
    told = judged(loss, baseline=kept)
    assert {entry.verdict for entry in told.checked} == {"pass"}
    assert told.is_wrong
    assert failing(told) == [f"mine in {dtype}: the grade was B, is C" for dtype in ("bfloat16", "float16")]


def test_training_stands_beside_the_panel_and_a_loss_that_trains_differently_is_wrong(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(trained, "course", small_course)
    monkeypatch.setattr(training, "WORKLOADS", ("digits",))
    # Right where the panel looks, wrong from its hundredth call on: such a thing only training sees.
    late = "calls = [0]\n" + ONE_GOOD.replace("good", "late").replace("    return", "    calls[0] += 1\n    return")
    late = late.replace("label_smoothing=label_smoothing)", "label_smoothing=label_smoothing) * (2 - (calls[0] < 25))")
    file, figure = plugin(tmp_path, late + ONE_GOOD), tmp_path / "curves.svg"
    asked = {**NOTHING, "problem": ("N=8,C=10",)}
    how = {**HOW, "train": True, "train_figure": str(figure), "seed": 3}
    told = judging.judge(judging.read((), ("late", "good"), (str(file),), asked, how))
    assert {entry.entry.name: entry.verdict for entry in told.checked} == {"late": "pass", "good": "pass"}
    ends = {one.implementation: one.status for one in told.trained}
    assert ends == {"late": Status.TRAINS_DIFFERENTLY, "good": Status.PASSED}
    assert told.is_wrong
    (entry,) = [one for one in told.record()["trainings"] if one["implementation"] == "good"]
    assert entry["curve_ratio"] == 0.0
    assert len(entry["losses"]) == entry["steps"]
    assert figure.read_text().startswith("<?xml")
    assert str(figure) in told.notes[0]


def test_an_axis_alone_varies_the_whole_panel_and_that_of_entrants_that_compile():
    asked = judging.read([NAME], (), (), {**NOTHING, "axis_dtype": ("float32",)}, HOW)
    assert {problem.dtype for problem in (*asked.problems, *asked.compiled)} == {"float32"}
    whole, short = panel.panel("full"), panel.panel("compiled")
    assert set(asked.problems) == {replace(problem, dtype="float32") for problem in whole}
    assert set(asked.compiled) == {replace(problem, dtype="float32") for problem in short}
    named = judging.read([NAME], (), (), {**NOTHING, "axis_dtype": ("float32",), "problem": ("N=8,C=10",)}, HOW)
    assert named.problems == named.compiled == (Problem.parse("N=8,C=10,dtype=float32"),)
    both = {"axis_target": ("soft",), "problem": ("N=4,C=3", "N=4,C=3,invalid=label-low")}
    with pytest.raises(UsageError, match="'label-low' needs class indices"):
        judging.read([NAME], (), (), {**NOTHING, **both}, HOW)
    assert len(judging.read([NAME], (), (), {**NOTHING, "axis_target": ("soft",)}, HOW).problems) > len(whole) // 2


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"train": True, "baseline": "b.json"}, "--train compares with a training made now"),
        ({"train": True, "write_baseline": "b.json"}, "--train compares with a training made now"),
        ({"train_figure": "curves.png"}, "--train-figure draws what --train found: give both"),
        ({"train": True, "train_figure": "curves.pdf"}, "expected a file that ends in .svg or .png, got 'curves.pdf'"),
        ({"train": True, "train_figure": "no/such/folder/curves.png"}, "expected a file that can be written"),
    ],
)
def test_options_of_training_that_contradict_each_other_are_refused(how: dict, told: str):
    with pytest.raises(UsageError, match=told):
        judged(NAME, grid="quick", **how)


def test_what_is_trained_on_another_device_is_refused():
    with pytest.raises(UsageError, match="--train trains on the processor: give it without --device cuda"):
        judged(NAME, problem=("N=8,C=10,device=cuda",), train=True)


def test_a_run_in_which_nothing_was_judged_fails_and_tells_the_reason_first(tmp_path: Path):
    swapped = (
        "import torch\n\ndef swapped(target, input):\n    return torch.nn.functional.cross_entropy(input, target)\n"
    )
    (tmp_path / "losses.py").write_text(swapped)
    told = judged(f"{tmp_path / 'losses.py'}:swapped", problem=("N=4,C=3", "N=5,C=3", "N=5,C=3,weight=random"))
    assert told.is_wrong
    assert "not implemented for 'Long'" in told.unjudged.removeprefix("nothing was judged: swapped: ")
    assert told.record()["unjudged"] == told.unjudged
    assert told.unjudged in junit.xml(told).replace("&quot;", '"')
    both = judged(f"{tmp_path / 'losses.py'}:swapped", NAME, problem=("N=4,C=3",))
    assert not both.is_wrong
    assert both.unjudged == ""
