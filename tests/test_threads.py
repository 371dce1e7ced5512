from __future__ import annotations

import contextlib

import torch

from xentbench.threads import one_thread


def test_threads_are_one_inside_and_what_they_were_after_even_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with contextlib.suppress(ValueError), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
