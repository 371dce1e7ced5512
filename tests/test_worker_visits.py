from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from xentbench.spec import Phase, Problem
from xentbench.worker.visits import SLOTS, Keeper, orders, remembered_rows, timed_last_refreshed


def test_orders_follow_from_the_seed_and_visit_every_arm_once_a_round():
    first, again, other = (list(itertools.islice(orders(seed), 50)) for seed in (1, 1, 2))
    assert first == again != other
    assert all(sorted(order) == [0, 1, 2] for order in first)
    assert len(set(map(tuple, first))) == 6


def test_every_call_is_remembered_with_equal_chance():
    held = Counter()
    for seed in range(3000):
        keeper = Keeper(seed)
        for _ in range(10):
            keeper.next()
        held.update(keeper.slots)
    assert sum(held.values()) == 3000 * SLOTS
    assert set(held) == set(range(10))
    assert max(held.values()) < 1.2 * min(held.values())


def test_large_gradients_are_remembered_by_some_rows_drawn_for_each_call():
    small, large = Problem.parse("N=8,C=10"), Problem.parse("N=512,C=32000")
    assert remembered_rows(small, Phase.BACKWARD, 1, 0).tolist() == list(range(8))
    drawn = [remembered_rows(large, Phase.BACKWARD, 1, call) for call in range(20)]
    assert all(len(rows) == 1 and 0 <= rows[0] < 512 for rows in drawn)
    assert len({int(rows[0]) for rows in drawn}) > 10
    np.testing.assert_array_equal(drawn[3], remembered_rows(large, Phase.BACKWARD, 1, 3))


def test_a_pooled_input_was_refreshed_a_turn_of_the_pool_ago():
    assert timed_last_refreshed(7, 1) == 7
    assert timed_last_refreshed(7, 3) == 5
    assert timed_last_refreshed(1, 3) < 1
