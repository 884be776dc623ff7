"""The `darkroom` program, as somebody at a terminal has it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import command_line
from tests.docs.blocks import REPOSITORY
from tests.stack import PASSWORD, Stack

Darkroom = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has used none of this before."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)}


@pytest.fixture
def darkroom(shell: dict[str, str], tmp_path: Path) -> Darkroom:
    """Runs the program in an empty folder."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return command_line.darkroom(*words, environment={**shell, **variables}, folder=tmp_path)

    return run


@pytest.fixture
def as_premium(stack: Stack) -> dict[str, str]:
    """Variables by which the ready-made premium customer asks this stack."""
    return {
        "DARKROOM_URL": stack.urls[0],
        "DARKROOM_EMAIL": "premium@darkroom.local",
        "DARKROOM_PASSWORD": PASSWORD,
    }
