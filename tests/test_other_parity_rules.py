"""`benchmarks/other_parity_rules.py`: right losses pass a rule; wrong ones are found, let pass, or not asked for."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from xentbench.threads import one_thread

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import other_parity_rules
import parity_rules
from other_parity_rules import accepts, shows
from parity_rules import RULES, Rule, Tolerance, by_default, forward, problem

SMALL = [
    dataclasses.replace(rule, cases=small) for rule in RULES if (small := rule.cases[:10])[0].problem.elements <= 2**20
]
FEW = Rule("few", "", by_default([problem(4, 5), problem(4, 5, dtype="float64")]), derived=True)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def negated(*arguments, **options):
    return -functional.cross_entropy(*arguments, **options)


def forgets_smoothing(logits, target, *, label_smoothing=0.0, **options):
    return functional.cross_entropy(logits, target, **options)


def a_little_off(logits, target, **options):
    return functional.cross_entropy(logits, target, **options) * (1.0 + 3e-3)


@pytest.mark.parametrize("rule", SMALL, ids=lambda rule: rule.name)
def test_the_reference_passes_every_rule_and_its_negative_none(rule: Rule):
    assert accepts(rule, functional.cross_entropy) is True
    assert accepts(rule, negated) is False


def test_what_a_tolerance_lets_pass_is_told_from_what_is_not_asked_for():
    loose = Rule("loose", "", forward([problem(4, 5)], Tolerance(1e-2, 1e-2)))
    assert accepts(loose, a_little_off) is True
    assert shows(loose, a_little_off)
    assert accepts(loose, forgets_smoothing) is True
    assert not shows(loose, forgets_smoothing)


def test_gradcheck_finds_a_gradient_that_does_not_belong_to_its_loss():
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(_, loss):
            return loss.clone()

        @staticmethod
        def backward(_, upstream):
            return upstream / 2.0

    derived = dataclasses.replace(FEW, cases=FEW.cases[1:])
    assert accepts(derived, functional.cross_entropy) is True
    assert accepts(derived, lambda *a, **o: Halved.apply(functional.cross_entropy(*a, **o))) is False


def test_a_loss_that_declines_every_case_was_not_asked():
    def declines(*_, **__):
        raise NotImplementedError

    assert accepts(FEW, declines) is None


def test_at_a_large_size_a_rule_keeps_its_dtype_and_asks_for_a_mean_where_it_ever_does():
    named = {rule.name: rule for rule in RULES}
    for name, reduction in (("quack, fp32", "mean"), ("gpu-mode, princeton", "none")):
        case = other_parity_rules._at_large(named[name], named[name].cases[0])
        assert (case.problem.reduction, case.problem.dtype) == (reduction, named[name].cases[0].problem.dtype)
    flaggems = other_parity_rules._at_large(named["FlagGems"], named["FlagGems"].cases[0])
    assert flaggems.gradient.atol == pytest.approx(1e-4 * other_parity_rules.LARGE.num_classes)


def test_every_rule_says_where_it_was_read():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all("/" in rule.source for rule in parity_rules.RULES)
