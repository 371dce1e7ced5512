from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from xentbench import options, problems, spec
from xentbench.spec import Phase, Problem, UsageError


def asked(**given):
    axes = {f"axis_{name}": () for name in spec.problem_axes()}
    return {"grid": (), "problem": (), "logits_file": None, **axes, **given}


def test_nothing_asked_is_the_default_grid():
    assert options.wanted(asked(), "smoke") == problems.grid("smoke")


def test_axes_multiply_the_grid_and_sizes_make_a_sweep_of_their_own():
    halves = options.wanted(asked(grid=("small",), axis_dtype=("float32,bfloat16",)), "smoke")
    assert len(halves) == 16
    sized = options.wanted(asked(axis_num_classes=("10,20", "30"), axis_reduction=("sum",)), "smoke")
    assert [(p.batch_size, p.num_classes, p.reduction) for p in sized] == [(128, c, "sum") for c in (10, 20, 30)]


def recording(folder: Path, dtype: torch.dtype = torch.float32) -> str:
    path = folder / "logits.safetensors"
    save_file({"logits": torch.zeros(2, 3, dtype=dtype), "target": torch.zeros(2, dtype=torch.int64)}, path)
    return str(path)


def test_a_file_of_logits_is_asked_alone_unless_a_grid_is_named(tmp_path: Path):
    file = recording(tmp_path)
    assert options.wanted(asked(logits_file=file), "smoke") == (Problem(logits="file"),)
    assert len(options.wanted(asked(logits_file=file, grid=("smoke",)), "smoke")) == 4


def test_a_file_of_logits_is_asked_as_the_call_was_recorded_unless_axes_are_given(tmp_path: Path):
    told = {"reduction": "sum", "label_smoothing": "0.1", "ignore_index": "-1"}
    file = str(tmp_path / "logits.safetensors")
    save_file({"logits": torch.zeros(2, 3), "target": torch.zeros(2, dtype=torch.int64)}, file, told)
    whole = Problem(logits="file", reduction="sum", label_smoothing=0.1)
    assert options.wanted(asked(logits_file=file), "smoke") == (whole,)
    given = asked(logits_file=file, axis_label_smoothing=("0",), axis_reduction=("mean,none",))
    assert options.wanted(given, "smoke") == tuple(Problem(logits="file", reduction=name) for name in ("mean", "none"))
    key = "cross_entropy:logits=file"
    assert options.wanted(asked(logits_file=file, problem=(key,)), "smoke") == (Problem.parse(key),)
    save_file({"logits": torch.zeros(2, 3), "target": torch.zeros(2, dtype=torch.int64)}, file, {"reduction": "avg"})
    with pytest.raises(UsageError, match=r"the options of its call are no problem \(reduction 'avg' is unknown"):
        options.wanted(asked(logits_file=file), "smoke")


def test_a_file_of_logits_is_asked_in_its_own_dtype_unless_another_is_given(tmp_path: Path):
    file = recording(tmp_path, torch.bfloat16)
    assert options.wanted(asked(logits_file=file), "smoke") == (Problem(logits="file", dtype="bfloat16"),)
    both = options.wanted(asked(logits_file=file, axis_dtype=("float32,float16",)), "smoke")
    assert [problem.dtype for problem in both] == ["float32", "float16"]


def test_a_file_of_logits_in_a_dtype_that_nobody_is_asked_is_left_to_whoever_reads_it(tmp_path: Path):
    assert options.wanted(asked(logits_file=recording(tmp_path, torch.int32)), "smoke") == (Problem(logits="file"),)


def test_a_key_that_names_the_file_of_logits_is_all_that_is_asked_of_it(tmp_path: Path):
    key = "cross_entropy:N=2,C=3,dtype=float16,logits=file@0123"
    found = options.wanted(asked(logits_file=recording(tmp_path), problem=(key,)), "smoke")
    assert found == (Problem.parse(key),)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), (None, None)]
)
def test_a_budget_is_read_with_its_unit(text: str | None, seconds: float | None):
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "0s", "5 minutes"])
def test_a_budget_of_another_form_is_told(text: str):
    with pytest.raises(UsageError, match="--budget expected a duration"):
        options.seconds(text)


def test_phases_come_in_their_own_order():
    assert options.phases(["backward", "forward"]) == [Phase.FORWARD, Phase.BACKWARD]
    assert options.phases([]) == list(Phase)


def test_json_is_strict_and_whole(tmp_path, capsys):
    options.write_json(str(tmp_path / "x.json"), {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"schema": 1, "a": 1}
    options.write_json("-", {"a": None})
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "a": None}
    options.write_json(str(tmp_path / "y.json"), {"a": [float("nan"), {"b": float("inf")}]})
    assert json.loads((tmp_path / "y.json").read_text())["a"] == [None, {"b": None}]


def test_json_goes_through_a_link_and_into_a_pipe(tmp_path):
    (tmp_path / "real.json").write_text("")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    options.write_json(str(tmp_path / "link.json"), {"a": 1})
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["a"] == 1
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    options.write_json(str(tmp_path / "pipe"), {"a": 1})
    assert json.loads(os.read(reader, 1000))["a"] == 1
    os.close(reader)
    assert not (tmp_path / "pipe").is_file()


def test_a_seed_is_fresh_unless_given():
    assert options.fresh_seed(3) == 3
    assert len({options.fresh_seed(None) for _ in range(8)}) > 1


def test_all_devices_of_a_kind_are_an_axis_of_their_own(monkeypatch: pytest.MonkeyPatch):
    accelerator = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    found = options.wanted(asked(axis_device=("cpu,cuda:all",), problem=("N=8,C=10",)), "smoke")
    assert [problem.device for problem in found] == ["cpu", "cuda:0", "cuda:1", "cuda:2"]
    with pytest.raises(UsageError, match="--device xpu:all expected xpu devices"):
        options.wanted(asked(axis_device=("xpu:all",)), "smoke")
    with pytest.raises(UsageError, match="device 'cpu:all' is unknown"):
        options.wanted(asked(axis_device=("cpu:all",)), "smoke")
