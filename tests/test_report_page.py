import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import SyntheticRun, make_run

from xentbench.report import page

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
    linked = {link[1:] for link in elements.links if link.startswith("#cell-")}
    assert linked <= anchors
    assert len(linked) == 13 * 6


def test_memory_has_a_table_of_what_was_weighed(default: str) -> None:
    table = default.partition('id="memory-table"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>\s*<th scope=\"row\">from-scratch</th>.*?</tr>", table, re.DOTALL)
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
    verdicts["failures"] = [[{"quantity": HOSTILE, "message": HOSTILE}]] * len(verdicts)
    source = page.render(replace(run, info=info, cells=cells, verdicts=verdicts))
    elements = Elements(source)
    assert elements.tags["script"] == 1
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
    vector = '<svg width="72pt" viewBox="0 0 1 1"><g id="a"/><use xlink:href="#a" style="fill: #1f2328"/></svg>'
    body = page.inline(vector, "f1", "one <b>")
    assert 'id="f1-a"' in body
    assert 'xlink:href="#f1-a"' in body
    assert "currentColor" in body
    assert 'aria-label="one b"' in body


def test_a_run_of_several_sittings_tells_of_them() -> None:
    for sittings, told in (([{"seed": 7}], False), ([{"seed": 7}, {"seed": None}, "junk"], True)):
        shown = page.render(SyntheticRun(Path(), "none", {"sittings": sittings}))
        assert ("2; seeds 7, untold (killed)" in shown) == told
