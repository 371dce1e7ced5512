"""The examples: the tutorial's numbers, and the bug that is kept as it was meant."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from xentbench import registry
from xentbench.spec import Status
from xentbench.workers import describe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def story() -> str:
    done = subprocess.run([sys.executable, EXAMPLES / "tutorial.py"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_tutorial_counts_entropy_in_bits(story: str):
    assert re.findall(r"(?<=log2 p = )[\d.]+(?= bits)", story) == ["1.000", "0.469", "3.000"]
    assert "H(truth)         = 1.500 bits" in story
    assert "H(truth, belief) = 1.750 bits" in story
    assert "The 0.250 bits too many" in story


def test_tutorial_makes_probabilities_of_logits(story: str):
    probabilities = [float(number) for number in re.findall(r"(?<=probability )[\d.]+", story)]
    assert probabilities == pytest.approx(torch.tensor([2.0, 1.0, -1.0]).softmax(0).tolist(), abs=5e-5)


def test_tutorial_arrives_at_the_published_loss(story: str):
    means = re.findall(r"mean, (\S+): +([\d.]+)", story)
    assert means == [("from-scratch", "1.4412"), ("logsumexp-gather", "1.4412"), ("F.cross_entropy", "1.4412")]
    rows = [float(number) for number in re.findall(r"(?<=loss = )[\d.]+", story)]
    assert sum(rows) / 4 == pytest.approx(1.4412, abs=1e-4)


def test_tutorial_shows_that_the_gradient_is_p_minus_y(story: str):
    for autograd, formula in re.findall(r"autograd \[(.*?)\] +p - y \[(.*?)\]", story):
        got, expected = ([float(number) for number in row.split(",")] for row in (autograd, formula))
        assert got == pytest.approx(expected, abs=2e-4)
        assert sum(got) == pytest.approx(0.0, abs=2e-4)
    assert float(re.search(r"largest difference over all rows: (\S+)", story)[1]) < 1e-6


def test_tutorial_trains(story: str):
    losses = [float(number) for number in re.findall(r"step +\d+: loss ([\d.]+)", story)]
    assert losses[0] == pytest.approx(1.4412)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1


def test_tutorial_shows_the_overflow_and_the_wrong_sign(story: str):
    assert re.search(r"logits near +80: naive 0\.3490, from-scratch 0\.3490", story)
    assert re.search(r"logits near +100: naive inf, from-scratch 0\.3490", story)
    assert re.search(r"custom loss: -1\.4412", story)


def test_the_kept_bug_is_cross_entropy_negated_and_undecorated():
    spec = importlib.util.spec_from_file_location("tutorial_bug", EXAMPLES / "tutorial_bug.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logits, target = torch.randn(6, 4), torch.randint(4, (6,))
    assert type(module.custom_cross_entropy).__name__ == "function"
    torch.testing.assert_close(module.custom_cross_entropy(logits, target), -functional.cross_entropy(logits, target))


def test_the_kept_bugs_counter_example_is_a_snippet_that_needs_its_file_and_torch_alone(tmp_path: Path):
    out, alone = tmp_path / "parity.json", tmp_path / "alone"
    asked = "from xentbench.cli import main; main()", "parity", "examples/tutorial_bug.py:custom_cross_entropy"
    command = [sys.executable, "-c", *asked, "--grid", "quick", "--json", str(out)]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    failure = json.loads(out.read_text())["implementations"]["custom_cross_entropy"]["failures"][0]
    assert len(re.search(r"logits \[\[(.*?)\]\]", failure["counterexample"])[1].split(",")) <= 3
    (alone / "examples").mkdir(parents=True)
    shutil.copy(EXAMPLES / "tutorial_bug.py", alone / "examples")
    assert "xentbench" not in failure["snippet"]
    ran = subprocess.run(
        [sys.executable, "-I", "-"], input=failure["snippet"], cwd=alone, capture_output=True, text=True, check=True
    )
    expected, got = map(float, re.fullmatch(r"expected (\S+) got (\S+)\n", ran.stdout).groups())
    assert expected > 0.0
    assert got == pytest.approx(-expected)


PEERS = sorted((EXAMPLES / "peers").glob("*.py"))


@pytest.mark.parametrize("file", PEERS, ids=lambda file: file.stem)
def test_a_peer_without_its_package_is_a_reason_with_the_command_that_adds_it(file: Path):
    (entry,) = describe(registry.plugin_source(str(file)), ["cross_entropy:N=4,C=5"])
    if entry.status is Status.UNSUPPORTED:
        assert re.fullmatch(r"needs the package '\w+': pip install [\w-]+", entry.reason)
        assert entry.reason.rpartition(" ")[2] in file.read_text()
    else:
        assert entry.status is Status.PASSED, entry.reason
        assert "GPU" in entry.refusals["cross_entropy:N=4,C=5"]


def test_peers_have_names_of_their_own_and_files_that_hide_no_package():
    found = [entry for file in PEERS for entry in describe(registry.plugin_source(str(file)), [])]
    names = [entry.name for entry in (*found, *describe(registry.BUILT_IN, []))]
    assert len(found) == len(PEERS) == 3
    assert len(set(names)) == len(names)
    assert not {file.stem for file in PEERS} & {"flash_attn", "quack", "unsloth", "triton"}
    listed = (EXAMPLES / "peers" / "README.md").read_text()
    assert all(f"[{file.name}]({file.name})" in listed for file in PEERS)
