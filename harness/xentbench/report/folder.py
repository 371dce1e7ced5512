"""All forms of a report, written into one folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xentbench.files import write_atomically
from xentbench.report import page, tables
from xentbench.report.digest import compact
from xentbench.report.figures import encode, figures, save_encoded
from xentbench.report.view import View

if TYPE_CHECKING:
    from pathlib import Path

    from xentbench.report.view import RunLike


def write(run: RunLike | View, folder: Path) -> dict[str, Path]:
    """Write all forms of the report into `folder`; return `{name: path}`.

    table.csv, summary.md, report.md, report.html, summary.png and figures/: each file is whole or, when writing fails,
    what it was before.

    Raises:
        OSError: the folder cannot be made or written.
    """
    view = View.of(run)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "table.csv": write_atomically(folder / "table.csv", tables.csv(view)),
        "summary.md": write_atomically(folder / "summary.md", compact(view)),
        "report.md": write_atomically(folder / "report.md", tables.markdown(view)),
    }
    encoded = {name: encode(figure) for name, figure in figures(view).items()}
    saved = save_encoded(encoded, folder / "figures")
    paths |= {f"figures/{name}": path for name, path in saved.items()}
    if "summary" in encoded:
        paths["summary.png"] = write_atomically(folder / "summary.png", encoded["summary"][1])
    vectors = {name: vector for name, (vector, _) in encoded.items()}
    paths["report.html"] = write_atomically(folder / "report.html", page.render(view, vectors))
    return paths
