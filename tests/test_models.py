from __future__ import annotations

import torch
from training_fixtures import CLASSES, ROWS, STEPS, small_course

from xentbench import models


def test_the_classifier_is_two_layers_with_relu_between():
    weights = (torch.eye(2), torch.tensor([[1.0], [10.0]]), torch.tensor([0.0, -1.0]), torch.tensor([0.5]))
    rows = torch.tensor([[2.0, 3.0], [-5.0, 0.0]])
    assert models.classifier(weights, rows).tolist() == [[22.5], [0.5]]


def test_the_language_model_reads_the_preceding_words_and_answers_for_every_word():
    words = torch.randn(7, 3)
    weights = (words, torch.zeros(6, 3), torch.tensor([1.0, 0.0, 0.0]), torch.arange(7.0))
    logits = models.language_model(weights, torch.tensor([[1, 2], [3, 4], [0, 0]]))
    assert logits.shape == (3, 7)
    expected = torch.tanh(torch.tensor(1.0)) * words[:, 0] + torch.arange(7.0)
    assert torch.allclose(logits, expected.expand(3, 7))


def test_a_lesson_gives_the_logits_of_each_of_its_batches():
    lesson = small_course().lesson
    assert lesson.steps == STEPS
    assert lesson.logits(lesson.weights, STEPS - 1).shape == (ROWS, CLASSES)
    assert not torch.equal(lesson.logits(lesson.weights, 0), lesson.logits(lesson.weights, 1))
