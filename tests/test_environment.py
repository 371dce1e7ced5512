from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path

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
