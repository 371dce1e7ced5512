"""What a page of 2028 cells costs: to make, to keep, to open: `python benchmarks/page_cost.py` (two minutes).

Conditions: an artificial run with all that a run may hold (13 implementations, 39 sizes, 4 phases, both allocators, 32
accuracies and 2 trainings each), on whatever machine this is, quiet or not. Made: the whole folder, figures and tables
included. Opened: from the start of the navigation until the page was drawn, in a fresh headless chromium, where there
is one. Limits: 15 s to make, 5 MB, 3 s to open.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from xentbench import environment, report

if TYPE_CHECKING:
    from xentbench.report.view import RunLike

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from synthetic_run import make_full_run

TIMES = 3
SWITCHES = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
DRAWN = """const done = arguments[arguments.length - 1];
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));"""


def main() -> None:
    """Print the three figures and the conditions."""
    run = make_full_run("curves")
    with tempfile.TemporaryDirectory() as folder:
        made_s = [made(run, Path(folder)) for _ in range(TIMES)]
        page = Path(folder) / "report.html"
        print(f"{len(run.cells)} cells")
        tell("made", [wall_s for wall_s, _ in made_s])
        tell("  of that CPU time", [cpu_s for _, cpu_s in made_s])
        print(f"page: {page.stat().st_size / 1e6:.2f} MB")
        if (browser := shutil.which("chromium")) and (driver := shutil.which("chromedriver")):
            tell("opened", [opened_s(page, browser, driver) for _ in range(TIMES)])
        else:
            print("opened: needs chromium and chromedriver on the path")
    print(f"{environment.cpu_model()}, {environment.usable_cores()} cores, Python {platform.python_version()}")


def made(run: RunLike, folder: Path) -> tuple[float, float]:
    """Write the whole report; return the seconds of wall and of CPU time that it took."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    report.write(run, folder)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def opened_s(page: Path, browser: str, driver: str) -> float:
    """Return the seconds from the start of the navigation until the page was drawn, in a browser of its own."""
    from selenium import webdriver  # noqa: PLC0415 - only where there is a browser

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        try:
            chrome.get(page.as_uri())
            return float(chrome.execute_async_script(DRAWN)) / 1000
        finally:
            chrome.quit()


def tell(what: str, times_s: list[float]) -> None:
    """Print the median and the range of some times in seconds."""
    middle, low, high = statistics.median(times_s), min(times_s), max(times_s)
    print(f"{what}: {middle:.2f} s (median of {len(times_s)}, {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
