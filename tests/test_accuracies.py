"""What is asked for accuracy alone, of real workers, and what of it is written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from test_sweep import Looking
from worker_fixtures import ONE_GOOD, plugin

from xentbench import accuracies, panel, planning, results, workers
from xentbench.counterexamples import Finder
from xentbench.crews import Examinee
from xentbench.posing import Questions
from xentbench.spec import DTYPE_BYTES, Phase, Problem, Source, Status

SOME = tuple(problem for problem in panel.accuracy(["cpu"]) if problem.logits in ("normal", "wide"))
PLUGIN = ONE_GOOD + (
    "@implementation('overflows')\ndef overflows(input, target, reduction='mean'):\n"
    "    e = input.exp()\n    rows = torch.arange(len(target))\n"
    "    return -(e[rows, target] / e.sum(1)).log()\n"
    "@implementation('refuses', supports=lambda p: 'float32 only' if p.dtype != 'float32' else None)\n"
    "def refuses(input, target, **options):\n    return F.cross_entropy(input, target, **options)\n"
)


def asked(tmp_path, known=frozenset()):
    entries = workers.describe(Source("file", str(plugin(tmp_path, PLUGIN))), [problem.key for problem in SOME])
    one = Problem(batch_size=4, num_classes=3)
    posed = planning.Posed((one,), {}, {}, ())
    plan = planning.make(posed, entries, [Phase.FORWARD], planning.Preset(30.0, 1, 1.0), seed=3, accuracy=SOME)
    journal, questions, watch = results.create(tmp_path / "runs"), Questions(3, {}), Looking()
    journal.head({"run": journal.run})
    examinees = {entry.name: Examinee(entry, {}) for entry in entries}
    finders = {name: Finder(examinee, questions) for name, examinee in examinees.items()}
    with ThreadPoolExecutor(2) as pool:
        task = accuracies.Accuracies(plan, journal, watch, known)
        task.ask(examinees, finders, questions, pool, lambda: False)
    for examinee in examinees.values():
        examinee.__exit__(None, None, None)
    return results.read(journal.folder), watch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    return asked(tmp_path_factory.mktemp("accuracies"))


def test_everybody_has_a_verdict_on_every_dtype_and_family(run):
    table = run[0].accuracies
    assert len(table) == 3 * len(SOME)
    assert set(table["dtype"]) == set(DTYPE_BYTES)
    assert run[1].stages == [("accuracy", 3 * len(SOME))]
    assert not len(run[0].cells)
    assert not len(run[0].verdicts)


def test_the_error_of_a_right_one_is_told_in_ulp(run):
    table = run[0].accuracies
    good = table[table["implementation"] == "good"]
    assert set(good["status"]) == {Status.PASSED}
    assert (good["error_ulp"] >= 0).all()


def test_a_wrong_one_has_its_smallest_counterexample(run):
    table = run[0].accuracies
    mine = table[(table["implementation"] == "overflows") & (table["logits"] == "wide")]
    (failures,) = mine.loc[mine["dtype"] == "float32", "failures"]
    assert failures[0]["counterexample"].startswith("N=1")
    assert "loss" in failures[0]["snippet"]


def test_what_is_refused_says_why(run):
    table = run[0].accuracies
    refused = table[(table["implementation"] == "refuses") & (table["dtype"] != "float32")]
    assert set(refused["status"]) == {Status.UNSUPPORTED}
    assert set(refused["reason"]) == {"float32 only"}


def test_what_is_known_is_not_asked_again(tmp_path):
    known = frozenset(("good", problem.key) for problem in SOME)
    table = asked(tmp_path, known)[0].accuracies
    assert set(table["implementation"]) == {"overflows", "refuses"}
