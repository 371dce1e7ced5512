"""What `parity` found as JUnit XML: a suite an implementation, a case a problem or training, and what else failed."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from xentbench import environment, panel
from xentbench.counterexamples import ENDED
from xentbench.spec import CROSS_ENTROPY, Status, inert

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xentbench.checking import Checked
    from xentbench.judging import Judged
    from xentbench.spec import Verdict
    from xentbench.training import Trained

LONGEST: Final = 8000
"""Characters of the text of one failure."""
BROKEN: Final = (*ENDED, Status.RAISED, Status.IMPORT_FAILED, Status.SET_UP_FAILED)
"""Statuses of which JUnit says error: there was no answer that could be wrong."""
GATES: Final = "gates of the run"
"""Name of the suite of what fails a run besides answers; no implementation may be named so."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def xml(told: Judged) -> str:
    """Return the report: XML 1.0, UTF-8, without a character that it forbids.

    A failure's message is the first thing that is wrong; its text holds all, with counter-example, the command that
    asks again and code that reproduces it. What was refused or does not fit here is skipped, with the reason. Where the
    run fails for something that is no answer (a required option, the baseline, what was found before, nobody judged), a
    suite of gates has a failed case of it: the report has a failure or an error exactly where the exit code is 1.
    """
    document = JUnitXml("xentbench parity")
    for name, cases in _suites(told):
        suite = TestSuite(_line(name))
        for key, value in _properties(told).items():
            suite.add_property(key, value)
        suite.add_testcases(cases)
        document.add_testsuite(suite)
    document.update_statistics()
    return str(document.tostring().decode()) + "\n"


def _suites(told: Judged) -> Iterator[tuple[str, list[TestCase]]]:
    skipped = told.posed.skipped
    for entry in told.checked:
        name = entry.entry.name
        trained = [_training(one, told.seed) for one in told.trained if one.implementation == name]
        yield name, [*_cases(entry), *trained, *(_case(name, key, Skipped(_line(why))) for key, why in skipped.items())]
    gates = [
        *([_case("judged", "anything", Failure(_line(told.unjudged)))] if told.unjudged else []),
        *(_case("require-option", sentence, Failure(_line(sentence))) for sentence in told.required),
        *(_case("baseline", change.message, Failure(_line(change.message))) for change in told.changes if change.fails),
        *(
            _case(f"found.{failure['implementation']}", failure["problem"], _failure(Failure, [failure]))
            for failure in told.replayed
        ),
    ]
    if gates:
        yield GATES, gates


def _cases(entry: Checked) -> Iterator[TestCase]:
    """Yield the cases of one implementation, in the order in which they were asked."""
    name = entry.entry.name
    failed: dict[str, list[Mapping[str, str]]] = {}
    for failure in entry.failures:
        failed.setdefault(failure["problem"], []).append(failure)
    for key, verdict in entry.verdicts.items():
        yield _case(name, key, _result(verdict, failed.get(key, ())))
    for key, reason in entry.refused.items():
        if key not in entry.verdicts:
            yield _case(name, key, Skipped(_line(f"refused: {reason}")))
    for failure in failed.get("", ()):  # it could not be loaded, or declares what does not occur
        kind = Error if entry.verdict == "error" else Failure
        yield _case(name, "as a whole", _failure(kind, [failure], str(entry.status)))
    if entry.verdict == "unsupported" and not entry.refused:
        yield _case(name, "as a whole", Skipped(_line(entry.entry.reason or str(entry.status))))


def _training(one: Trained, seed: int) -> TestCase:
    result: Failure | Error | Skipped | None = None
    if one.status.is_wrong:
        again = {"quantity": "training", "message": one.reason, "reproduce": f"{one.reproduce} --seed {seed}"}
        result = _failure(Error if one.status in BROKEN else Failure, [again], str(one.status))
    elif one.status is not Status.PASSED:
        result = Skipped(_line(f"{one.status}: {one.reason}"))
    return _case(one.implementation, f"training on {one.workload}", result)


def _result(verdict: Verdict, failures: Sequence[Mapping[str, str]]) -> Failure | Error | Skipped | None:
    if verdict.status is Status.UNSUPPORTED:
        return Skipped(_line(f"refused: {verdict.reason}"))
    if not verdict.is_wrong:
        return None
    kind = Error if verdict.status in BROKEN else Failure
    return _failure(kind, failures, str(verdict.status), verdict.reason)


def _failure(
    kind: type[Failure | Error], failures: Sequence[Mapping[str, str]], status: str = "", reason: str = ""
) -> Failure | Error:
    """Return the result that tells of everything that is wrong with one problem."""
    messages = [f"{failure['quantity']}: {failure['message']}" for failure in failures] or [reason or status]
    result = kind(_line(messages[0]), _line(status or failures[0]["quantity"]))
    parts = list(messages)
    for failure in failures:
        parts += [failure[part] for part in ("counterexample", "reproduce", "snippet") if failure.get(part)]
    result.text = _text("\n".join(dict.fromkeys(parts)))
    return result


def _case(implementation: str, name: str, result: Failure | Error | Skipped | None = None) -> TestCase:
    case = TestCase(_line(name.removeprefix(f"{CROSS_ENTROPY.name}:")), _line(f"xentbench.{implementation}"))
    if result is not None:
        case.result = [result]
    return case


def _properties(told: Judged) -> dict[str, str]:
    versions = {name: environment.version(name) for name in environment.PACKAGES}
    facts = {"contract": CROSS_ENTROPY.name, "panel": str(panel.PANEL), "seed": str(told.seed)}
    return {**facts, **versions, "cpu": _line(environment.cpu_model())}


def _line(text: str) -> str:
    return inert(text)


def _text(text: str) -> str:
    """Return lines of text without control characters, cut where they are too long; what is cut is told."""
    # Category C holds every character that XML 1.0 forbids, surrogates and both of U+FFFE and U+FFFF included.
    shown = "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else _REPLACEMENT for c in text[: LONGEST + 1]
    )
    return f"{shown[:LONGEST]}\n… cut: --json FILE holds all" if len(text) > LONGEST else shown
