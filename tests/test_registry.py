from __future__ import annotations

import json
from pathlib import Path

import pytest
from worker_fixtures import ONE_GOOD, plugin

from xentbench import registry, workers
from xentbench.spec import Description, Source, Status, UsageError

HERE = Source("file", "/somewhere/a.py")


def entry(name: str, origin: str = "a.py", **fields) -> Description:
    return Description(name, fields.pop("source", HERE), origin, **fields)


def test_a_name_used_twice_is_an_error_that_names_both_places():
    told = {HERE: [entry("x"), entry("y")], Source("file", "b.py"): [entry("x", "b.py")]}
    found = registry.discover(told, [], lambda source, _: told[source])
    assert [one.name for one in found] == ["x", "y"]
    assert found[0].status is Status.IMPORT_FAILED
    assert "a.py" in found[0].reason
    assert "b.py" in found[0].reason


def test_what_does_not_load_takes_no_name_and_keeps_its_message():
    broken = entry("x", "b.py", status=Status.IMPORT_FAILED, reason="ValueError: no luck")
    for order in ([entry("x")], [broken]), ([broken], [entry("x")]):
        told = dict(zip((HERE, Source("file", "b.py")), order, strict=True))
        found = registry.discover(told, [], lambda source, _, told=told: told[source])
        assert {(one.name, one.status, one.reason) for one in found} == {
            ("x", Status.PASSED, ""),
            ("x", Status.IMPORT_FAILED, "ValueError: no luck"),
        }


def test_globs_select_in_registry_order_and_unknown_ones_are_told():
    found = [entry("compiled-a"), entry("naive"), entry("compiled-b")]
    assert [one.name for one in registry.select(found, ["compiled-*"])] == ["compiled-a", "compiled-b"]
    assert registry.select(found, []) == found
    with pytest.raises(UsageError, match="implementation 'naiv' is unknown: did you mean 'naive'"):
        registry.select(found, ["naiv"])


def test_an_unknown_name_is_told_what_begins_like_it_and_how_a_function_of_ones_own_is_spelled():
    found = [entry("naive"), entry("nll-log-softmax")]
    with pytest.raises(UsageError, match="did you mean 'nll-log-softmax'"):
        registry.select(found, ["nl-log"])
    with pytest.raises(UsageError, match=r"unknown: expected one of.*an argument: FILE.py:NAME or package.module:NAME"):
        registry.select(found, ["token_loss"])


@pytest.mark.parametrize(
    ("spelled", "told"),
    [("nothing", "expected FILE.py:NAME"), ("missing.py:loss", "does not exist"), (":loss", "expected FILE.py:NAME")],
)
def test_an_object_that_cannot_be_is_told(spelled: str, told: str):
    with pytest.raises(UsageError, match=told):
        registry.object_source(spelled)


def test_an_object_is_found_beside_its_file_or_from_the_current_folder(tmp_path: Path, monkeypatch):
    file = plugin(tmp_path, ONE_GOOD)
    assert registry.object_source(f"{file}:good").paths == (str(tmp_path),)
    monkeypatch.chdir(tmp_path)
    assert registry.object_source("losses:good") == Source("object", "losses:good", (str(tmp_path),))


@pytest.mark.parametrize(("name", "told"), [("absent.py", "does not exist"), ("notes.txt", "is no Python file")])
def test_a_plugin_that_is_no_python_file_is_refused_before_anything_is_imported(tmp_path: Path, name: str, told: str):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=told):
        registry.plugin_source(str(tmp_path / name))


def test_only_what_was_named_by_hand_and_fails_stops_the_work():
    broken = {"status": Status.IMPORT_FAILED, "reason": "ValueError: no"}
    registry.demand_plugins([entry("x", source=registry.BUILT_IN, **broken)])
    with pytest.raises(UsageError, match="a.py could not be loaded: ValueError: no"):
        registry.demand_plugins([entry("x", **broken)])


def test_descriptions_are_remembered_until_the_file_changes_and_failures_never(tmp_path: Path):
    file, asked = plugin(tmp_path, ONE_GOOD), []
    source = registry.plugin_source(str(file))

    def describe(source: Source, problems) -> list[Description]:
        asked.append(source)
        bad = "broken" in file.read_text()
        return [entry("good", source=source, status=Status.IMPORT_FAILED if bad else Status.PASSED)]

    remembering = registry.cached(describe, tmp_path / "cache")
    assert remembering(source, []) == remembering(source, [])
    assert len(asked) == 1
    file.write_text("broken = 1\n")
    remembering(source, [])
    remembering(source, [])
    assert len(asked) == 3
    for kept in (tmp_path / "cache").iterdir():
        kept.write_text(json.dumps([{"name": 3}]))
    file.write_text(ONE_GOOD)
    assert remembering(source, [])[0].name == "good"


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path):
    (tmp_path / "file").write_text("")
    remembering = registry.cached(lambda source, _: [entry("good", source=source)], tmp_path / "file" / "cache")
    assert remembering(registry.plugin_source(str(plugin(tmp_path, ONE_GOOD))), [])[0].name == "good"


def test_the_sources_are_the_built_in_folder_first_then_plugins(tmp_path: Path):
    file = plugin(tmp_path, ONE_GOOD)
    kinds = [source.kind for source in registry.sources([str(file)])]
    assert kinds[0] == "built-in"
    assert kinds[-1] == "file"


def test_an_installed_distribution_plugs_in_by_entry_point(tmp_path: Path, monkeypatch):
    plugin(tmp_path, ONE_GOOD, "their_losses.py")
    info = tmp_path / "their_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-losses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\ntheirs = their_losses\none = their_losses:good\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    points = [source for source in registry.sources([]) if source.kind == "entry-point"]
    assert {source.where for source in points} == {"their_losses", "their_losses:good"}
    for source in points:
        assert [one.name for one in workers.describe(source, [])] == ["good"]


def test_a_fingerprint_is_of_the_file_and_of_the_code_beside_it(tmp_path: Path):
    file = plugin(tmp_path, "")
    sources = (registry.plugin_source(str(file)), registry.object_source(f"{file}:loss"))
    entries = [Description("mine", source, "losses.py") for source in sources]
    before = [registry.fingerprint(entry) for entry in entries]
    assert before[0] == before[1] != ""
    (tmp_path / "notes.txt").write_text("no code")
    assert [registry.fingerprint(entry) for entry in entries] == before
    (tmp_path / "kernels.cu").write_text("code")
    beside = [registry.fingerprint(entry) for entry in entries]
    assert beside[0] != before[0]
    file.write_text("changed")
    assert registry.fingerprint(entries[0]) != beside[0]


def test_a_fingerprint_of_a_module_imports_nothing(tmp_path: Path):
    package = tmp_path / "entrant"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "losses.py").write_text("loss = 1")
    entry = Description("loss", Source("object", "entrant.losses:loss", (str(tmp_path),)), "entrant.losses")
    before = registry.fingerprint(entry)
    assert before != ""
    (package / "losses.py").write_text("loss = 2")
    assert registry.fingerprint(entry) not in ("", before)
    absent = Description("loss", Source("object", "no.such.module:loss"), "no.such.module")
    assert registry.fingerprint(absent) == ""


def test_a_fingerprint_of_a_built_in_is_of_its_own_file_and_what_all_share():
    names = ("naive", "one-hot")
    naive, one_hot = (Description(n, registry.BUILT_IN, f"implementations/{n.replace('-', '_')}.py") for n in names)
    assert registry.fingerprint(naive) not in ("", registry.fingerprint(one_hot))
