import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_full_run, make_run

from xentbench.report import page
from xentbench.report.inlining import inline

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'> {{ 7 * 7 }} <!-- javascript:x"


class Elements(HTMLParser):
    """Counts tags, ids, event handlers and addresses; keeps the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: set[str] = set()
        self.handlers: list[str] = []
        self.text: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.ids[value or ""] += name == "id"
            if name in ("href", "src", "xlink:href"):
                self.links.add(value or "")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def default() -> str:
    return page.render(make_run())


def test_the_answer_comes_first(default: str) -> None:
    text = " ".join(Elements(default).text)
    assert text.index("Of 13 implementations 10 are right") < text.index("from-scratch")


def test_every_cell_has_a_row_and_the_first_table_links_to_it(default: str) -> None:
    elements = Elements(default)
    anchors = {name for name in elements.ids if name.startswith("cell-") and name != "cell-table"}
    assert len(anchors) == 13 * 6 * 4
    table = default.partition('id="answer-table"')[2].partition("</table>")[0]
    linked = set(re.findall(r'href="#(cell-\d+)"', table))
    assert linked <= anchors
    assert len(linked) == 13 * 6


def test_memory_has_a_table_of_what_was_weighed(default: str) -> None:
    table = default.partition('id="memory-table"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>\s*<th scope=\"row\" class=\"i1\">from-scratch</th>.*?</tr>", table, re.DOTALL)
    assert len(rows) == 6
    assert any(all(size in row for size in ("4.19 MB", "12.6 MB", "8.39 MB")) for row in rows)


def test_ids_are_unique_over_all_figures_and_every_reference_has_its_target(default: str) -> None:
    elements = Elements(default)
    assert elements.tags["svg"] > 5
    ids = {name: count for name, count in elements.ids.items() if name}
    assert {name for name, count in ids.items() if count > 1} == set()
    references = {link[1:] for link in elements.links if link.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", default)
    )
    assert references <= set(ids)


def test_the_page_needs_nothing_from_elsewhere(default: str) -> None:
    outside = {link for link in Elements(default).links if not link.startswith(("#", "data:"))}
    assert outside == {"https://example.org/paper"}
    assert not re.search(r"@import|url\((?!#)", default)


def test_strangers_words_are_only_words() -> None:
    run = make_run("smoke", names={"naive": HOSTILE})
    records = [{"name": HOSTILE, "reference": "javascript:alert(1)", "summary": HOSTILE, "status": "passed"}]
    info = {**run.info, "implementations": records, "warnings": [HOSTILE], "environment": {HOSTILE: HOSTILE}}
    cells = run.cells.assign(reason=HOSTILE, labels=HOSTILE, label=HOSTILE)
    verdicts = run.verdicts.assign(reason=HOSTILE, reproduce=HOSTILE, status="wrong-value", deviations="")
    found = dict.fromkeys(("quantity", "message", "counterexample", "snippet"), HOSTILE)
    verdicts["failures"] = [[found]] * len(verdicts)
    source = page.render(replace(run, info=info, cells=cells, verdicts=verdicts))
    elements = Elements(source)
    assert elements.tags["script"] == 2
    json.loads(source.partition('id="data">')[2].partition("</script>")[0])
    assert elements.tags["img"] == 0
    assert elements.handlers == []
    assert not [link for link in elements.links if link.startswith("javascript:")]
    assert "{{ 7 * 7 }}" in " ".join(elements.text)


def test_failures_show_message_and_reproduction(default: str) -> None:
    text = " ".join(Elements(default).text)
    assert "looks like exp overflowing" in text
    assert "xentbench parity --implementation naive" in text
    assert "no answer within 30 s" in text


@pytest.mark.parametrize("empty", [SyntheticRun(Path(), "none"), replace(make_run("smoke"), cells=pd.DataFrame())])
def test_a_page_is_made_of_whatever_there_is(empty: SyntheticRun) -> None:
    elements = Elements(page.render(empty))
    assert elements.tags["table"] >= 3
    assert elements.tags["html"] == 1


def test_inline_figures_take_the_colours_of_the_page() -> None:
    vector = (
        '<svg width="72pt" viewBox="0 0 1 1"><g id="a"/><g id="b"/><use xlink:href="#a" style="fill: #1f2328"/></svg>'
    )
    body = inline(vector, "f1", "one <b>", {})
    assert '<g id="f1-0"/><g/>' in body
    assert 'href="#f1-0" class="f1s0"' in body
    assert ".f1s0{fill: currentColor}" in body
    assert 'aria-label="one b"' in body


def test_letters_stand_once_for_all_figures_and_styles_become_rules() -> None:
    letter = '<defs>\n<path id="DejaVuSans-41" d="M 0 0"/>\n</defs><use xlink:href="#DejaVuSans-41" style="fill: red"/>'
    letters: dict[str, str] = {}
    bodies = [inline(f"<svg viewBox='0'>{letter}</svg>", f"f{n}", "", letters) for n in range(2)]
    assert list(letters) == ["DejaVuSans-41"]
    assert all('href="#DejaVuSans-41"' in body and "<path" not in body for body in bodies)
    assert "f0s0" in bodies[0]
    assert "f1s0" in bodies[1]


def test_every_table_and_figure_has_run_device_and_versions_in_its_foot() -> None:
    source = page.render(make_full_run("smoke"))
    tables = re.findall(r"<table.*?</table>", source, re.DOTALL)
    assert len(tables) >= 9
    assert all("run 2026-03-01T12-00-00-a1b2c3" in table.partition("<tfoot>")[2] for table in tables)


def test_an_implementation_has_its_mark_beside_its_name_in_every_table(default: str) -> None:
    assert set(re.findall(r'class="(i\d+)">from-scratch<', default)) == {"i1"}
    assert ".i1::before { background: #e69f00; clip-path: polygon(" in default


def test_failures_show_counterexample_and_code_with_its_lines() -> None:
    source = page.render(make_full_run("smoke"))
    assert "12 among the problems" in source
    assert "trained on digits" in source
    full = page.render(make_run())
    assert "<code>N=1 C=2, logits [[89, 0]], target [0]: expected 0, got inf</code>" in full
    assert "<code>import torch\n\nlogits = torch.tensor" in full


def test_a_minimum_of_a_few_bytes_gives_no_factor() -> None:
    run = make_run("smoke")
    forward = replace(run, cells=run.cells[run.cells["phase"] == "forward"])
    table = page.render(forward, {}).partition('id="answer-table"')[2].partition("</table>")[0]
    assert re.search(r"\d kB</td>", table)
    assert "x</td>" not in table


def test_of_many_sizes_six_are_shown_at_first_and_the_page_says_so() -> None:
    source = page.render(make_run("mixed"), {})
    assert "forward+backward, 6 of 21 sizes." in source
    assert source.partition("<fieldset>")[2].partition("</fieldset>")[0].count(" checked") == 6


def test_of_one_size_there_is_nothing_to_pick_and_the_clock_of_long_calls_is_told() -> None:
    run = make_run("smoke")
    key = run.cells["problem"].iloc[0]
    cells, verdicts = (frame[frame["problem"] == key] for frame in (run.cells, run.verdicts))
    html = page.render(replace(run, cells=cells.assign(clock="cpu"), verdicts=verdicts))
    assert "data-sizes=" not in html
    assert "all 1 problems" not in html
    assert "latencies are wall time" in html
    html = page.render(replace(run, cells=run.cells.assign(clock="wall")))
    assert 'data-sizes="all"' in html
    assert "latencies are wall time" not in html


def test_a_run_of_several_sittings_tells_of_them() -> None:
    for sittings, told in (([{"seed": 7}], False), ([{"seed": 7}, {"seed": None}, "junk"], True)):
        shown = page.render(SyntheticRun(Path(), "none", {"sittings": sittings}))
        assert ("2; seeds 7, untold (killed)" in shown) == told


def test_a_page_of_two_thousand_cells_with_all_that_a_run_may_hold_is_small() -> None:
    source = page.render(make_full_run("curves"))
    assert len(set(re.findall(r'<tr id="cell-\d+"', source))) == 2028
    assert len(source.encode()) <= 5e6
