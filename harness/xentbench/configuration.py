"""What a project's settings mean for the options of a verb: defaults that what is typed goes before.

A key of `[tool.xentbench]` is the name of an option without its dashes. It counts for every verb that has the option,
and under `[tool.xentbench.VERB]` for that verb alone. The whole file is checked, whichever verb runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from xentbench import options, settings
from xentbench.spec import UsageError, inert, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xentbench.settings import Settings

ONCE: Final = frozenset(
    {
        *("config", "no-config", "run", "resume", "shard", "force", "quick", "full"),
        *("json", "output", "markdown", "pytest-benchmark", "junit", "write-baseline", "train-figure"),
    }
)
"""Options of one call of a verb, which no file sets: where its output goes, which run it is."""
AXES: Final = "axis_*"
"""Stands for the parameters of all axes of a problem."""
CHOOSING: Final = frozenset({"grid", "problem", "logits_file", "axis_batch_size", "axis_num_classes"})
"""Parameters that say which problems are asked; the other axes vary them."""
YIELDING: Final[tuple[tuple[frozenset[str], frozenset[str]], ...]] = (
    (frozenset({"names"}), frozenset({"globs"})),
    (CHOOSING, CHOOSING | {AXES}),
    (CHOOSING | {AXES, "seed", "compile", "train", "write_baseline"}, frozenset({"baseline"})),
    (CHOOSING | {AXES, "compile"}, frozenset({"found"})),
    (CHOOSING | {AXES}, frozenset({"required"})),
    (frozenset({"baseline", "write_baseline"}), CHOOSING | {AXES, "seed", "train"}),
    (frozenset({"baseline", "write_baseline", "found"}), frozenset({"compile"})),
    (frozenset({"quick", "full"}), frozenset({"budget", "workers"})),
    (frozenset({"quick"}), CHOOSING),
    (
        frozenset({"resume"}),
        CHOOSING
        | {AXES, "globs", "plugins", "phase_names", "workers", "budget", "seed"}
        | {"threads", "allocator", "cache", "flush_denormal", "train"},
    ),
)
"""(typed, of the file): where one of the first is typed, the second do not count, for they would contradict it.

