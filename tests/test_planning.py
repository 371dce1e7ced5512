from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xentbench import planning, registry
from xentbench.spec import Description, EnvironmentMismatchError, Phase, Problem, Status, UsageError

SMALL, LARGE = Problem(batch_size=8, num_classes=10), Problem(batch_size=512, num_classes=32_000)


def entry(name: str = "a", **fields) -> Description:
    return Description(name, registry.BUILT_IN, "a.py", **fields)


def plan(*entries: Description, problems=(SMALL, LARGE), skipped=None, **preset) -> planning.Plan:
    posed = planning.Posed(problems, {}, skipped or {}, ())
    chosen = planning.Preset(**{"budget_s": 420.0, "workers": 3, "half_width": 0.01, **preset})
    return planning.make(posed, entries, list(Phase), chosen, seed=1)


def test_every_pair_is_asked_or_has_its_reason():
    refuses = entry("b", refusals={SMALL.key: "two classes only"})
    broken = entry("c", status=Status.IMPORT_FAILED, reason="ValueError")
    made = plan(entry(), refuses, broken, skipped={LARGE.key: "too large"})
    assert made.cells == 3 * 2 * 4
    assert [one.name for one in made.askable(SMALL)] == ["a"]
    assert made.why_not(refuses, SMALL) == (Status.UNSUPPORTED, "two classes only")
    assert made.why_not(refuses, LARGE) == (Status.SKIPPED, "too large")
    assert made.why_not(broken, LARGE) == (Status.IMPORT_FAILED, "ValueError")
    assert made.asked == (SMALL,)


def test_what_does_not_fit_or_is_absent_is_skipped_with_its_reason():
    absent = Problem(batch_size=8, num_classes=10, device="cuda:7")
    skipped = planning.screen([SMALL, LARGE, absent], 2**28, lambda device: device == "cpu")
    assert SMALL.key not in skipped
    assert "GiB are available" in skipped[LARGE.key]
    assert skipped[absent.key] == "device cuda:7 is not present on this machine"


def test_the_estimate_is_never_above_the_budget_and_grows_with_work():
    assert plan(entry()).estimate_s(2) <= 420.0
    assert plan(entry(), budget_s=1e6).estimate_s(2) < plan(entry(), entry("b"), budget_s=1e6).estimate_s(2)
    assert plan(entry(compiles=True), budget_s=1e6).setup_estimate_s(2) > plan(entry()).setup_estimate_s(2)


def test_larger_calls_get_more_time():
    assert planning.weight(SMALL) < planning.weight(LARGE)
    assert planning.cell_limit_s(SMALL) < planning.cell_limit_s(LARGE)


def test_devices_are_demanded():
    planning.require(["cpu"])
    with pytest.raises(EnvironmentMismatchError, match="--require cuda:99"):
        planning.require(["cuda:99"])


def test_recorded_problems_get_their_sizes_and_their_hash():
    posed = planning.pose([SMALL, Problem(logits="digits")])
    digits = posed.problems[1]
    assert digits.recorded == "digits"
    assert digits.logits.startswith("digits@")
    assert (digits.num_classes, digits.batch_size) == (10, 512)
    assert posed.recorded[digits.key].logits.shape == (512, 10)


def test_own_logits_asked_in_another_dtype_than_they_were_recorded_in_are_told(tmp_path: Path):
    file = tmp_path / "logits.safetensors"
    save_file({"logits": torch.randn(2, 3).bfloat16(), "target": torch.zeros(2, dtype=torch.int64)}, file)
    told = "file: logits were recorded in bfloat16 and are asked in float32"
    assert planning.pose([Problem(logits="file")], str(file)).warnings == (told,)
    assert planning.pose([Problem(logits="file", dtype="bfloat16")], str(file)).warnings == ()


def test_nothing_to_ask_is_told():
    with pytest.raises(UsageError, match="nothing to do"):
        planning.pose([])


def test_what_the_person_sets_goes_before_the_preset():
    assert planning.capped(planning.PRESETS["default"], 60.0, 1) == planning.Preset(60.0, 1, 0.01)
    assert planning.capped(planning.PRESETS["default"], None, None) is not None
