"""Every task of the project, each in an environment of its own: `nox --list` says what there is."""

from __future__ import annotations

import shutil

import nox

nox.needs_version = ">=2025.5"
nox.options.sessions = ["tests", "lint", "types"]

PROJECT = nox.project.load_toml("pyproject.toml")
# One committed file of versions for all sessions; it alone pins torch.
CONSTRAINTS = ("--constraint", "constraints.txt")
# For pass or fail, and for regression.
PARITY = (("--found", "results/baselines/found.json"), ("--baseline", "results/baselines/parity.json"))


def install(session: nox.Session, *targets: str, group: str | None = None) -> None:
    """Install targets and a dependency group of pyproject.toml, at the constraints' versions."""
    wanted = nox.project.dependency_groups(PROJECT, group) if group else ()
    session.install(*CONSTRAINTS, *targets, *wanted)


@nox.session
def bench(session: nox.Session) -> None:
    """Judge, time and weigh every implementation; `-- --quick` for three minutes, `-- --help` for the rest."""
    install(session, "-e", ".[workloads]")
    session.run("xentbench", "bench", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests against the installed package, on two cores: a file's tests share what they made."""
    install(session, "-e", ".[workloads]", group="test")
    session.run("pytest", "--numprocesses=2", "--dist=loadfile", *session.posargs)


@nox.session
def parity(session: nox.Session) -> None:
    """Judge every implementation at a fresh seed, then hold it against the baseline; `-- NAME` judges as you ask."""
    install(session, "-e", ".[workloads]")
    asked = (session.posargs,) if session.posargs else PARITY
    for arguments in asked:
        session.run("xentbench", "parity", *arguments)


@nox.session
def judge(session: nox.Session) -> None:
    """Judge the judge at three fresh seeds, run the slow tests, then everybody under torch.compile. An hour."""
    install(session, "-e", ".[workloads]", group="test")
    for _ in range(3):
        session.run("xentbench", "selftest", "judge")
    session.run("pytest", "-m", "slow")
    session.run("xentbench", "parity", "--compile", *session.posargs)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Call the native kernel under the sanitizers, with every kind of vectors that this processor has. Minutes."""
    install(session, "-e", ".", group="test")
    session.run("pytest", "tests/test_fused_sanitized.py", "-m", "slow", "-s", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Judge the kernels that are Triton's, this project's and peers', where there is no GPU by its interpreter."""
    install(session, "-e", ".[peers,workloads]", group="test")
    session.run("pytest", "tests/test_fused_triton.py", "tests/test_worker_interpreting.py", "-m", "slow or not slow")
    session.run("xentbench", "parity", "fused-triton", "liger", *session.posargs)


@nox.session(name="pytest-bench")
def pytest_bench(session: nox.Session) -> None:
    """Time the same implementations through pytest-benchmark, for people who live in pytest; saves and compares."""
    install(session, "-e", ".[workloads]", group="test")
    switches = ("--benchmark-enable", "--benchmark-autosave")
    session.run("pytest", "tests/bench_cross_entropy.py", *switches, *session.posargs)


@nox.session
def figures(session: nox.Session) -> None:
    """Measure again what the README shows, and replace its two figures."""
    install(session, "-e", ".[workloads]")
    session.run("python", "benchmarks/readme_figures.py", *session.posargs)


@nox.session
def ladder(session: nox.Session) -> None:
    """Measure the ladder of ideas, and replace the figure and table in docs/implementations.md; `-- RUN` redraws."""
    install(session, "-e", ".[workloads]")
    session.run("python", "benchmarks/ladder.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the reference pages from the code, then check every page: links, commands, what they print. Minutes."""
    install(session, "-e", ".[workloads]", group="test")
    session.run("python", "docs/reference/generate.py")
    session.run("pytest", "tests/test_docs.py", "tests/test_reference.py", "-m", "slow or not slow", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, group="lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types of the installed wheel, which is what users get."""
    # setuptools packs whatever an earlier build left there, modules since removed included.
    shutil.rmtree("build", ignore_errors=True)
    install(session, ".", group="types")
    session.run("mypy", "-p", "xentbench")
