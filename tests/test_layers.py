"""The layout shows the architecture: each room may import only the rooms named before it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import xentbench
from xentbench import mistakes

PACKAGE = Path(xentbench.__file__).parent
MISTAKES = Path(mistakes.__file__).parent
LAYERS = [
    *(
        "files",
        "threads",
        "spec",
        "shards",
        "watching",
        "settings",
        "drawing",
        "inputs",
        "problems",
        "recordings",
        "capturing",
        "models",
        "trained",
        "workloads",
    ),
    *("doubledouble", "rows", "paired", "streaming", "oracle", "sampling", "posing"),
    *("bounds", "curvature", "elementwise", "laws", "diagnosis", "quantities", "parity", "panel"),
    "mistakes",
    *("statistics", "machine", "limits", "environment", "journal", "columns", "results"),
    *(
        "worker",
        "templates",
        "processes",
        "pace",
        "printed",
        "workers",
        "registry",
        "revisions",
        "challenge",
        "witness",
    ),
    *(
        "weighing",
        "leaks",
        "examining",
        "offers",
        "simplifying",
        "shrinking",
        "reproducing",
        "pattern",
        "foremost",
        "crews",
        "counterexamples",
        "replies",
        "lanes",
        "measured",
        "timing",
        "squads",
        "planning",
        "resuming",
        "devices",
        "due",
        "accuracies",
        "tolerances",
        "training",
        "sweep",
        "checking",
        "inprocess",
        "pytest",
        "baseline",
        "found",
        "compare",
        "twins",
        "selftest",
    ),
    *(
        "report",
        "exchange",
        "console",
        "options",
        "configuration",
        "judging",
        "junit",
        "ordering",
        "showing",
        "running",
        "cli",
    ),
]
WORKER_MAY = {"spec", "drawing", "inputs", "models", "worker"}


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in ("__init__", "__main__", "implementations", "mistakes"):
            found.setdefault(parts[0], []).append(file)
    # An editable install leaves this room's files under tests/.
    return found | {"mistakes": list(MISTAKES.glob("*.py"))}


def imported(file: Path) -> set[str]:
    """Return the rooms that a file imports anywhere in it, inside functions and for types too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "xentbench":
            names |= {f"xentbench.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("xentbench.")}


def test_every_room_has_its_place():
    assert sorted(rooms()) == sorted(LAYERS)


@pytest.mark.parametrize("room", LAYERS)
def test_a_room_imports_only_what_is_named_before_it(room: str):
    below = set(LAYERS[: LAYERS.index(room) + 1])
    for file in rooms()[room]:
        assert imported(file) <= below, file.name


def test_a_worker_imports_the_nouns_and_nothing_else_of_ours():
    for file in rooms()["worker"]:
        assert imported(file) <= WORKER_MAY, file.name


def test_the_mistakes_know_nothing_of_the_judge():
    for file in rooms()["mistakes"]:
        assert imported(file) <= {"mistakes"}, file.name


def test_the_judge_and_the_clock_do_not_know_each_other():
    for file in rooms()["parity"]:
        assert "timing" not in imported(file)
    for file in rooms()["timing"]:
        assert "parity" not in imported(file)


def test_the_report_never_measures():
    for file in rooms()["report"]:
        assert imported(file) <= {"files", "spec", "report", "results"}, file.name


def test_the_parent_never_imports_an_implementation():
    for room, files in rooms().items():
        for file in files:
            assert "implementations" not in imported(file), room


def test_the_baseline_and_the_oracle_do_not_know_each_other():
    text = (PACKAGE / "oracle.py").read_text(encoding="utf-8")
    assert "functional" not in text.replace("F.cross_entropy", "")
