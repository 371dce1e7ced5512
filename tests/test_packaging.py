from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # A copy is built: setuptools leaves its build folder beside the sources.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "harness", "implementations", "tests"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(folder), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_has_one_top_level_name_of_ours(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"xentbench"}


def test_the_wheel_ships_types_templates_implementations_and_mistakes(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    assert "xentbench/py.typed" in names
    assert any(name.startswith("xentbench/report/") and name.endswith(".jinja") for name in names)
    for file in (ROOT / "implementations").glob("*.py"):
        assert f"xentbench/implementations/{file.name}" in names
    for file in (ROOT / "tests" / "mistakes").glob("*.py"):
        assert f"xentbench/mistakes/{file.name}" in names
    for file in (ROOT / "harness" / "xentbench").rglob("*.py"):
        assert f"xentbench/{file.relative_to(ROOT / 'harness' / 'xentbench')}" in names


def test_run_time_dependencies_have_floors_and_no_pins(wheel: zipfile.ZipFile):
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    required = [line for line in wheel.read(metadata).decode().splitlines() if line.startswith("Requires-Dist: torch")]
    assert len(required) == 1
    assert "==" not in required[0]
    assert ">=" in required[0]
