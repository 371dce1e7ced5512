"""What a project sets, and what is typed: which of the two a verb goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from xentbench import configuration, options
from xentbench.cli import cli
from xentbench.spec import UsageError

DOCS = Path(__file__).parent.parent / "docs" / "how-to" / "configuration.md"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)


def sets(text: str) -> None:
    Path("pyproject.toml").write_text(f"[tool.xentbench]\n{text}")


def asked(verb: str, *arguments: str) -> dict[str, Any]:
    parent = click.Context(cli, info_name="xentbench")
    with cli.commands[verb].make_context(verb, list(arguments), parent=parent) as context:
        return dict(context.params)


def test_an_option_may_be_set_for_all_verbs_and_for_one():
    sets('workers = 4\nbudget = "5m"\n[tool.xentbench.compare]\nworkers = 7\ninconclusive = "pass"')
    assert (asked("bench")["workers"], asked("bench")["budget"]) == (4, "5m")
    assert (asked("compare", "a", "b")["workers"], asked("compare", "a", "b")["inconclusive"]) == (7, "pass")
    assert "workers" not in asked("report")


def test_a_budget_may_be_a_number_of_seconds_as_on_the_command_line():
    sets("budget = 30")
    assert asked("bench")["budget"] == asked("bench", "--budget", "30")["budget"] == "30"
    with pytest.raises(UsageError, match="--budget expected a duration"):
        asked("bench", "--budget", "30 sec")


def test_a_key_that_is_nearly_right_is_answered_without_the_long_list():
    sets("budgte = '5m'")
    with pytest.raises(UsageError) as near:
        asked("bench")
    assert str(near.value).endswith("xentbench.budgte is unknown: did you mean 'budget'?")
    sets("zzzzzz = 1")
    with pytest.raises(UsageError, match="is unknown: expected one of: .*workers"):
        asked("bench")


def test_an_option_that_the_file_sets_is_named_with_the_file():
    sets('require-option = ["weight"]')
    parent = click.Context(cli, info_name="xentbench")
    for typed, name in (
        ([], "--require-option (set in pyproject.toml)"),
        (["--require-option", "k-dim"], "--require-option"),
    ):
        with cli.commands["parity"].make_context("parity", typed, parent=parent):
            assert options.as_written("required", "--require-option") == name


def test_what_is_typed_goes_before_what_is_set():
    sets('workers = 4\nphase = ["forward", "backward"]\nflush-denormal = true')
    typed = asked("bench", "--workers", "2", "--phase", "forward+backward")
    assert (typed["workers"], typed["phase_names"], typed["flush_denormal"]) == (2, ("forward+backward",), True)


def test_without_settings_a_verb_is_what_it_was():
    assert asked("bench")["workers"] is None
    sets("workers = 4")
    assert asked("bench", "--no-config")["workers"] is None
    Path("other.toml").write_text("[tool.xentbench]\nworkers = 9")
    assert asked("bench", "--config", "other.toml")["workers"] == 9
    with pytest.raises(UsageError, match="absent.toml expected a file that can be read"):
        asked("bench", "--config", "absent.toml")


def test_repeatable_options_take_a_text_or_a_list_and_axes_numbers():
    sets('implementation = "nll-*"\nnum-classes = [10, 1000]\nlabel-smoothing = 0.1\ndtype = ["float32", "bfloat16"]')
    told = asked("bench")
    assert told["globs"] == ("nll-*",)
    assert (told["axis_num_classes"], told["axis_label_smoothing"]) == (("10", "1000"), ("0.1",))
    assert told["axis_dtype"] == ("float32", "bfloat16")


def test_paths_are_those_of_the_files_folder(monkeypatch: pytest.MonkeyPatch):
    sets('plugin = ["losses.py", "/abs/more.py"]\nresults = "runs"\nlogits = "mine.safetensors"\ngrid = "small"')
    monkeypatch.chdir("deep")
    told = asked("bench")
    assert told["plugins"] == ("../losses.py", "/abs/more.py")
    assert (told["results"], told["logits_file"], told["grid"]) == ("../runs", "../mine.safetensors", ("small",))


def test_a_grid_of_the_projects_own_is_known_beside_the_built_in_ones():
    sets('grid = "ours"\n[tool.xentbench.grids]\nours = ["N=64,C=50257", "N=8,C=10"]')
    parent = click.Context(cli, info_name="xentbench")
    with cli.commands["bench"].make_context("bench", [], parent=parent):
        given = {"grid": ("ours", "smoke"), "problem": (), "logits_file": None}
        assert [problem.num_classes for problem in options.wanted(given, "default")][:3] == [50257, 10, 1000]
        with pytest.raises(UsageError, match="'our' is unknown: did you mean 'ours'"):
            options.wanted({**given, "grid": ("our",)}, "default")
    with pytest.raises(UsageError, match="'ours' is unknown"):
        options.wanted(given, "default")


BAD = {
    "unknown": ("budgte = '5m'", "xentbench.budgte is unknown: did you mean 'budget'"),
    "unknown of a verb": ("[tool.xentbench.bench]\nworker = 3", "bench.worker is unknown: did you mean 'workers'"),
    "of another verb": ("[tool.xentbench.report]\nworkers = 3", "report.workers is unknown"),
    "unknown verb": ("[tool.xentbench.bnech]\nworkers = 3", "did you mean 'bench'"),
    "a verb is no table": ("bench = 3", "xentbench.bench expected a table of options of 'bench', got 3"),
    "of one call": ("json = 'out.json'", "xentbench.json is an option of one call: give --json on the command line"),
    "of one call of a verb": ("[tool.xentbench.bench]\nrun = 'x'", "bench.run is an option of one call"),
    "no number": ("workers = '3'", "xentbench.workers expected a whole number, got '3'"),
    "no whole number": ("workers = 2.5", "xentbench.workers expected a whole number, got 2.5"),
    "true is no number": ("workers = true", "expected a whole number, got True"),
    "out of range": ("workers = 0", r"workers expected what --workers takes \(0 is not in the range.*\), got 0"),
    "a choice": ("allocator = 'hot'", "allocator expected what --allocator takes .*'warm'.*, got 'hot'"),
    "no text": ("[tool.xentbench.compare]\ninconclusive = 3", "inconclusive expected text, got 3"),
    "no duration": ("budget = '30 sec'", "xentbench.budget: --budget expected a duration .*, got '30 sec'"),
    "no time at all": ("budget = 0", "xentbench.budget: --budget expected a duration .*, got '0'"),
    "no share": ("margin = '5'", "xentbench.margin: --margin expected a share of the time such as 5%, got '5'"),
    "true is no duration": ("budget = true", "xentbench.budget expected text, got True"),
    "a list of one": ("budget = ['5m']", "xentbench.budget expected text, got"),
    "no flag": ("flush-denormal = 'yes'", "flush-denormal expected true or false, got 'yes'"),
    "a list of other things": ("phase = ['forward', true]", "xentbench.phase expected text or a list of it"),
    "a table": ("phase = {a = 1}", "xentbench.phase expected text or a list of it"),
    "a date": ("grid = 2026-01-01", "xentbench.grid expected text or a list of it"),
    "a grid that is built in": ("[tool.xentbench.grids]\nsmall = ['N=8,C=10']", "grids.small expected a name that no"),
    "a grid that is unknown": ('grid = ["ourz"]\n[tool.xentbench.grids]\nours = ["N=8,C=10"]', "did you mean 'ours'"),
    "a panel": ("[tool.xentbench.grids]\nquick = ['N=8,C=10']", "grids.quick expected a name that no grid"),
}


@pytest.mark.parametrize("verb", ["list", "bench"])
@pytest.mark.parametrize("name", BAD)
def test_the_whole_file_is_checked_whichever_verb_runs(name: str, verb: str):
    text, message = BAD[name]
    sets(text)
    with pytest.raises(UsageError, match=message) as told:
        asked(verb)
    assert str(told.value).startswith(str(Path("pyproject.toml").absolute()))


def test_help_is_answered_though_the_file_is_broken(capsys: pytest.CaptureFixture[str]):
    sets("workers = ")
    with pytest.raises(click.exceptions.Exit):
        asked("bench", "--help")
    assert "--config" in capsys.readouterr().out
    assert asked("bench", "--no-config")["workers"] is None


def test_who_runs_is_told_what_was_set_and_no_more(capsys: pytest.CaptureFixture[str]):
    sets('workers = 4\nbudget = "5m"\ngrid = "small"')
    asked("bench", "--workers", "3", "--problem", "N=8,C=10")
    seen = capsys.readouterr()
    assert click.unstyle(seen.err) == "settings of pyproject.toml: budget\n"
    assert not seen.out
    asked("report")
    assert not capsys.readouterr().err


def test_names_that_are_typed_are_the_only_ones():
    sets('implementation = ["compiled-*"]')
    assert asked("bench")["globs"] == ("compiled-*",)
    assert asked("bench", "naive")["globs"] == ()
    assert asked("bench", "--implementation", "n*")["globs"] == ("n*",)


def test_problems_that_are_typed_are_the_only_ones_and_axes_vary_what_is_set():
    sets('grid = "small"\ndtype = "bfloat16"\nlogits = "x.safetensors"')
    for typed in (("--problem", "N=8,C=10"), ("--grid", "smoke"), ("--num-classes", "10"), ("--logits", "y")):
        told = asked("bench", *typed)
        assert told["axis_dtype"] == ()
        assert (told["grid"], told["logits_file"]) in [((), None), (("smoke",), None), ((), "y")]
    told = asked("bench", "--dtype", "float16")
    assert (told["grid"], told["axis_dtype"]) == (("small",), ("float16",))


def test_a_command_that_reproduces_a_failure_passes_no_gate():
    sets('[tool.xentbench.parity]\nbaseline = "b.json"\nfound = "f.json"\nrequire-option = ["weight"]\nseed = 3')
    told = asked("parity")
    assert (told["baseline"], told["found"], told["required"]) == ("b.json", "f.json", ("weight",))
    told = asked("parity", "mine", "--problem", "N=8,C=10", "--seed", "4")
    assert (told["baseline"], told["found"], told["required"], told["seed"]) == (None, None, (), 4)
    told = asked("parity", "mine", "--compile")
    assert (told["baseline"], told["found"], told["required"]) == (None, None, ("weight",))
    told = asked("parity", "--write-baseline", "b.json")
    assert (told["baseline"], told["seed"]) == (None, None)


def test_a_quick_run_is_quick_whatever_is_set():
    sets('grid = "llm"\nbudget = "2h"\nworkers = 9\ndtype = "bfloat16"')
    told = asked("bench", "--quick")
    assert (told["grid"], told["budget"], told["workers"], told["axis_dtype"]) == ((), None, None, ("bfloat16",))
    told = asked("bench", "--full")
    assert (told["grid"], told["budget"], told["workers"]) == (("llm",), None, None)


def test_a_run_that_goes_on_is_asked_what_it_was_asked_before():
    sets(
        'results = "runs"\nworkers = 9\nplugin = "p.py"\nimplementation = "n*"\ngrid = "llm"\nallocator = "both"\n'
        'dtype = "bfloat16"\nbudget = "2h"\nphase = "forward"\nthreads = 2\nseed = 7\nrequire = "cpu"'
    )
    bare = {**asked("bench", "--resume", "latest", "--no-config"), "results": "runs", "require": ("cpu",)}
    assert asked("bench", "--resume", "latest") == bare


def test_the_example_of_the_documentation_can_be_set():
    sets(DOCS.read_text(encoding="utf-8").partition("[tool.xentbench]\n")[2].partition("```")[0])
    assert asked("parity")["grid"] == ("full",)
    assert (asked("bench")["grid"], asked("bench")["globs"]) == (("ours",), ("mine", "compiled-*"))
    assert asked("compare", "a", "b")["workers"] == 5


def test_the_documentation_lists_every_key():
    rows: dict[str, tuple[list[str], str]] = {}
    for name, verb in cli.commands.items():
        for key, param in configuration.settable(verb).items():
            rows.setdefault(key, ([], kind(param)))[0].append(name)
    table = [f"| `{key}` | {', '.join(rows[key][0])} | {rows[key][1]} |" for key in rows]
    keys = DOCS.read_text(encoding="utf-8").partition("## Keys")[2]
    told = [line for line in keys.splitlines() if line.startswith("| `")]
    assert told == table, "the table of docs/how-to/configuration.md should be:\n" + "\n".join(table)


def kind(param: click.Option) -> str:
    if isinstance(param.type, click.Choice):
        return " or ".join(f'`"{choice}"`' for choice in param.type.choices)
    if isinstance(param.type, click.Path):
        return "path" + (" or list of paths" if param.multiple else "")
    if param.is_flag:
        return "`true` or `false`"
    if isinstance(param.type, click.types.IntParamType):
        return "whole number"
    if str(param.name).startswith("axis_"):
        return "text or number, or list of them"
    return "text or list of texts" if param.multiple else "text"
