"""The page in a real browser: what a person sees, clicks and types; skipped where there is no chromium."""

from __future__ import annotations

import base64
import shutil
import tempfile
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from synthetic_run import make_full_run, make_run

from xentbench.report import page
from xentbench.report.picks import DEFAULT, KEPT, Pick, narrowed
from xentbench.report.standing import fastest, standings
from xentbench.report.view import View

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the path")

SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options.add_argument(f"--user-data-dir={folder}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
        yield driver
        driver.quit()


@pytest.fixture(scope="module")
def view() -> View:
    return View.of(make_full_run())


@pytest.fixture(scope="module")
def address(view: View, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render(view), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: webdriver.Chrome, address: str) -> Iterator[webdriver.Chrome]:
    """Yield the browser on the page, 1280 pixels wide; whatever a test does, the console must stay empty."""
    browser.get_log("browser")
    resize(browser, 1280)
    browser.get("about:blank")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def resize(browser: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def answer_rows(browser: webdriver.Chrome) -> list[list[str]]:
    script = """return Array.from(document.querySelectorAll('#answer-table tbody tr:not([hidden])'),
        row => Array.from(row.cells, cell => cell.textContent.replace(/\\s+/g, ' ').trim()))"""
    rows: list[list[str]] = browser.execute_script(script)
    return rows


def size_boxes(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#picker input[name=size]")


def expected(view: View, pick: Pick) -> list[list[str]]:
    """Return the table as Python makes it for a pick: name, grade, right, entries, memory, labels."""
    part = narrowed(view, pick)
    rows = []
    for whole, stand in zip(standings(view), standings(part), strict=True):
        entries = [
            f"{page.SIGNS.get(entry.verdict, '')} {entry.text} {entry.interval}".strip()
            + (" (declared)" if entry.kind == "declared" else "")
            for entry in stand.entries.values()
        ]
        rows.append([stand.name, stand.grade, whole.right, *entries, stand.memory, ", ".join(stand.labels)])
    return rows


def test_the_table_is_the_same_with_the_script_as_without(opened: webdriver.Chrome, view: View) -> None:
    whole = Pick(tuple(view.problems.index), "forward+backward")
    assert answer_rows(opened) == expected(view, whole)


@pytest.mark.parametrize(
    ("sizes", "phase", "regime"),
    [((1, 3), "forward+backward", KEPT), ((0, 2, 5), "forward", KEPT), ((2, 3, 5), "backward", DEFAULT)],
)
def test_what_is_picked_is_what_python_would_show(
    opened: webdriver.Chrome, view: View, sizes: tuple[int, ...], phase: str, regime: str
) -> None:
    for place, box in enumerate(size_boxes(opened)):
        if box.is_selected() != (place in sizes):
            box.click()
    for name, wanted in (("phase", phase), ("regime", regime)):
        Select(opened.find_element(By.CSS_SELECTOR, f"#picker select[name={name}]")).select_by_visible_text(wanted)
    keys = tuple(view.problems.index[place] for place in sizes)
    pick = Pick(keys, phase, regime)
    assert answer_rows(opened) == expected(view, pick)
    largest = view.problems.loc[[*keys]]["elements"].idxmax()
    assert opened.find_element(By.ID, "fastest").text == fastest(narrowed(view, pick))[str(largest)]
    assert f"{len(sizes)} of 6 sizes" in opened.find_element(By.ID, "shown").text


def test_one_size_shows_latency_and_peak_too_and_cannot_be_unpicked(opened: webdriver.Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, "button[data-sizes=largest]").click()
    heads = [head.text for head in opened.find_elements(By.CSS_SELECTOR, "#answer-table thead button")]
    assert heads[3:6] == ["text (128, 8192)", "latency", "peak"]
    row = next(row for row in answer_rows(opened) if row[0] == "from-scratch")
    assert " ms" in row[4]
    assert row[5].endswith("MB")
    (only,) = (box for box in size_boxes(opened) if box.is_selected())
    assert not only.is_enabled()
    opened.find_element(By.CSS_SELECTOR, "button[data-sizes=all]").click()
    assert len(answer_rows(opened)[0]) == 3 + 6 + 2


def test_the_picker_works_by_keyboard(opened: webdriver.Chrome) -> None:
    first = size_boxes(opened)[0]
    opened.execute_script("arguments[0].focus()", first)
    opened.switch_to.active_element.send_keys(Keys.SPACE)
    assert len(answer_rows(opened)[0]) == 3 + 5 + 2
    for _ in range(6 + 3):  # the other sizes, then the three buttons, end at the phase
        opened.switch_to.active_element.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("name") == "phase"
    opened.switch_to.active_element.send_keys("forward-no")
    assert opened.find_element(By.ID, "shown").text.startswith("forward-no-grad")


def column(browser: webdriver.Chrome, table: str, place: int) -> list[str]:
    script = "return Array.from(document.querySelectorAll(arguments[0]), row => row.cells[arguments[1]].textContent)"
    texts: list[str] = browser.execute_script(script, f"#{table} tbody tr", place)
    return texts


def sort_button(browser: webdriver.Chrome, table: str, place: int) -> WebElement:
    return browser.find_elements(By.CSS_SELECTOR, f"#{table} thead button")[place]


def leading(text: str) -> float:
    return float("".join(char for char in text.partition("x")[0] if char in "0123456789."))


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_tables_are_sorted_by_number_with_units_and_what_has_none_stays_last(opened: webdriver.Chrome, by: str) -> None:
    button = sort_button(opened, "answer-table", 4)
    for direction in (1, -1):
        if by == "mouse":
            button.click()
        else:
            button.send_keys(Keys.ENTER)
        texts = column(opened, "answer-table", 4)
        speeds = [leading(text) for text in texts if "x" in text]
        assert all(direction * one <= direction * other for one, other in pairwise(speeds))
        assert texts[-1] == "unsupported"
    sort_button(opened, "memory-table", 3).click()
    factor = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    sizes = [float(text.split()[0]) * factor[text.split()[1]] for text in column(opened, "memory-table", 3)]
    assert sizes == sorted(sizes)
    assert sizes[0] < 1e4 < sizes[-1]


def test_a_new_pick_can_be_sorted_and_keeps_its_filter(opened: webdriver.Chrome) -> None:
    opened.find_element(By.CSS_SELECTOR, "[data-table=answer-table] input").send_keys("compiled")
    assert [row[0] for row in answer_rows(opened)] == ["compiled-f-cross-entropy", "compiled-from-scratch"]
    size_boxes(opened)[0].click()
    assert [row[0] for row in answer_rows(opened)] == ["compiled-f-cross-entropy", "compiled-from-scratch"]
    sort_button(opened, "answer-table", 0).click()
    sort_button(opened, "answer-table", 0).click()
    assert [row[0] for row in answer_rows(opened)] == ["compiled-from-scratch", "compiled-f-cross-entropy"]


def test_the_filter_counts_and_a_link_shows_a_row_that_it_hides(opened: webdriver.Chrome) -> None:
    box = opened.find_element(By.CSS_SELECTOR, "[data-table=cell-table]")
    box.find_element(By.TAG_NAME, "input").send_keys("naive backward faster")
    shown = opened.find_elements(By.CSS_SELECTOR, "#cell-table tbody tr:not([hidden])")
    assert box.find_element(By.TAG_NAME, "output").text == f"{len(shown)} of 312 rows"
    link = opened.find_elements(By.CSS_SELECTOR, "#answer-table tbody a")[7]
    row = opened.find_element(By.ID, str(link.get_attribute("href")).partition("#")[2])
    assert row.get_attribute("hidden")
    link.click()
    assert not row.get_attribute("hidden")
    assert "from-scratch" in row.text


def test_marks_of_figures_tell_their_cell(opened: webdriver.Chrome) -> None:
    script = "return Array.from(document.querySelectorAll('figure svg title'), title => title.textContent)"
    hints = opened.execute_script(script)
    assert any(hint.startswith("from-scratch, (8, 10): 0.48x [") for hint in hints)
    assert any("default allocator" in hint for hint in hints)
    drawn = (
        "const box = document.querySelector('figure svg use').getBoundingClientRect(); return box.width * box.height"
    )
    assert opened.execute_script(drawn) > 0


def test_a_snippet_is_folded_and_can_be_copied(opened: webdriver.Chrome) -> None:
    snippet = opened.find_element(By.CSS_SELECTOR, "details.snippet")
    code = snippet.find_element(By.TAG_NAME, "code")
    assert not code.is_displayed()
    snippet.find_element(By.TAG_NAME, "summary").click()
    assert code.text.splitlines()[0] == "import torch"
    snippet.find_element(By.CSS_SELECTOR, "button.copy").click()
    until = "const [button, done] = arguments; const look = () => button.textContent === 'copied' ? done(true) : "
    until += "requestAnimationFrame(look); look()"
    assert opened.execute_async_script(until, snippet.find_element(By.CSS_SELECTOR, "button.copy"))


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_document_never_scrolls_sideways(opened: webdriver.Chrome, width: int, scheme: str) -> None:
    resize(opened, width)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    opened.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide, room = opened.execute_script("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
    assert wide == room
    assert width - 20 < room <= width  # less the bar
    back = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(15, 17, 20)") == (scheme == "dark")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_first_table_fits_a_window_of_1280_pixels(opened: webdriver.Chrome) -> None:
    script = "const box = document.querySelector('#answer-table').parentNode; return [box.scrollWidth, box.clientWidth]"
    inner, room = opened.execute_script(script)
    assert inner <= room


def test_a_table_that_is_wider_than_its_frame_says_so(opened: webdriver.Chrome) -> None:
    script = """return Object.fromEntries(['answer-table', 'cell-table'].map((name) => {
        const frame = document.getElementById(name).parentNode; frame.scrollIntoView();
        return [name, frame.previousElementSibling.classList.contains('sideways')
            && !frame.previousElementSibling.hidden]; }))"""
    resize(opened, 1280)
    WebDriverWait(opened, 10).until(
        lambda page: page.execute_script(script) == {"answer-table": False, "cell-table": True}
    )
    resize(opened, 400)
    WebDriverWait(opened, 10).until(lambda page: page.execute_script(script)["answer-table"])


def test_names_stay_in_place_with_their_rules_when_a_table_scrolls(opened: webdriver.Chrome) -> None:
    resize(opened, 400)
    script = """const box = document.querySelector('#answer-table').parentNode; box.scrollLeft = 300;
        const name = box.querySelector('tbody th'); const style = getComputedStyle(name);
        return [name.getBoundingClientRect().left - box.getBoundingClientRect().left, style.borderBottomWidth,
                getComputedStyle(box.querySelector('table')).borderCollapse]"""
    left, rule, collapse = opened.execute_script(script)
    assert left < 2
    assert (rule, collapse) == ("1px", "separate")


def test_the_page_prints(opened: webdriver.Chrome) -> None:
    printed: dict[str, Any] = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_on_paper_no_figure_is_higher_than_a_sheet_and_what_is_folded_is_open(opened: webdriver.Chrome) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        heights, folded = opened.execute_script("""return [
            [...document.querySelectorAll('figure svg')].map((drawing) => drawing.getBoundingClientRect().height),
            [...document.querySelectorAll('details:not(.snippet) > :not(summary)')].filter(
                (one) => !one.checkVisibility({contentVisibilityAuto: false})).length]""")
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert heights
    assert max(heights) < 16 / 2.54 * 96
    assert folded == 0


def test_without_its_script_a_table_of_at_most_six_sizes_stands(browser: webdriver.Chrome, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.render(View.of(make_run("mixed")), {}), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        assert not browser.find_element(By.ID, "picker").is_displayed()
        assert len(browser.find_elements(By.CSS_SELECTOR, "#answer-table thead th")) == 3 + 6 + 2
        assert "6 of 21 sizes" in browser.find_element(By.ID, "shown").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_strangers_name_stays_a_name_when_the_table_is_made_anew(browser: webdriver.Chrome, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=console.error(1)>"
    run = make_run("smoke", names={"naive": hostile})
    path = tmp_path / "report.html"
    path.write_text(page.render(replace(run, cells=run.cells.assign(reason=hostile)), {}), encoding="utf-8")
    browser.get_log("browser")
    browser.get(path.as_uri())
    browser.find_element(By.CSS_SELECTOR, "button[data-sizes=largest]").click()
    assert answer_rows(browser)[0][0] == hostile
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert browser.get_log("browser") == []
