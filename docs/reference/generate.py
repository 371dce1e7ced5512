"""Write the reference pages from the code: `python docs/reference/generate.py`, or `nox -s docs`.

What they list is what the code says: click's commands, the documented columns, a problem's axes, docstrings; the words
around it are in `templates/`. A test fails where a committed page is not what this writes.
"""

from __future__ import annotations

import enum
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import griffe
import jinja2

import xentbench
from xentbench import columns as documented
from xentbench import drawing, options, problems, spec
from xentbench.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Row = tuple[str, ...]

HERE: Final = Path(__file__).parent
NOTE: Final = (
    "<!-- Written by docs/reference/generate.py from the code and templates/: change these, then `nox -s docs`. -->"
)


def main() -> None:
    """Write every page beside this file."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(HERE / name)


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    environment = jinja2.Environment(  # noqa: S701 - Markdown of the code's own words
        loader=jinja2.FileSystemLoader(HERE / "templates"), undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"table": table, "values": values}
    facts: dict[str, Callable[[], dict[str, Any]]] = {
        "api.md": names,
        "cli.md": commands,
        "columns.md": columns,
        "problems.md": axes,
    }
    made = {name: environment.get_template(f"{name}.jinja").render(told()) for name, told in facts.items()}
    return {name: re.sub(r"\n{3,}", "\n\n", f"{NOTE}\n\n{text.strip()}\n") for name, text in made.items()}


def table(rows: Iterable[Row], *head: str) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def values(members: Iterable[str]) -> str:
    """Return names as a list of code."""
    return ", ".join(f"`{member}`" for member in members)


def plain(paragraph: str) -> str:
    """Return a paragraph on one line."""
    return " ".join(paragraph.split())


def first(docstring: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return plain(inspect.cleandoc(docstring or "").partition("\n\n")[0])


def commands() -> dict[str, Any]:
    """Return verbs, their options, and the options that say which problems, which `--help` repeats for each verb."""
    rows = {name: [option(one) for one in verb.params if isinstance(one, click.Option)] for name, verb in _verbs()}
    axis_rows = [row for row in rows["parity"] if re.match(r"`(--[\w-]+)", row[0])[1] in shared_options()]  # type: ignore[index]
    asking = [name for name, own in rows.items() if all(row in own for row in axis_rows)]
    told = [
        {
            "name": name,
            "usage": " ".join(["xentbench", name, *verb.collect_usage_pieces(click.Context(verb))]),
            "help": "\n\n".join(paragraphs(verb.help)),
            "options": [row for row in rows[name] if name not in asking or row not in axis_rows],
            "takes_problems": name in asking,
        }
        for name, verb in _verbs()
    ]
    summaries = [(f"[`{name}`](#xentbench-{name})", first(verb.help)) for name, verb in _verbs()]
    return {"verbs": summaries, "told": told, "asking": asking, "shared": sorted(axis_rows)}


def _verbs() -> Iterable[tuple[str, click.Command]]:
    return cli.commands.items()


def axis_options() -> dict[str, str]:
    """Return the option of every axis of a problem that has one of its own, by the axis's field name."""
    spelled = options._NAMES  # noqa: SLF001 - of the same project
    told = {name: f"--{spelled.get(name, key)}" for name, (key, _, _) in spec.problem_axes().items()}
    return {name: spelling for name, spelling in told.items() if name not in ("seed", "contract")}


def shared_options() -> set[str]:
    """Return the options that say which problems, but `--grid`, whose grids are not the same for all verbs."""
    return {"--problem", "--logits", *axis_options().values()}


def option(one: click.Option) -> Row:
    """Return how an option is spelled and what it does, as `--help` tells it."""
    record = one.get_help_record(click.Context(cli))
    assert record is not None, one.name
    return f"`{record[0]}`", record[1]


def paragraphs(help_: str | None) -> list[str]:
    """Return a help text's paragraphs; those that click is told to leave as they stand become blocks."""
    told = []
    for paragraph in inspect.cleandoc(help_ or "").split("\n\n"):
        if not paragraph.startswith("\b"):
            told.append(plain(paragraph))
            continue
        text = paragraph.removeprefix("\b\n")
        title = "Example:\n\n" if text.startswith("Example: ") else ""
        lines = text.replace("Example: ", " " * len("Example: "), 1) if title else text
        told.append(f"{title}```\n{inspect.cleandoc(chr(10) + lines)}\n```")
    return told


