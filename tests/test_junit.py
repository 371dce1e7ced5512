"""What `parity` found, as readers of JUnit XML see it: counts, texts, and nothing that XML forbids."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import junitparser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xentbench import checking, junit
from xentbench.baseline import Change
from xentbench.examining import Examined
from xentbench.judging import Judged
from xentbench.spec import Description, Deviation, Failure, Problem, Source, Status, Verdict
from xentbench.training import Trained

PROBLEMS = [Problem(batch_size=8, num_classes=classes) for classes in (2, 3, 4, 5)]
KEYS = [problem.key for problem in PROBLEMS]
RIGHT = Verdict(Status.PASSED, checks=3)


def wrong(message: str = "loss is 1, expected 2", status: Status = Status.WRONG_VALUE) -> Verdict:
    return Verdict(status, failures=(Failure("value", message), Failure("gradient", "it is off")), reason=message)


def checked(*verdicts: Verdict, name: str = "mine", **fields: Any) -> checking.Checked:
    entry = Description(name, Source("file", "losses.py"), "losses.py", **fields)
    seen = {problem: Examined(verdict) for problem, verdict in zip(PROBLEMS, verdicts, strict=False)}
    return checking.conclude(entry, seen, 7, whole_panel=True)


def judged(*entries: checking.Checked, skipped: dict[str, str] | None = None, **fields: Any) -> Judged:
    return Judged(entries, SimpleNamespace(skipped=skipped or {}), 7, **fields)


def read(told: Judged) -> ET.Element:
    return ET.fromstring(junit.xml(told).encode())  # noqa: S314 - our own


def counts(element: ET.Element) -> tuple[str | None, ...]:
    return tuple(element.get(name) for name in ("tests", "failures", "errors", "skipped"))


def test_a_suite_is_an_implementation_and_a_case_a_problem():
    refused = Verdict(Status.UNSUPPORTED, reason="no weight here")
    entry = checked(RIGHT, wrong(), refused, wrong("signal 6", Status.CRASHED))
    root = read(judged(entry, checked(RIGHT, name="other")))
    assert counts(root) == ("5", "1", "1", "1")
    first, second = root
    assert (first.get("name"), counts(first)) == ("mine", ("4", "1", "1", "1"))
    assert (second.get("name"), counts(second)) == ("other", ("1", "0", "0", "0"))
    cases = first.findall("testcase")
    assert [case.get("name") for case in cases] == ["N=8,C=2", "N=8,C=3", "N=8,C=4", "N=8,C=5"]
    assert {case.get("classname") for case in cases} == {"xentbench.mine"}
    assert cases[0].find("*") is None
    assert cases[1].find("failure").get("type") == "wrong-value"
    assert cases[2].find("skipped").get("message") == "refused: no weight here"
    assert cases[3].find("error").get("type") == "crashed"
    assert {each.get("name"): each.get("value") for each in first.iter("property")}["seed"] == "7"


def test_a_failure_tells_all_that_is_wrong_and_how_to_ask_again():
    told = checked(wrong())
    (failure,) = told.failures[:1]
    failures = ({**failure, "counterexample": "N=1 C=2", "snippet": "import torch\n    indented"}, *told.failures[1:])
    entry = checking.Checked(told.entry, "fail", told.status, failures=failures, verdicts=told.verdicts)
    found = read(judged(entry)).find(".//failure")
    assert found.get("message") == "value: loss is 1, expected 2"
    for part in ("value: loss is 1", "gradient: it is off", "N=1 C=2", "\n    indented", failure["reproduce"]):
        assert part in found.text


def test_what_was_refused_before_it_was_asked_and_what_does_not_fit_is_skipped():
    told = checked(RIGHT, refusals={KEYS[1]: "k-dim: not offered"})
    root = read(judged(told, skipped={KEYS[3]: "needs 9 GiB"}))
    skipped = {case.get("name"): case.find("skipped").get("message") for case in root.iter("testcase") if len(case)}
    assert skipped == {"N=8,C=3": "refused: k-dim: not offered", "N=8,C=5": "needs 9 GiB"}


WHOLE = {
    "not loaded": (checked(status=Status.IMPORT_FAILED, reason="No module named 'x'"), "error", "No module named"),
    "a package is missing": (checked(status=Status.UNSUPPORTED, reason="needs triton"), "skipped", "needs triton"),
    "a declaration is stale": (
        checked(RIGHT, deviations=(Deviation("second-backward", ""),)),
        "failure",
        "did not occur",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_holds_for_an_implementation_as_a_whole_is_a_case(name: str):
    entry, tag, message = WHOLE[name]
    case = read(judged(entry)).find("testsuite/testcase[@name='as a whole']")
    assert message in case.find(tag).get("message")


REPLAYED = {
    "implementation": "mine",
    "problem": KEYS[0],
    "quantity": "value",
    "message": "off",
    "reproduce": "xentbench",
}
FAILING = {
    "an answer": judged(checked(wrong())),
    "a crash": judged(checked(wrong("x", Status.CRASHED))),
    "no module": judged(WHOLE["not loaded"][0]),
    "a stale declaration": judged(WHOLE["a declaration is stale"][0]),
    "a required option": judged(checked(RIGHT), required=("mine does not offer weight",)),
    "the baseline": judged(checked(RIGHT), changes=(Change("mine", "float32", "it became worse", fails=True),)),
    "nothing judged": judged(WHOLE["a package is missing"][0]),
    "found before": judged(checked(RIGHT), replayed=(REPLAYED,)),
}
PASSING = {
    "right": judged(checked(RIGHT)),
    "as declared": judged(
        checked(Verdict(Status.WRONG_VALUE, deviations=("overflow",), failures=(Failure("value", "x"),)))
    ),
    "a note": judged(checked(RIGHT), changes=(Change("mine", "float32", "it became better", fails=False),)),
    "unsupported beside a right one": judged(WHOLE["a package is missing"][0], checked(RIGHT)),
    "nobody": judged(),
}


@pytest.mark.parametrize("name", [*FAILING, *PASSING])
def test_the_report_fails_exactly_where_the_verb_does(name: str):
    told = (FAILING | PASSING)[name]
    assert told.is_wrong == (name in FAILING)
    tests, failures, errors, _ = map(int, counts(read(told)))
    assert bool(failures + errors) == told.is_wrong
    assert tests >= failures + errors


@given(st.text(st.characters(codec=None), max_size=50), st.text(max_size=20))
def test_any_text_makes_xml_that_parsers_take(message: str, name: str):
    told = judged(checked(wrong(f"\x00\x1b[31m\ufffe\ud800]]>&<{message}"), name=f"<&\x01{name}"))
    root = read(told)
    assert counts(root) == ("1", "1", "0", "0")
    shown = root.find(".//failure").text + root.find(".//failure").get("message")
    assert not {"\x00", "\x1b", "\ufffe", "\ud800"} & set(shown)
    (suite,) = junitparser.JUnitXml.fromstring(junit.xml(told).encode())
    assert (suite.tests, suite.failures) == (1, 1)


def test_a_huge_message_is_cut_and_says_so():
    told = checked(wrong("m" * 5_000_000))
    snippet = {**told.failures[0], "snippet": "s\n" * 5_000_000, "counterexample": ""}
    text = junit.xml(
        judged(checking.Checked(told.entry, "fail", told.status, failures=(snippet,), verdicts=told.verdicts))
    )
    assert len(text) < 4 * junit.LONGEST
    assert "cut: --json FILE holds all" in text


def test_a_training_is_a_case_of_its_implementation_and_fails_where_it_is_wrong():
    ends = {
        Status.PASSED: None,
        Status.TRAINS_DIFFERENTLY: "failure",
        Status.CRASHED: "error",
        Status.SKIPPED: "skipped",
    }
    trained = tuple(
        Trained("mine", str(status), status, "why <so>", reproduce="xentbench parity mine") for status in ends
    )
    told = judged(checked(RIGHT), trained=trained)
    assert told.is_wrong
    cases = {case.get("name"): case for case in read(told).iter("testcase")}
    for status, kind in ends.items():
        case = cases[f"training on {status}"]
        assert [child.tag for child in case] == ([kind] if kind else [])
        assert kind is None or "why <so>" in case[0].get("message")
    assert "xentbench parity mine --seed 7" in cases["training on trains-differently"][0].text