So what was typed means the same in every project: a command that reproduces a failure asks that problem and no gate,
and a run that goes on is asked what it was asked before."""


class Verb(click.Command):
    """A command whose defaults a project may set; it has `--config` and `--no-config` besides its own options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*args, **kwargs)
        help_ = f"Read settings from FILE. [default: [{settings.TABLE}] of the nearest {settings.NAME}]"
        self.params += [
            click.Option(["--config"], type=click.Path(), metavar="FILE", expose_value=False, help=help_),
            click.Option(["--no-config"], is_flag=True, expose_value=False, help="Read no settings."),
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read what is typed, and what the project sets where nothing is typed."""
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        given = [param for param in order if _is_given(values.get(param.name or ""))]
        if not (ctx.resilient_parsing or {"help", "no-config"} & set(map(_key, given))):
            file = values["config"] if "config" in map(_key, given) else None
            found = settings.read_file(Path(file)) if file else settings.read()
            self._settle(ctx, found, given)
        return super().parse_args(ctx, args)

    def _settle(self, ctx: click.Context, found: Settings, given: list[click.Parameter]) -> None:
        """Make defaults of what the file sets and nothing typed contradicts; tell which."""
        verbs = getattr(ctx.parent.command, "commands", {}) if ctx.parent else {}
        told = defaults(found, verbs, self)
        typed = {str(param.name) for param in given} | set(map(_key, given))
        kept = {name: value for name, value in told.items() if name not in typed and not _yields(name, typed)}
        ctx.default_map = kept
        ctx.meta[options.OWN_GRIDS] = found.grids
        ctx.meta[options.SETTINGS_FILE] = found.file.name if found.file else settings.NAME
        keys = [key for key, param in settable(self).items() if param.name in kept]
        if keys:
            line = f"settings of {inert(os.path.relpath(str(found.file)))}: {', '.join(keys)}"
            click.echo(click.style(line, dim=True), err=True)


class Verbs(click.Group):
    """The verbs, each with settings."""

    command_class = Verb


def settable(verb: click.Command) -> dict[str, click.Option]:
    """Return the options of a verb that a file may set, by key."""
    found = {_key(param): param for param in verb.params if isinstance(param, click.Option)}
    return {key: param for key, param in found.items() if key not in ONCE}


def defaults(found: Settings, verbs: Mapping[str, click.Command], verb: click.Command) -> dict[str, Any]:
    """Return the defaults that a file sets for a verb, by parameter; all of the file is checked.

    Args:
        found: what stands in the file.
        verbs: all of them, by name.
        verb: that is run.

    Raises:
        UsageError: an unknown key, or a value of another kind.
    """
    for name in found.grids:
        if name in options.JUDGED:
            raise found.error(key=f"{settings.GRIDS}.{name}", expected="a name that no grid of xentbench has", got=name)
    known = {key for one in verbs.values() for key in settable(one)}
    told: dict[str, Any] = {}
    special: dict[str, Any] = {}
    for key, value in found.table.items():
        if key in verbs:
            own = _own(found, verbs[key], key, value)
            special = own if verbs[key] is verb else special
            continue
        _refuse_unknown(found, key, {*known, *verbs, settings.GRIDS})
        for one in verbs.values():
            if key in settable(one):
                param = settable(one)[key]
                read = _value(found, key, param, value)
                told |= {str(param.name): read} if one is verb else {}
    return told | special


def _own(found: Settings, verb: click.Command, name: str, table: object) -> dict[str, Any]:
    """Return the defaults that a verb's own table sets."""
    if not isinstance(table, dict):
        raise found.error(key=name, expected=f"a table of options of {name!r}", got=table)
    known = settable(verb)
    for key in table:
        _refuse_unknown(found, f"{name}.{key}", known, name)
    return {str(known[key].name): _value(found, f"{name}.{key}", known[key], value) for key, value in table.items()}


def _refuse_unknown(found: Settings, key: str, known: Any, verb: str = "") -> None:  # noqa: ANN401 - any container
    word = key.removeprefix(f"{verb}.") if verb else key
    if word in known:
        return
    where = f"{found.file}: {settings.TABLE}.{inert(key, 200)}"
    if word in ONCE:
        msg = f"{where} is an option of one call: give --{word} on the command line"
        raise UsageError(msg)
    msg = f"{where} is unknown: {nearest(word, sorted(known), brief=True)}"
    raise UsageError(msg)


def _value(found: Settings, key: str, param: click.Option, value: object) -> Any:  # noqa: ANN401 - the option decides
    """Return the value as the option takes it: paths as they are reached from here; raises UsageError."""
    listed = value if isinstance(value, list) else [value]
    kinds: dict[type, str] = {bool: "true or false", int: "a whole number", str: "text"}
    kind = bool if param.is_flag else int if isinstance(param.type, click.types.IntParamType) else str
    expected = kinds[kind]
    if param.multiple:
        # An axis of numbers is written as a person writes them.
        listed = [str(one) if type(one) in (int, float) else one for one in listed]
        expected = "text or a list of it"
    elif kind is str and param.callback is not None and type(value) in (int, float):
        listed = [str(value)]  # as it would be typed
    if (isinstance(value, list) and not param.multiple) or not all(type(one) is kind for one in listed):
        raise found.error(key=key, expected=expected, got=value)
    if isinstance(param.type, click.Path):
        listed = [found.path(str(one)) for one in listed]
    try:
        for one in listed:
            param.type.convert(one, param, None)
    except click.BadParameter as error:
        expected = f"what --{_key(param)} takes ({error.message.rstrip('.')})"
        raise found.error(key=key, expected=expected, got=value) from None
    _try_callback(found, key, param, listed)
    if param.name == "grid":  # whichever verb runs, and with the file's name, as all else here
        known = {*options.JUDGED, *found.grids}
        for one in listed:
            if one not in known:
                raise found.error(key=key, expected=f"names of grids: {nearest(str(one), sorted(known))}", got=one)
    return listed if param.multiple else listed[0]


def _try_callback(found: Settings, key: str, param: click.Option, listed: list[object]) -> None:
    """Have the option's own reader say what it thinks of the values, whichever verb runs; raises UsageError."""
    if param.callback is None:
        return
    try:
        for one in listed:
            param.callback(click.Context(click.Command("settings")), param, one)
    except UsageError as error:
        msg = f"{found.file}: {settings.TABLE}.{inert(key, 200)}: {error}"
        raise UsageError(msg) from None


def _key(param: click.Parameter) -> str:
    """Return the name under which an option stands in a file: its longest, without dashes."""
    return max(param.opts, key=len).lstrip("-")


def _is_given(value: object) -> bool:
    """Whether the parser found something: of arguments that were left out it tells, too."""
    return isinstance(value, str | bool | int) or (isinstance(value, list | tuple) and bool(value))


def _yields(name: str, typed: set[str]) -> bool:
    """Whether what the file says of a parameter does not count, by what was typed."""
    return any(_among(name, second) and any(_among(one, first) for one in typed) for first, second in YIELDING)


def _among(name: str, group: frozenset[str]) -> bool:
    return name in group or (name.startswith("axis_") and AXES in group)
