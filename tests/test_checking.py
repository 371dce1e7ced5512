from __future__ import annotations

import pytest

from xentbench import checking, inputs, registry
from xentbench.examining import NO_FORM, Examined
from xentbench.shrinking import Counterexample
from xentbench.spec import Description, Deviation, Failure, Grade, Problem, Source, Status, Verdict

ONE, TWO = Problem(batch_size=8, num_classes=10), Problem(batch_size=8, num_classes=10, dtype="bfloat16")
OBJECT = Source("object", "losses.py:mine")


def entry(**fields) -> Description:
    return Description("mine", fields.pop("source", OBJECT), "losses.py", **fields)


def right(grade: Grade = Grade.B, **fields) -> Examined:
    return Examined(Verdict(Status.PASSED, grade, checks=5, bound_ratio=0.2, error_ulp=1.0, **fields))


def wrong(quantity: str = "value", **fields) -> Examined:
    failures = (Failure(quantity, "off"),)
    return Examined(Verdict(Status.WRONG_VALUE, Grade.FAIL, 5, failures, reason="off", **fields))


def concluded(seen, *, whole_panel: bool = False, **fields) -> checking.Checked:
    return checking.conclude(entry(**fields), seen, 7, whole_panel=whole_panel)


def test_grades_are_the_worst_and_the_worst_of_each_dtype():
    seen = concluded({ONE: right(Grade.A), TWO: right(Grade.C)})
    assert (seen.verdict, seen.grade, seen.checks) == ("pass", Grade.C, 10)
    assert seen.grades == {"float32": Grade.A, "bfloat16": Grade.C}
    assert seen.dtypes["float32"] == checking.Accuracy(5, Grade.A, 0.2, 1.0)
    assert (seen.record()["bound_ratio"], seen.record()["error_ulp"]) == (0.2, 1.0)


def test_one_wrong_answer_fails_and_tells_how_to_ask_again():
    seen = concluded({ONE: right(), TWO: wrong()})
    assert (seen.verdict, seen.status, seen.grade) == ("fail", Status.WRONG_VALUE, Grade.FAIL)
    (failure,) = seen.failures
    assert failure["problem"] == TWO.key
    assert failure["reproduce"] == f"xentbench parity losses.py:mine --problem {TWO.key} --seed 7"


def test_failures_are_told_by_weight_and_exceptions_last():
    seen = concluded({ONE: wrong("exception"), TWO: wrong("value")})
    assert [failure["quantity"] for failure in seen.failures] == ["value", "exception"]


def test_a_declared_deviation_passes_is_labelled_and_leaves_the_grade_alone():
    declared = (Deviation("unshifted-exponent", "overflows"),)
    seen = concluded(
        {ONE: right(), TWO: wrong(deviations=("unshifted-exponent",))}, deviations=declared, whole_panel=True
    )
    assert (seen.verdict, seen.status, seen.grade) == ("pass", Status.PASSED, Grade.B)
    assert seen.labels == ("declared-deviation:unshifted-exponent",)


def test_a_declaration_that_never_occurs_fails_on_a_whole_panel_only():
    declared = (Deviation("unshifted-exponent", "overflows"),)
    assert concluded({ONE: right()}, deviations=declared, whole_panel=True).verdict == "fail"
    assert concluded({ONE: right()}, deviations=declared, whole_panel=False).verdict == "pass"


def test_what_is_refused_is_shown_and_never_passed():
    refused = Examined(Verdict(Status.UNSUPPORTED, reason="does not offer weight"))
    seen = concluded({ONE: right(), TWO: refused})
    assert (seen.verdict, dict(seen.refused)) == ("pass", {TWO.key: "does not offer weight"})
    assert list(seen.not_offered) == []
    assert concluded({TWO: refused}).verdict == "unsupported"
    assert concluded({}, refusals={ONE.key: "two classes only"}).verdict == "unsupported"


def test_an_exception_on_a_form_that_is_answered_elsewhere_is_a_crash():
    reason = f"{NO_FORM}: RuntimeError: sizes must match"
    deep, weighted = Problem.parse("N=8,C=3,dims=4"), Problem.parse("N=8,C=3,dims=4,weight=random")
    raised = Examined(Verdict(Status.UNSUPPORTED, reason=reason))
    told = concluded({ONE: right(), deep: right(), weighted: raised})
    assert (told.verdict, told.status, dict(told.refused)) == ("fail", Status.RAISED, {})
    (failure,) = told.failures
    assert (failure["problem"], failure["quantity"]) == (weighted.key, "exception")
    assert failure["message"].startswith("raised: RuntimeError: sizes must match; it answers others of this form")
    for other in (ONE, Problem.parse("N=0,C=3,dims=4"), Problem.parse("N=8,C=3,dims=4,target=soft")):
        assert concluded({other: right(), weighted: raised}).verdict == "pass"
    assert concluded({ONE: right(), deep: wrong(), weighted: raised}).refused == {weighted.key: reason}


