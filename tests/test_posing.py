"""A question is made once, with the truth of its second call; one that must be refused has that of its valid form."""

import numpy as np
import torch

from xentbench import inputs, oracle
from xentbench.posing import Question, Questions
from xentbench.spec import Problem

SMALL = Problem(batch_size=6, num_classes=5, ignored=0.5)


def test_every_asker_gets_the_same_question_until_it_is_forgotten():
    questions = Questions(3, {})
    first = questions(SMALL)
    assert questions(SMALL) is first
    questions.forget(SMALL)
    assert questions(SMALL) is not first
    assert torch.equal(questions(SMALL).inputs.logits, first.inputs.logits)


def test_second_call_has_other_losses_another_count_and_its_own_truth():
    question = Questions(3, {})(SMALL)
    second = question.second
    assert second is not None
    assert second.inputs.logits.shape == question.inputs.logits.shape
    assert not torch.equal(second.inputs.logits, question.inputs.logits)
    assert int((second.inputs.target == -100).sum()) != int((question.inputs.target == -100).sum())
    assert np.array_equal(second.truth.loss.torch, oracle.solve(SMALL, second.inputs).loss.torch)


def test_large_problems_have_no_second_call():
    assert Questions(0, {})(Problem(batch_size=5, num_classes=1000)).second is None


def test_question_that_must_be_refused_holds_the_invalid_tensors():
    problem = Problem(batch_size=4, num_classes=3, invalid="label-high")
    question = Questions(0, {})(problem)
    assert int(question.inputs.target.max()) == 3
    assert question.second is None
    assert np.isfinite(question.truth.loss.torch).all()


def test_what_is_sent_to_a_worker_are_the_inputs_alone():
    given = inputs.make(SMALL, 0)
    assert set(Question.of(SMALL, given).tensors()) == {"logits", "target", "upstream"}
