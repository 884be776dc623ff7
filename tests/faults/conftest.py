"""The service under test, started once for all scenarios of a kind, and what they came to."""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core.messages import Parameters
from tests.faults.invariants import Pixels
from tests.faults.service import Service, running
from tests.faults.trial import Note, Trial, trial

_BUILD = """
import pathlib, sys
from tests.gpu_worker.tiny_model import build
build(pathlib.Path(sys.argv[1]))
"""
_PROPERTY = "faults"

NewTrial = Callable[..., AbstractAsyncContextManager[Trial]]


@pytest.fixture(scope="session")
def seed() -> int:
    """Of everything that is left to chance: from FAULTS_SEED, or another each time."""
    given = os.environ.get("FAULTS_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**6)


@pytest.fixture(scope="session")
def tiny_model(server_folder: Path) -> Path:
    """The weights; built in a process of their own, which this one does without torch until it compares."""
    folder = server_folder / "tiny"
    subprocess.run([sys.executable, "-c", _BUILD, str(folder)], check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def alone(tiny_model: Path) -> Callable[[Parameters], Pixels]:
    """Pictures made alone."""
    from tests.faults.alone import Alone  # noqa: PLC0415 - brings torch

    return Alone(tiny_model)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service(server_folder: Path, tiny_model: Path) -> AsyncIterator[Service]:
    """Two of each process and one broker."""
    home = server_folder / "single"
    home.mkdir(mode=0o755)
    async with running(home, model=tiny_model, brokers=1) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stored_service(server_folder: Path, tiny_model: Path) -> AsyncIterator[Service]:
    """Two of each process, one broker, and an object store over a network."""
    home = server_folder / "stored"
    home.mkdir(mode=0o755)
    async with running(home, model=tiny_model, brokers=1, remote_store=True) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(server_folder: Path, tiny_model: Path) -> AsyncIterator[Service]:
    """Two of each process and three brokers, each stream with three copies."""
    home = server_folder / "cluster"
    home.mkdir(mode=0o755)
    async with running(home, model=tiny_model, brokers=3) as started:
        yield started


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Lines of the report that is printed at the end, whichever process the test runs in."""

    def add(line: str, numbers: Mapping[str, int]) -> None:
        request.node.user_properties.append((_PROPERTY, (line, dict(numbers))))

    return add


@pytest.fixture
def new_trial(
    request: pytest.FixtureRequest, seed: int, alone: Callable[[Parameters], Pixels], note: Note
) -> NewTrial:
    """Begins a scenario on a service."""
    name = request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")

    def begin(service: Service, **customers: Any) -> AbstractAsyncContextManager[Trial]:
        print(f"{name}: FAULTS_SEED={seed}")  # noqa: T201 - shown with a failure
        return trial(name, service, seed=seed, alone=alone, note=note, **customers)

    return begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [
        value
        for reports in (terminalreporter.stats.get(outcome, []) for outcome in ("passed", "failed"))
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not found:
        return
    terminalreporter.section("faults")
    totals: Counter[str] = Counter()
    for line, numbers in found:
        totals.update(numbers)
        terminalreporter.write_line(f"{line}: {_listed(numbers)}" if numbers else line)
    terminalreporter.write_line(f"in all: {_listed(totals)}")


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in numbers.items() if count)
