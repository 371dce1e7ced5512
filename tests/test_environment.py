from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

import pytest

from xentbench import environment


def test_a_description_is_json_and_names_no_host_user_or_folder():
    text = json.dumps(environment.describe(environment.Conditions()))
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert getpass.getuser() not in json.loads(text)
    assert platform.node() not in json.loads(text).values()
    assert json.loads(text)["torch"]


def test_unlike_settings_are_named_with_both_values():
    one = environment.describe(environment.Conditions())
    assert environment.differences(one, one) == {}
    assert environment.differences(one, {**one, "threads": 2, "kernel": "other"}) == {"threads": (1, 2)}


def test_every_setting_that_a_comparison_needs_is_described_and_one_that_is_missing_forbids_it():
    one = environment.describe(environment.Conditions())
    assert set(environment.COMPARABLE) <= set(one)
    assert environment.differences({}, {}).keys() == set(environment.COMPARABLE)
    assert environment.differences(one, {**one, "pinned": False}) == {"pinned": (True, False)}
    less = {key: value for key, value in one.items() if key != "cpu"}
    assert environment.differences(one, less) == {"cpu": (one["cpu"], "not told")}


def test_an_absent_package_is_absent():
    assert environment.version("no-such-distribution-anywhere") == "absent"


def test_memory_is_available_in_bytes():
    assert environment.available_bytes() > 2**20


def test_without_glibc_the_allocator_is_the_default_one_and_the_run_says_so(monkeypatch):
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("", ""))
    had, notes = environment.attainable(environment.Conditions())
    assert had.allocator == "cold"
    assert any("default allocator" in note for note in notes)
    assert environment.attainable(environment.Conditions(allocator="cold"))[1] == []


def test_without_affinity_workers_are_not_pinned_and_the_run_says_so(monkeypatch):
    monkeypatch.delattr(environment.os, "sched_getaffinity")
    had, notes = environment.attainable(environment.Conditions())
    assert not had.pinned
    assert notes == ["workers cannot be pinned to a core on this system"]
    assert environment.usable_cores() >= 1


def test_threads_are_never_pinned_to_one_core():
    assert not environment.attainable(environment.Conditions(threads=2))[0].pinned


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/sys/fs/cgroup/cpu.max": "50000 100000"}, 0.5),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1.5),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cores_is_read_from_either_version_of_control_groups(monkeypatch, files, cores):
    monkeypatch.setattr(environment, "_read", lambda path: files.get(path, ""))
    assert environment.container_cores() == cores
    notes = environment.attainable(environment.Conditions())[1]
    assert any("0.5 of a core" in note for note in notes) == (cores == 0.5)


def test_a_system_that_tells_nothing_of_itself_is_described_all_the_same(monkeypatch):
    monkeypatch.setattr(environment, "_read", lambda _path: "")
    record = environment.describe(environment.Conditions())
    assert record["memory_bytes"] == record["last_level_cache_bytes"] == 0
    assert record["cpu"]
    assert environment.available_bytes() > 2**40
