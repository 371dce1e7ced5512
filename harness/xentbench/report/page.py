"""The page: one HTML file that works offline, in light and dark, on paper, and without its script."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jinja2
import numpy as np

from xentbench.report.accuracy import accuracy
from xentbench.report.evidence import clock_trial
from xentbench.report.figures import encode, figures
from xentbench.report.regimes import beside, reversals
from xentbench.report.standing import DECLARED, answer, standings
from xentbench.report.style import INK, PAPER, RULE, foot
from xentbench.report.tables import broken_cells, failures
from xentbench.report.text import SIGNS, count_bytes, digits, interval, percent, plain, seconds, times
from xentbench.report.view import View, is_wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xentbench.report.view import RunLike

FOLDER: Final = Path(__file__).parent
INHERITED: Final = {INK: "currentColor", PAPER: "var(--paper)", RULE: "var(--rule)"}
"""Colours of a figure that follow the page's light or dark scheme."""
LINK: Final = re.compile(r"https?://[^\s]+")
SECTIONS: Final = (("speedup", "Speed-up"), ("latency", "Latency"), ("memory", "Memory"))


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
    environment.filters |= {
        "seconds": seconds,
        "bytes": count_bytes,
        "times": times,
        "digits": digits,
        "percent": percent,
    }
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html.jinja").render(
        **_content(view),
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script=script,
        # Only this very script may run: text that slips through every escape still could not.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        figures=_inlined(view, vectors),
        sections=SECTIONS,
    )


def _content(view: View) -> dict[str, Any]:
    stands = standings(view)
    cells = view.cells.reset_index(drop=True)
    records = [_cell(number, row, view) for number, row in enumerate(cells.to_dict("records"))]
    anchors = {
        (row["implementation"], row["problem"]): row["anchor"] for row in records if row["phase"] == view.headline
    }
    return {
        "view": view,
        "title": f"Cross-entropy in PyTorch: {view.id}" if view.id else "Cross-entropy in PyTorch",
        "answer": answer(view, stands),
        "stands": stands,
        "headings": [_unbroken(name) for name in view.problems["name"]],
        "labelled": any(stand.labels for stand in stands),
        "anchors": anchors,
        "cells": records,
        "accuracy": accuracy(view),
        "failures": [_failure(row) for row in failures(view).to_dict("records")],
        "broken": broken_cells(view).to_dict("records"),
        "setup": _setup(view),
        "wrong": is_wrong,
        "unbroken": _unbroken,
        "kinds": {(stand.name, key): outcome for stand in stands for key, outcome in stand.outcomes.items()},
        "signs": SIGNS,
        "declared": DECLARED,
        "described": view.described(),
        "link": lambda text: bool(LINK.fullmatch(text)),
        "warnings": [*view.lines("warnings"), *view.damage],
        "conditions": _conditions(view),
        "regimes": beside(view),
        "reversals": reversals(view),
        "tried": clock_trial(view),
        "foot": foot(view),
    }


def _unbroken(name: str) -> str:
    """Return a problem's name that a line may break around its shape, not within."""
    return re.sub(r"\([\d, ]+\)", lambda shape: shape[0].replace(" ", "\N{NO-BREAK SPACE}"), name)


def _setup(view: View) -> dict[str, list[float]]:
    longest = view.cells.groupby(["implementation", "problem"], sort=False)["setup_s"].max().to_dict()
    return {n: [float(longest.get((n, key), np.nan)) for key in view.problems.index] for n in view.implementations}


def _cell(number: int, row: dict[Any, Any], view: View) -> dict[str, Any]:
    return {
        **{str(key): value for key, value in row.items()},
        "anchor": f"cell-{number}",
        "name": view.problems["name"][row["problem"]],
        "interval": interval(row["speedup_low"], row["speedup_high"]),
        "range": " to ".join(filter(None, (seconds(row["latency_p05_s"]), seconds(row["latency_p95_s"])))),
    }


def _failure(row: dict[Any, Any]) -> dict[str, Any]:
    listed = row["failures"] if isinstance(row["failures"], (list, tuple)) else []
    entries = [entry for entry in listed if isinstance(entry, dict)]
    found = [(plain(entry.get("quantity")), plain(entry.get("message"))) for entry in entries]
    return {**{str(key): value for key, value in row.items()}, "found": found or [("", row["reason"])]}


def _conditions(view: View) -> list[tuple[str, str]]:
    info = view.info
    wall = info.get("wall_s")
    rows = [
        *(("run", view.id), ("contract", plain(info.get("contract"))), ("preset", plain(info.get("preset")))),
        *(("grids", ", ".join(view.lines("grids"))), ("seed", plain(info.get("seed")))),
        *(("started", plain(info.get("started"))), ("baseline", plain(info.get("baseline")))),
        ("duration", f"{wall:.0f} s" if isinstance(wall, (int, float)) else ""),
        ("sittings", _sittings(view)),
    ]
    facts = {**view.facts(), **view.machine()}.items()
    sized = [
        (key, count_bytes(float(value)) if key.endswith("_bytes") and value.isdigit() else value)
        for key, value in facts
    ]
    return [(key.replace("_", " ").removesuffix(" bytes"), value) for key, value in [*rows, *sized] if value]


def _sittings(view: View) -> str:
    """Return how often the run was gone on with, or shared, and the seeds; nothing where it was made at one go."""
    listed = view.info.get("sittings")
    told = [one for one in listed if isinstance(one, dict)] if isinstance(listed, (list, tuple)) else []
    seeds = [plain(one.get("seed")) or "untold (killed)" for one in told]
    return f"{len(told)}; seeds {', '.join(seeds)}" if len(told) > 1 else ""


def _inlined(view: View, vectors: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of each section as `{name, phase, svg, first}`, those of the headline phase shown at once."""
    found: dict[str, list[dict[str, Any]]] = {"summary": []}
    for place, (name, vector) in enumerate(vectors.items()):
        section, _, phase = name.partition("-")
        group = found.setdefault(section, [])
        words = phase.removesuffix("-classes")
        label = f"{section} {phase}".strip()
        shown = not words or words == view.headline
        group.append({"name": label, "phase": words, "svg": inline(vector, f"f{place}", label), "first": shown})
    return found


def inline(vector: str, prefix: str, label: str) -> str:
    """Return an SVG file's element for use within HTML.

    Its identifiers get `prefix`, so that several figures share a page; ink, paper and rules take the page's colours;
    comments, which repeat strangers' text, go.
    """
    body = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|<\?xml.*?\?>|<!DOCTYPE.*?>", "", vector, flags=re.DOTALL
    ).strip()
    body = re.sub(r'\b(id=")([^"]+")', rf"\1{prefix}-\2", body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", body)
    for colour, inherited in INHERITED.items():
        body = body.replace(colour, inherited)
    name = re.sub(r"[^\w+ -]", "", label)
    width = re.search(r'\bwidth="([\d.]+)pt"', body)
    style = f'style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    sizes = re.compile(r'<svg\b[^>]*?(viewBox="[^"]+")[^>]*>')
    return sizes.sub(
        rf'<svg \1 role="img" aria-label="{name}" {style} xmlns:xlink="http://www.w3.org/1999/xlink">', body, count=1
    )
