from pathlib import Path

import pytest
from synthetic_run import make_run

from xentbench import report
from xentbench.report import folder, page


def test_the_folder_holds_every_form_of_the_report(tmp_path: Path) -> None:
    paths = report.write(make_run("smoke"), tmp_path / "new" / "run")
    assert {"table.csv", "summary.md", "report.md", "report.html", "summary.png", "figures/summary.svg"} <= set(paths)
    assert all(path.stat().st_size > 100 for path in paths.values())
    on_disk = {path for path in (tmp_path / "new" / "run").rglob("*") if path.is_file()}
    assert on_disk == set(paths.values())


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("before")

    def fail(*_: object) -> str:
        msg = "no space"
        raise OSError(msg)

    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(OSError, match="no space"):
        folder.write(make_run("smoke"), tmp_path)
    assert (tmp_path / "report.html").read_text() == "before"
