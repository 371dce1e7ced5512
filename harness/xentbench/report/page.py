"""The page: one HTML file that works offline, in light and dark, on paper, and without its script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import numpy as np
from markupsafe import Markup

from xentbench.report import marks, picker
from xentbench.report.accuracy import accuracy
from xentbench.report.advice import advice
from xentbench.report.conditions import conditions
from xentbench.report.errormap import letters
from xentbench.report.evidence import clock_trial
from xentbench.report.families import losses
from xentbench.report.figures import encode, figures
from xentbench.report.heatmap import MAX_PROBLEMS
from xentbench.report.inlining import inlined
from xentbench.report.picks import first, narrowed, regimes
from xentbench.report.regimes import beside, has_faults, is_settled, reversals
from xentbench.report.standing import DECLARED, standings, who_is_fastest, who_is_right
from xentbench.report.style import foot
from xentbench.report.tables import broken_cells, failures
from xentbench.report.text import (
    SIGNS,
    count_bytes,
    digits,
    inert,
    interval,
    percent,
    plain,
    seconds,
    times,
    unbroken,
)
from xentbench.report.view import View, is_wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xentbench.report.view import RunLike

FOLDER: Final = Path(__file__).parent
LINK: Final = re.compile(r"https?://[^\s]+")
SECTIONS: Final = (("speedup", "Speed-up"), ("latency", "Latency"), ("memory", "Memory"))
FILTERS: Final = {
    "seconds": seconds,
    "bytes": count_bytes,
    "times": times,
    "digits": digits,
    "percent": percent,
    "unbroken": unbroken,
}


def render(run: RunLike | View, drawn: Mapping[str, str] | None = None) -> str:
    """Return the page as HTML.

    Args:
        run: the run.
        drawn: figures that were drawn already, as `{name: SVG text}`; drawn here where None.
    """
    view = View.of(run)
    vectors = {name: encode(figure)[0] for name, figure in figures(view).items()} if drawn is None else drawn
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= FILTERS
    letters, drawings = inlined(view, vectors)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        **_overview(view),
        **_details(view),
        style=(FOLDER / "page.css").read_text(encoding="utf-8") + marks.css(view),
        script=script,
        # Only this very script may run: text that slips through every escape still could not.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        glyphs=letters,
        figures=drawings,
        sections=SECTIONS,
    )


def _overview(view: View) -> dict[str, Any]:
    """Return what the top of the page shows: the answer, the table before anybody picked, and what may be picked."""
    stands, pick = standings(view), first(view)
    return {
        "view": view,
        "title": f"Cross-entropy in PyTorch: {view.id}" if view.id else "Cross-entropy in PyTorch",
        "right": who_is_right(stands, len(view.problems)) if stands else "Nothing was run.",
        "fastest": who_is_fastest(narrowed(view, pick)),
        "lines": picker.lines(view, stands),
        "picked": pick,
        "most_drawn": MAX_PROBLEMS,
        "by_cpu": bool((view.cells["clock"] == "cpu").any()),
        "regime_names": regimes(view),
        "data": _json(picker.data(view, stands)),
        "marks": marks.classes(view),
        "signs": SIGNS,
        "declared": DECLARED,
        "warnings": [*view.lines("warnings"), *view.damage],
        "foot": foot(view),
        "setup": _setup(view),
        "kinds": {(stand.name, key): outcome for stand in stands for key, outcome in stand.outcomes.items()},
    }


def _details(view: View) -> dict[str, Any]:
    """Return what the sections below show."""
    cells, alone = view.cells.reset_index(drop=True), replace(view, verdicts=view.accuracies)
    return {
        "cells": [_cell(number, row, view) for number, row in enumerate(cells.to_dict("records"))],
        "accuracy": accuracy(view),
        "losses": losses(view),
        "letters": letters,
        "trainings": view.trainings.to_dict("records"),
        "failures": [_failure(row) for row in failures(view).to_dict("records")],
        "failed_accuracies": [_failure(row) for row in failures(alone).to_dict("records")],
        "failed_trainings": [row for row in view.trainings.to_dict("records") if is_wrong(row["status"])],
        "broken": broken_cells(view).to_dict("records"),
        "wrong": is_wrong,
        "described": view.described(),
        "link": lambda text: bool(LINK.fullmatch(text)),
        "conditions": conditions(view),
        "advice": advice(view),
        "regimes": [row for row in beside(view) if row.phase == view.headline],
        "reversals": reversals(view),
        "settled": is_settled(view),
        "faulted": has_faults(view),
        "tried": clock_trial(view),
    }


def _json(value: object) -> Markup:
    """Return `value` as JSON that no text within can end: HTML knows neither of these characters in it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for char in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - escaped by the line above


def _setup(view: View) -> dict[str, list[float]]:
    longest = view.cells.groupby(["implementation", "problem"], sort=False)["setup_s"].max().to_dict()
    return {n: [float(longest.get((n, key), np.nan)) for key in view.problems.index] for n in view.implementations}


def _cell(number: int, row: dict[Any, Any], view: View) -> dict[str, Any]:
    return {
        **{str(key): value for key, value in row.items()},
        "anchor": f"cell-{number}",
        "name": unbroken(str(view.problems["name"][row["problem"]])),
        "interval": interval(row["speedup_low"], row["speedup_high"]),
        "range": " to ".join(filter(None, (seconds(row["latency_p05_s"]), seconds(row["latency_p95_s"])))),
        "peak": count_bytes(row["peak_bytes"]),
        "cold": times(1 / row["cold_ratio"]) if row["cold_ratio"] > 0 else "",
        "cold_interval": interval(1 / row["cold_high"], 1 / row["cold_low"]) if row["cold_low"] > 0 else "",
    }


def _failure(row: dict[Any, Any]) -> dict[str, Any]:
    listed = row["failures"] if isinstance(row["failures"], (list, tuple)) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    found = [
        {
            **{name: plain(entry.get(name)) for name in ("quantity", "message", "counterexample")},
            "snippet": "\n".join(map(inert, str(entry.get("snippet") or "").splitlines())),
        }
        for entry in entries
    ]
    return {
        **{str(key): value for key, value in row.items()},
        "found": found or [{"quantity": "", "message": row["reason"], "counterexample": "", "snippet": ""}],
    }
