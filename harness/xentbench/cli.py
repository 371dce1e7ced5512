"""The command line: verbs only. Each reads like the sentence it stands for; the work is in the rooms it names.

Modules that need torch or pandas are imported where a verb begins to work: `--help` must answer at once.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import click

from xentbench import configuration, options
from xentbench.spec import EnvironmentMismatchError, UsageError, inert

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
OK, WRONG, USAGE, NOT_HERE, INTERRUPTED = 0, 1, 2, 3, 130


@click.group(
    cls=configuration.Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 all well, 1 something is wrong, 2 wrong usage, 3 not the environment that was asked for, "
    "a comparison that stays inconclusive, or a bench that timed nothing of what it could.",
)
@click.version_option(package_name="xentbench")
def cli() -> None:
    """Judge, time and weigh implementations of cross-entropy loss in PyTorch.

    \b
    Example: xentbench parity my_loss.py:cross_entropy
             xentbench bench --quick
    """  # noqa: D301 - \b keeps click from joining the lines


@cli.command(name="list")
@click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(), help="Python file with more implementations; repeatable."
)
@options.json_option
def list_(plugins: tuple[str, ...], json_file: str | None) -> int:
    """Show every implementation that is found, and every source that fails to load.

    \b
    Example: xentbench list --plugin my_losses.py
    """  # noqa: D301
    from xentbench import registry, showing

    options.check_files(json=json_file)
    found = registry.discover(registry.sources(plugins), [], registry.cached(options.describe))
    if json_file != options.STDOUT:
        showing.implementations(found)
    options.write_json(json_file, {"implementations": [showing.listed(entry) for entry in found]})
    return WRONG if any(entry.status.is_wrong for entry in found) else OK


@cli.command()
@options.implementation_options
@options.problem_options(options.JUDGED)
@click.option("--compile", is_flag=True, help="Put everybody under torch.compile; asks the compiled panel.")
@click.option("--train", is_flag=True, help="Train two small models with each loss too, and compare the curves.")
@click.option("--train-figure", type=click.Path(), help="Draw the curves to FILE, .svg or .png.")
@click.option("--require-option", "required", multiple=True, help="Fail whoever does not offer NAME[,NAME].")
@click.option("--baseline", type=click.Path(), help="Judge what FILE lists, at its seed; fail what became worse.")
@click.option("--write-baseline", type=click.Path(), help="Write such a FILE, where everything is right.")
@click.option("--found", type=click.Path(), help="Ask again what FILE holds, and add to it what fails now.")
@click.option("--junit", "junit_file", type=click.Path(), help="Write the verdicts as JUnit XML; - is stdout.")
@options.seed_option
@options.json_option
def parity(
    names: tuple[str, ...],
    globs: tuple[str, ...],
    plugins: tuple[str, ...],
    asked: dict[str, Any],
    **how: Any,  # noqa: ANN401 - click's options
) -> int:
    """Judge values and gradients of NAMES: registry names or globs, FILE.py:NAME, package.module:NAME.

    \b
    Example: xentbench parity my_loss.py:cross_entropy
             xentbench parity 'nll-*' --grid quick --require-option weight,ignore_index
             xentbench parity my_loss.py:cross_entropy --train --train-figure curves.png
             xentbench parity --baseline results/baselines/parity.json --junit parity.xml
    """  # noqa: D301
    from xentbench import judging, junit, showing

    files = how["json_file"], how["junit_file"]
    options.check_files(json=how["json_file"], junit=how["junit_file"])
    wanted = judging.read(names, globs, plugins, asked, how)
    if wanted.outdated:
        return _complain(wanted.outdated, WRONG)
    judged = judging.judge(wanted)
    if options.STDOUT not in files:
        showing.judged(judged)
    options.write_json(how["json_file"], judged.record())
    if how["junit_file"]:
        options.write_text(how["junit_file"], junit.xml(judged))
    return WRONG if judged.is_wrong else OK


@cli.command()
@options.implementation_options
@options.problem_options()
@click.option("--quick", "preset", flag_value="quick", help="Smoke grid, one worker each, at most 2.5 minutes.")
@click.option("--full", "preset", flag_value="full", help="Five workers each, at most an hour.")
@click.option("--phase", "phase_names", multiple=True, help="Phase to time; repeatable. [default: all four]")
@click.option(
    "--budget",
    callback=options.duration,
    help="Wall time of the whole run, e.g. 5m; a bare number is seconds. [default: 7m; quick 2.5m; full 1h]",
)
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that measure each implementation.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of torch.")
@click.option(
    "--allocator",
    type=click.Choice(["warm", "cold", "both"]),
    default="warm",
    show_default=True,
    help="Heap kept, as in training; the default allocator; or each cell in both.",
)
@click.option(
    "--cache",
    type=click.Choice(["hot", "pool"]),
    default="hot",
    show_default=True,
    help="Input hot in the caches, or a pool of inputs larger than the last of them.",
)
@click.option("--flush-denormal", is_flag=True, help="Let numbers below the normal range count as zero.")
@click.option(
    "--train/--no-train",
    default=None,
    help="Train small models with each loss. [default: with a budget of 5m or more, not with --quick]",
)
@click.option("--require", multiple=True, help="Device that must be present, else exit 3; repeatable.")
@click.option("--run", help="Name of the run; one of this name goes on, where the same is asked. [default: a new one]")
@click.option(
    "--resume", metavar="RUN", help="Go on with RUN (a folder, an id, or latest): what is missing, as asked then."
)
@click.option("--shard", metavar="I/N", help="Only share I of N of the run's problems; needs --run or --resume.")
@options.seed_option
@options.results_option
@options.markdown_option
@options.json_option
def bench(  # click hands over options by name; `how` holds those that only say how the run is made
    names: tuple[str, ...],
    globs: tuple[str, ...],
    plugins: tuple[str, ...],
    asked: dict[str, Any],
    **how: Any,  # noqa: ANN401
) -> int:
    """Judge NAMES (default: all), time those that are right against F.cross_entropy, weigh them, and report.

    \b
    Example: xentbench bench --quick
             xentbench bench --implementation 'nll-*' --num-classes 10,1000 --dtype float32,bfloat16 --budget 3m
             xentbench bench --resume latest
             xentbench bench --grid llm --run nightly --shard 3/8
    """  # noqa: D301
    from xentbench import console, ordering, planning, report, running, showing

    files = how["json_file"], how["markdown_file"]
    options.check_files(json=how["json_file"], markdown=how["markdown_file"])
    planning.require(how["require"])
    order = ordering.place(ordering.Given(names, globs, plugins, asked, how))
    showing.order(order)
    try:
        with console.progressing(console.errors()) as watch:
            run = running.bench(order, watch)
    except KeyboardInterrupt:
        return _complain(f"stopped; finished cells are kept, go on with: {order.again}", INTERRUPTED)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _complain(f"{_named(error)}: finished cells are kept, make room and go on with: {order.again}", WRONG)
    if options.STDOUT not in files:
        showing.bench(run, complete=running.is_complete(run, order.whole))
    options.write_json(how["json_file"], running.record(run))
    if how["markdown_file"]:
        options.write_text(how["markdown_file"], report.compact(run))
    if running.is_wrong(run):
        return WRONG
    return _complain(untimed, NOT_HERE) if (untimed := running.untimed(run)) else OK


@cli.command()
@click.argument("run", default="latest")
@click.option("--output", type=click.Path(), help="Folder to write to. [default: the run's own]")
@click.option("--pytest-benchmark", type=click.Path(), help="Write the times as pytest-benchmark's JSON; - is stdout.")
@options.results_option
@options.markdown_option
@options.json_option
def report(run: str, output: str | None, results: str, **files: str | None) -> int:
    """Write the tables, figures and page of RUN (a folder, an id, or latest) again from its journal.

    \b
    Example: xentbench report latest --output site
             xentbench report --markdown - >> "$GITHUB_STEP_SUMMARY"
             xentbench report nightly-7 --pytest-benchmark 0007_nightly.json
    """  # noqa: D301
    from xentbench import exchange, running, showing
    from xentbench import report as room
    from xentbench import results as store

    options.check_files(**{name.removesuffix("_file"): file for name, file in files.items()})
    found = store.read(store.find(run, Path(results)))
    folder = options.writable_folder(output) if output else found.path
    room.write(found, folder)
    if options.STDOUT not in files.values():
        showing.bench(found, folder)
    options.write_json(files["json_file"], running.record(found))
    if file := files["markdown_file"]:
        options.write_text(file, room.compact(found))
    if file := files["pytest_benchmark"]:
        options.write_text(file, exchange.pytest_benchmark(found))
    return OK


@cli.command()
@click.argument("first")
@click.argument("second")
@options.problem_options()
@click.option("--phase", "phase_names", multiple=True, help="Phase to compare; repeatable. [default: all four]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that measure. [default: 3; with --margin 8]")
@click.option(
    "--margin",
    callback=options.percent,
    help="Worse or better only wholly beyond it, e.g. 5%, all cells together at 99 %. [default: 1%, each at 95 %]",
)
@click.option(
    "--inconclusive",
    type=click.Choice(["fail", "pass"]),
    default="fail",
    show_default=True,
    help="What a comparison that stays open does to the exit code.",
)
@click.option("--force", is_flag=True, help="Compare runs of unlike environments all the same.")
@options.seed_option
@options.results_option
@options.markdown_option
@options.json_option
def compare(first: str, second: str, asked: dict[str, Any], **how: Any) -> int:  # noqa: ANN401 - click's options
    """Is SECOND slower than FIRST? Both are stored runs, or both are implementations.

    \b
    A run is a folder, an id, or latest. An implementation is a registry name or
      FILE.py:NAME      package.module:NAME       as they are now
      REV:FILE.py:NAME  REV:package.module:NAME   as they were in a git revision,
                                                  checked out for the time being

    Runs are compared by their ratios to F.cross_entropy, in like environments only; implementations duel in one
    process, which tells more. What was right in FIRST and is wrong in SECOND is worse: at what is compared, and parity
    asks the rest.

    \b
    Example: xentbench compare 20261122T101500Z-1a2b latest
             xentbench compare f-cross-entropy my_loss.py:cross_entropy
             xentbench compare main:my_loss.py:cross_entropy my_loss.py:cross_entropy
             xentbench compare v1.2:my_package.losses:fused HEAD~1:my_package.losses:fused
             xentbench compare main:my_package.losses:fused my_package.losses:fused --margin 5% --inconclusive pass
    """  # noqa: D301
    from xentbench import running, showing

    files = how["json_file"], how["markdown_file"]
    options.check_files(json=how["json_file"], markdown=how["markdown_file"])
    how["margin"] = running.margin(first, second, how)
    differences = running.compare(first, second, asked, how)
    if options.STDOUT not in files:
        showing.differences(differences, first, second, how["margin"])
    if how["markdown_file"]:
        told = showing.differences_markdown(differences, first, second, how["margin"])
        options.write_text(how["markdown_file"], told)
    record = [showing.difference(entry) for entry in differences]
    options.write_json(how["json_file"], {"first": first, "second": second, "differences": record})
    return showing.comparison_exit(differences, inconclusive_passes=how["inconclusive"] == "pass")


@cli.command()
@click.argument("what", type=click.Choice(["judge", "clock", "all"]), default="all")
@click.option("--quick", is_flag=True, help="One mistake of each class, on the quick panel; a tenth of the duels.")
@options.seed_option
@options.results_option
@options.json_option
def selftest(what: str, *, quick: bool, seed: int | None, results: str, json_file: str | None) -> int:
    """Try the harness on this machine: does its judge find planted faults, does its clock tell twins apart?

    The clock's trial takes two minutes; the runs that follow on this machine carry what came of it.

    \b
    Example: xentbench selftest judge
             xentbench selftest clock
    """  # noqa: D301
    from xentbench import console, running, showing
    from xentbench import selftest as trial

    options.check_files(json=json_file)
    seed, lines = options.fresh_seed(seed), []
    with console.progressing(console.errors()) as watch:
        if what != "clock":
            lines += trial.judge(seed, watch, quick=quick)
        if what != "judge":
            lines += trial.clock(running.clock_trial(seed, Path(results), watch, quick=quick))
    if json_file != options.STDOUT:
        showing.scores(lines, seed)
    options.write_json(json_file, {"seed": seed, "lines": [line.record() for line in lines]})
    return OK if all(line.passed for line in lines) else WRONG


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code; what a person got wrong is told in one line."""
    try:
        code = cli.main(arguments, prog_name="xentbench", standalone_mode=False)
    except click.ClickException as error:
        code = _complain(error.format_message())
    except UsageError as error:
        code = _complain(str(error))
    except EnvironmentMismatchError as error:
        code = _complain(str(error), NOT_HERE)
    except (KeyboardInterrupt, click.Abort):
        code = _complain("stopped", INTERRUPTED)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        code = _complain(f"{_named(error)}: make room and run again", WRONG)
    sys.exit(code)


def _named(error: OSError) -> str:
    """Return an error of the system and, without its folders, the file that it is about."""
    return f"{error.strerror or error}" + (f" ({Path(error.filename).name})" if error.filename else "")


def _complain(message: str, code: int = USAGE) -> int:
    line = inert(message, 4000)
    print(f"xentbench: {line}", file=sys.stderr)  # noqa: T201 - the one line that a person is told
    return code
