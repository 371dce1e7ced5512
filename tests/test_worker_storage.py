from __future__ import annotations

import numpy as np
import torch

from xentbench.worker.storage import Cells


def test_values_move_alike_where_numpy_cannot_reach():
    cells = Cells(torch.tensor([1.0, -32.0, -torch.inf, torch.nan]))
    stored = cells.read((np.arange(4),))
    steps = np.array([1.0, -2.0, 1.0, 1.0])
    moved = cells.moved(torch.from_numpy(stored), steps).numpy()
    assert np.array_equal(moved, cells.moved(stored, steps), equal_nan=True)
    assert moved[:2].tolist() == [1.0 + 1.0 * (1 + 1 / 16), -32.0 - 2.0 * 3.0]
