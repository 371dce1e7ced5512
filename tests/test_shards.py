from __future__ import annotations

import pytest

from xentbench import problems
from xentbench.shards import Shard
from xentbench.spec import Problem, UsageError


@pytest.mark.parametrize("text", ["0/8", "9/8", "3", "3/8/1", "-1/8", "a/b", "3 / 8", "", "1/0", "٣/8"])
def test_what_names_no_share_is_refused(text: str):
    with pytest.raises(UsageError, match="--shard expected I/N"):
        Shard.parse(text)


def test_a_share_is_written_as_it_is_read():
    assert str(Shard.parse("3/8")) == "3/8"
    assert Shard.parse("3/8").part == "3of8"
    assert Shard.parse("1/1") == Shard()
    assert Shard().part == ""


@pytest.mark.parametrize("count", [1, 2, 3, 8, 50])
def test_the_shares_are_even_and_together_the_whole(count: int):
    whole = problems.grid("llm")
    shares = [Shard(number, count).of(whole) for number in range(1, count + 1)]
    assert sorted(problem.key for share in shares for problem in share) == sorted(problem.key for problem in whole)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_shares_are_the_same_everywhere_whatever_the_order_of_the_plan():
    whole = [Problem(batch_size=8, num_classes=c) for c in range(2, 12)]
    # Written down: another machine, or another version of Python, must deal the same cards.
    assert sorted(problem.num_classes for problem in Shard(2, 3).of(whole)) == [7, 8, 9]
    assert set(Shard(2, 3).of(whole[::-1])) == set(Shard(2, 3).of(whole))