def test_what_could_not_be_loaded_is_an_error_and_a_missing_package_is_not():
    broken = concluded({}, status=Status.IMPORT_FAILED, reason="ValueError: no", source=registry.BUILT_IN)
    assert (broken.verdict, broken.failures[0]["message"]) == ("error", "ValueError: no")
    assert concluded({}, status=Status.UNSUPPORTED, reason="needs a package").verdict == "unsupported"


def test_the_record_is_what_a_machine_is_promised():
    record = concluded({ONE: wrong()}).record()
    assert {"verdict", "status", "grade", "grades", "labels", "checks", "failures"} <= set(record)
    assert set(record["failures"][0]) == {"problem", "quantity", "message", "reproduce", "counterexample", "snippet"}


class Quiet:
    def stage(self, *_): ...

    def step(self, *_): ...


def checked(file, name: str = "mine", **fields) -> checking.Checked:
    source = Source("object", f"{file}:{name}", (str(file.parent),))
    described = Description(name, source, file.name, **fields)
    return checking.check([described], [ONE, TWO], {}, 7, Quiet(), [ONE, TWO])[0]


def test_the_first_failure_of_each_quantity_has_a_counter_example(tmp_path):
    file = tmp_path / "losses.py"
    file.write_text("from torch.nn import functional as F\ndef mine(x, y):\n    return -F.cross_entropy(x, y)\n")
    seen = checked(file)
    assert [failure["quantity"] for failure in seen.failures] == ["value", "value", "gradient", "gradient"]
    lines = [failure["counterexample"] for failure in seen.failures]
    assert lines[0] == "N=1 C=2, logits [[0, 0]], target [0]: expected 0.6931, got -0.6931"
    assert "gradient[0, " in lines[2]
    assert (lines[1], lines[3]) == ("", "")
    assert [bool(failure["snippet"]) for failure in seen.failures] == [bool(line) for line in lines]


def test_a_loss_that_crashes_is_not_asked_again(tmp_path):
    file = tmp_path / "losses.py"
    file.write_text("import os\ndef mine(x, y):\n    os.abort()\n")
    seen = checked(file)
    assert seen.status is Status.CRASHED
    assert {failure["counterexample"] for failure in seen.failures} == {""}


def test_a_counter_example_is_never_one_that_is_refused(tmp_path):
    file = tmp_path / "losses.py"
    file.write_text(
        "from torch.nn import functional as F\nfrom xentbench import implementation\n"
        "@implementation('mine', supports=lambda p: 'ten classes only' if p.num_classes != 10 else None)\n"
        "def mine(x, y):\n    return F.cross_entropy(x, y) + 1\n"
    )
    (line,) = {failure["counterexample"] for failure in checked(file).failures} - {""}
    assert line.startswith("N=1 C=10, logits [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]")


HINTED = "loss is 2, expected 1; looks like: the mean divides by {}, which is neither rows nor weights"


@pytest.mark.parametrize(
    ("smallest", "kept"), [("loss is 3, expected 1", False), (HINTED.format(2), True), (HINTED[:-5] + "less", False)]
)
def test_a_hint_that_does_not_explain_the_smallest_counter_example_too_is_dropped(smallest: str, kept: bool):
    failed = Examined(Verdict(Status.WRONG_VALUE, Grade.FAIL, 5, (Failure("value", HINTED.format(7)),)))
    found = Counterexample(ONE, inputs.make(ONE, 0), Failure("value", smallest, "loss", 1.0, 3.0), 1)
    seen = checking.conclude(entry(), {ONE: failed}, 7, whole_panel=False, shrunk={(ONE.key, "value"): found})
    assert ("looks like" in seen.failures[0]["message"]) == kept


def test_the_plainest_failure_is_told_first_and_what_all_share_with_it():
    odd = Problem(batch_size=8, num_classes=10, weight="random", logits_layout="transposed")
    plain = Problem(batch_size=8, num_classes=10, weight="random")
    seen = concluded({ONE: right(), odd: wrong(), plain: wrong()})
    assert [failure["problem"] for failure in seen.failures] == [plain.key, odd.key]
    assert seen.pattern == "2 of 3 problems fail, all of them with class weights (2 of 2 such)"