def columns() -> dict[str, Any]:
    """Return the columns of every table of a run, and the values of those that have few."""
    tables = {
        name: [(f"`{column}`", meaning) for column, meaning in described.items()]
        for name, described in documented.TABLES.items()
    }
    kinds = {"status": spec.Status, "grade": spec.Grade, "verdict": spec.Comparison, "phase": spec.Phase}
    return {"tables": tables, "kinds": [(name, values(members)) for name, members in kinds.items()]}


def axes() -> dict[str, Any]:
    """Return a problem's axes, the families of logits, and the grids."""
    spelled = axis_options()
    rows = [
        (f"`{key}`", f"`{spelled[name]}`" if name in spelled else "", values(choices), default(name), text)
        for name, (key, text, choices) in spec.problem_axes().items()
    ]
    return {
        "key": spec.Problem(batch_size=16, num_classes=10, dtype="bfloat16", reduction="sum").key,
        "axes": rows,
        "families": [(f"`{name}`", first(draw.__doc__)) for name, draw in drawing.FAMILIES.items()],
        "grids": [(f"`{name}`", sizes(make())) for name, make in problems.GRIDS.items()],
        "panels": [
            (f"`{name}`", f"{len(make())} problems")
            for name, make in options.JUDGED.items()
            if name not in problems.GRIDS
        ],
    }


def default(name: str) -> str:
    """Return an axis's default as its option takes it."""
    value = getattr(spec.Problem(), name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, ()) else str(value)


def sizes(asked: Iterable[spec.Problem]) -> str:
    """Return problems as people write them."""
    return ", ".join(one.recorded or one.label for one in asked)


def names() -> dict[str, Any]:
    """Return the public names with their signatures and docstrings."""
    package = griffe.load("xentbench", search_paths=[Path(xentbench.__file__).parents[1]], docstring_parser="google")
    found = {name: where(package, name) for name in xentbench.__all__}
    titles = {name: f"{'class' if one.is_class else 'function'} {name}" for name, one in found.items()}
    rows = [
        (f"[`{name}`](#{titles[name].lower().replace(' ', '-')})", first(one.docstring.value))
        for name, one in found.items()
    ]
    told = [{"title": titles[name], "text": described(one, getattr(xentbench, name))} for name, one in found.items()]
    return {"names": rows, "told": told}


def where(package: Any, name: str) -> Any:  # noqa: ANN401 - griffe's objects and aliases
    """Return what griffe knows of a public name, where it is defined: a module may be called as what it holds."""
    return package[f"{getattr(xentbench, name).__module__.removeprefix('xentbench.')}.{name}"]


def described(found: Any, shown: object) -> str:  # noqa: ANN401 - as above
    """Return a name's signature, docstring and, of an enumeration, values."""
    told = [f"```python\n{signature(found)}\n```"] if found.is_function else []
    told += [section(one) for one in found.docstring.parsed]
    told += [f"Values: {values(shown)}."] if isinstance(shown, enum.EnumType) else []
    return "\n\n".join(told)


def signature(found: Any) -> str:  # noqa: ANN401 - griffe's function or an alias of it
    """Return a function's signature, one parameter a line."""
    lines: list[str] = []
    for parameter in found.parameters:
        if parameter.kind is griffe.ParameterKind.keyword_only and "*," not in lines:
            lines.append("*,")
        given = "" if parameter.default is None else f" = {parameter.default}".replace("'", '"')
        lines.append(f"{parameter.name}: {parameter.annotation}{given},")
    return f"def {found.name}(\n    " + "\n    ".join(lines) + f"\n) -> {found.returns}: ..."


def section(one: griffe.DocstringSection) -> str:
    """Return a section of a docstring; what names its items becomes a list."""
    kind, value = one.kind.value, one.value
    if kind == "text":
        return str(value)
    if kind == "examples":
        return "\n\n".join(f"```python\n{text}\n```" if ">>>" in text else text for _, text in value)
    if kind == "admonition":
        text = str(value.contents)
        return f"**{one.title}**\n\n" + (f"```python\n{text}\n```" if ">>>" in text else text)
    titles = {"parameters": "Arguments", "attributes": "Attributes", "returns": "Returns", "raises": "Raises"}
    return f"**{titles[kind]}**\n\n" + "\n".join(f"- {item(kind, each)}" for each in value)


def item(kind: str, one: Any) -> str:  # noqa: ANN401 - an element of griffe's sections
    """Return an item of a section as a line of a list."""
    text = plain(one.description)
    if kind in ("parameters", "attributes"):
        return f"`{one.name}`: {text}"
    return f"`{one.annotation}`: {text}" if kind == "raises" else text


if __name__ == "__main__":
    main()
