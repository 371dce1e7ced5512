"""Options that several verbs share, and what they mean: which problems, which implementations, how much time."""

from __future__ import annotations

import functools
import json
import math
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from xentbench import environment, panel, problems, spec
from xentbench.files import write_atomically
from xentbench.spec import Phase, Problem, UsageError, inert, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from xentbench.spec import Description, Source

    Grids = Mapping[str, Callable[[], tuple[Problem, ...]]]

_NAMES: Final = {"batch_size": "batch-size", "num_classes": "num-classes", "logits": "logits-family"}
"""Option names where they are not the axis's key."""
_SIZES: Final = ("batch_size", "num_classes")
STDOUT: Final = "-"
"""In place of a file: standard output, which then holds this result alone."""
_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


JUDGED: Final[Grids] = {
    "quick": functools.partial(panel.panel, "quick"),
    "full": functools.partial(panel.panel, "full"),
    **problems.GRIDS,
}
"""Grids of `parity`: the judge's panels besides those that are timed."""
OWN_GRIDS: Final = "xentbench.grids"
"""Where click's context holds a project's own grids: name -> problems."""
SETTINGS_FILE: Final = "xentbench.settings"
"""Where it holds the name of the file with the project's settings."""


def problem_options(grids: Grids = problems.GRIDS) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--grid`, `--problem`, `--logits` and a repeatable option for every axis; all are passed as `asked`."""
    return functools.partial(_problem_options, grids)


def _problem_options(grids: Grids, command: Callable[..., Any]) -> Callable[..., Any]:
    axes = {name: rest for name, rest in spec.problem_axes().items() if name not in ("contract", "seed")}

    @functools.wraps(command)
    def collected(**options: Any) -> Any:  # noqa: ANN401 - click's
        asked = {name: options.pop(name) for name in ("grid", "problem", "logits_file", *(f"axis_{n}" for n in axes))}
        return command(asked=asked, **options)

    for name, (key, help_, choices) in reversed(list(axes.items())):
        text = f"{help_[0].upper()}{help_[1:]}." + (f" [{'|'.join(choices)}]" if choices else "")
        collected = click.option(f"--{_NAMES.get(name, key)}", f"axis_{name}", multiple=True, help=text)(collected)
    for option in (
        click.option(
            "--logits",
            "logits_file",
            type=click.Path(),
            help="Your own logits, a .safetensors file: the recorded call, in its dtype, unless axes are given.",
        ),
        click.option("--problem", multiple=True, help="One problem by its key; repeatable."),
        click.option("--grid", multiple=True, help=f"Named grid; repeatable. [{'|'.join(grids)}]"),
    ):
        collected = option(collected)
    return collected


def implementation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `NAMES`, `--implementation` and `--plugin`."""
    for option in (
        click.option(
            "--plugin",
            "plugins",
            multiple=True,
            type=click.Path(),
            help="Python file with more implementations; repeatable.",
        ),
        click.option("--implementation", "globs", multiple=True, help="Name or glob, e.g. 'compiled-*'; repeatable."),
        click.argument("names", nargs=-1),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "json_file", type=click.Path(), help="Write the result as JSON; - is stdout.")
markdown_option = click.option(
    "--markdown", "markdown_file", type=click.Path(), help="Write a short table as Markdown; - is stdout."
)
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Replay a run's seed. [default: a fresh one]")
results_option = click.option(
    "--results", type=click.Path(), default="results/runs", show_default=True, help="Folder that runs are kept in."
)


def wanted(
    asked: Mapping[str, Any], default_grid: str, grids: Grids = problems.GRIDS, *, leaves_out: bool = False
) -> tuple[Problem, ...]:
    """Return the problems that the options describe: grids, problems by key, or the product of the axes.

    A file of logits is one problem more, unless a key names it already.

    Args:
        asked: what `problem_options` passed.
        default_grid: where no problem is named.
        grids: that may be named, besides the project's own.
        leaves_out: whether the default grid is asked less what makes no sense with the axes; what is named never is.

    Raises:
        UsageError: an unknown grid or axis value, sizes together with a grid, or a file that is no safetensors.
    """
    axes = {n.removeprefix("axis_"): _values(n, texts) for n, texts in asked.items() if n.startswith("axis_")}
    given = {name: values for name, values in axes.items() if values}
    sized = any(name in given for name in _SIZES)
    if sized and (asked["grid"] or asked["logits_file"]):
        msg = "--batch-size and --num-classes make a sweep of their own: give them without --grid and --logits"
        raise UsageError(msg)
    chosen = [Problem.parse(key) for key in asked["problem"]]
    grids = {**grids, **_own_grids()}
    chosen += [problem for name in asked["grid"] for problem in problems.grid(name, grids)]
    if asked["logits_file"] and not any(problem.recorded == "file" for problem in chosen):
        chosen.append(_own_logits(asked["logits_file"], given))
    if sized:
        return tuple(dict.fromkeys([*chosen, *problems.by_hand(given)]))
    if chosen:
        return problems.product(chosen, given)
    return problems.product(problems.grid(default_grid, grids), given, leaves_out=leaves_out)


def names_problems(asked: Mapping[str, Any]) -> bool:
    """Return whether the options name problems; axes alone vary those that are asked by default."""
    named = ("grid", "problem", "logits_file", *(f"axis_{name}" for name in _SIZES))
    return any(asked[name] for name in named)


def _own_logits(file: str, given: Collection[str]) -> Problem:
    """Return the problem of a file of logits: the call that was recorded, but for the axes that are given."""
    from xentbench import recordings  # noqa: PLC0415 - needs torch; only where there is a file to look into

    axes = recordings.recorded_axes(Path(file))
    return Problem(logits="file", **{name: value for name, value in axes.items() if name not in given})


def _own_grids() -> Grids:
    """Return the project's own grids, where a verb runs in one."""
    context = click.get_current_context(silent=True)
    own = {} if context is None else context.meta.get(OWN_GRIDS, {})
    return {name: functools.partial(tuple, listed) for name, listed in own.items()}


def _values(name: str, texts: Sequence[str]) -> tuple[Any, ...]:
    axis = name.removeprefix("axis_")
    parts = [text for joined in texts for text in joined.split(",")]
    if axis == "device":
        parts = [each for text in parts for each in _devices(text)]
    return tuple(spec.read_axis(axis, text) for text in parts)


def _devices(text: str) -> list[str]:
    """Return the devices that `--device` names: `cuda:all` is every one of its kind."""
    kind, _, index = text.partition(":")
    if index != "all" or kind == "cpu":
        return [text]
    from xentbench import planning  # noqa: PLC0415 - loads recordings; only where devices are counted

    return planning.devices(kind)


def as_written(parameter: str, option: str) -> str:
    """Return how a message names an option: with the file that set it, where nobody typed it."""
    context = click.get_current_context(silent=True)
    if context is None or is_typed(parameter):
        return option
    return f"{option} (set in {context.meta.get(SETTINGS_FILE, 'the settings')})"


def is_typed(parameter: str) -> bool:
    """Return whether the value of an option does not come from a file of settings."""
    context = click.get_current_context(silent=True)
    return context is None or context.get_parameter_source(parameter) is not ParameterSource.DEFAULT_MAP


def chosen(
    names: Sequence[str],
    globs: Sequence[str],
    plugins: Sequence[str],
    keys: Sequence[str],
    given: Sequence[Source] = (),
) -> list[Description]:
    """Return the implementations asked for, described by workers: `FILE.py:NAME`, `package.module:NAME` or globs.

    Callables named by hand (`given` among them) are described alone; only globs, plugins, or nothing at all, need the
    whole registry.

    Raises:
        UsageError: nothing of that name, or a source named by hand that cannot be loaded.
    """
    from xentbench import registry  # noqa: PLC0415 - reads the installed distributions

    for name in names:
        if name.endswith(".py") and Path(name).is_file():
            msg = f"{inert(name, 200)} is a file: give {inert(name, 200)}:NAME, with the name of the function in it"
            raise UsageError(msg)
    objects = [*(registry.object_source(name) for name in names if ":" in name), *given]
    patterns = [name for name in names if ":" not in name] + list(globs)
    registered = registry.sources(plugins) if patterns or plugins or not objects else []
    found = registry.discover([*registered, *objects], keys, describe)
    registry.demand_plugins(found)
    by_hand = [entry for entry in found if entry.source.kind == "object"]
    rest = [entry for entry in found if entry.source.kind != "object"]
    return [*(registry.select(rest, patterns) if registered else []), *by_hand]


def describe(source: Source, keys: Sequence[str]) -> list[Description]:
    """Ask a throw-away worker what a source holds; torch is imported here only when there is something to ask."""
    from xentbench import workers  # noqa: PLC0415 - needs torch

    return workers.describe(source, keys)


def phases(names: Sequence[str]) -> list[Phase]:
    """Return the phases named, or all of them; raises UsageError for an unknown one."""
    for name in names:
        if name not in set(Phase):
            msg = f"phase {name!r} is unknown: {nearest(name, Phase)}"
            raise UsageError(msg)
    return [phase for phase in Phase if not names or phase in names]


def conditions(how: Mapping[str, Any]) -> tuple[environment.Conditions, bool]:
    """Return the conditions that `bench` was asked for, and whether the default allocator is timed beside them."""
    both = how["allocator"] == "both"
    named = {name: how[name] for name in ("threads", "cache", "flush_denormal")}
    return environment.Conditions(allocator="warm" if both else how["allocator"], **named), both


def seconds(text: str | None) -> float | None:
    """Return a duration such as `90`, `5m` or `1.5h` in seconds; raises UsageError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or float(match[1]) <= 0:
        msg = f"--budget expected a duration such as 90s, 5m or 1h, got {text!r}"
        raise UsageError(msg)
    return float(match[1]) * _UNITS_S[match[2]]


def duration(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Return a duration as it was given, found to be one; raises UsageError for anything else."""
    seconds(text)
    return text


def fresh_seed(seed: int | None) -> int:
    """Return the seed given, or a secret one, of more bits than an implementation could try against its tensors."""
    return secrets.randbits(48) if seed is None else seed


def percent(_context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """Return a share such as `5%` as a number; raises UsageError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share < 1:
        msg = f"{option.opts[0]} expected a share of the time such as 5%, got {text!r}"
        raise UsageError(msg)
    return share


def check_files(**files: str | None) -> None:
    """Refuse files that cannot be written, or two results on standard output, before anything long starts.

    Args:
        files: option, with underscores for its dashes, to the file that it names, None where it was not given.
    """
    named = {f"--{option.replace('_', '-')}": path for option, path in files.items() if path is not None}
    on_stdout = [option for option, path in named.items() if path == STDOUT]
    if len(on_stdout) > 1:
        msg = f"{' and '.join(on_stdout)} expected at most one result on standard output: give the others a file"
        raise UsageError(msg)
    for option, path in named.items():
        if path != STDOUT:
            _check_file(option, path)


def _check_file(option: str, path: str) -> None:
    existed = Path(path).exists()
    try:
        with Path(path).open("a", encoding="utf-8"):
            pass
        if not existed:
            Path(path).unlink()
    except OSError as error:
        msg = f"{option} expected a file that can be written, got {path!r}: {error.strerror}"
        raise UsageError(msg) from None


def replaceable(path: str, option: str) -> Path:
    """Return the file, which is to be replaced at the end; raises UsageError where its folder cannot be written."""
    file = Path(path)
    try:
        with tempfile.TemporaryFile(dir=file.resolve().parent):
            reason = "it is a folder" if file.is_dir() else ""
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        msg = f"{option} expected a file that can be written, got {path!r}: {reason}"
        raise UsageError(msg)
    return file


def write_json(path: str | None, record: Mapping[str, Any]) -> None:
    """Write the result for a machine: strict JSON, to the file or to standard output."""
    if path is not None:
        write_text(path, json.dumps(_strict({"schema": 1, **record}), indent=1, allow_nan=False) + "\n")


def write_text(path: str, text: str) -> None:
    """Write a result to a file, which is then whole, or to standard output where `path` is `-`."""
    if path == STDOUT:
        click.echo(text.encode(), nl=False)  # bytes: UTF-8 wherever it goes
        return
    file = Path(path)
    if file.exists() and not file.is_file():  # a pipe or a device: it is written to, never replaced
        try:
            with file.open("w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error  # what a device refuses names no file
    else:
        write_atomically(file.resolve(), text)


def _strict(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the value with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    return [_strict(one) for one in value] if isinstance(value, list | tuple) else value


def writable_folder(path: str) -> Path:
    """Return the folder, made where it is missing; raises UsageError where it cannot be."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"--output expected a folder that can be written, got {path!r}: {error.strerror}"
        raise UsageError(msg) from None
    return folder
