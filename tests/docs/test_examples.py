"""The examples, as somebody who copied one runs it."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.blocks import REPOSITORY
from tests.stack import PASSWORD, Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

EXAMPLES = REPOSITORY / "examples"
PROGRAMS = {
    "python": [sys.executable, "generate.py"],
    "typescript": ["npm", "start", "--silent", "--"],
    "curl": ["./generate.sh"],
}


async def _run(language: str, url: str, tmp_path: Path, *, prompt: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if language == "typescript" and not (EXAMPLES / language / "node_modules").is_dir():
        pytest.skip("`make test` installs its packages")
    folder = tmp_path / language
    shutil.copytree(EXAMPLES / language, folder, symlinks=True)
    return await asyncio.to_thread(
        subprocess.run,
        [*PROGRAMS[language], prompt, "picture.png"],
        cwd=folder,
        env={
            "PATH": path,
            "HOME": str(tmp_path),
            "DARKROOM_URL": url,
            "DARKROOM_EMAIL": "premium@darkroom.local",
            "DARKROOM_PASSWORD": PASSWORD,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.parametrize("language", PROGRAMS)
async def test_an_example_makes_a_picture(language: str, stack: Stack, tmp_path: Path) -> None:
    done = await _run(language, stack.urls[0], tmp_path, prompt='a "red" house')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "picture.png"
    if language != "curl":
        assert "SUCCEEDED" in done.stdout
    with Image.open(tmp_path / language / "picture.png") as picture:
        picture.verify()
        assert picture.format == "PNG"


@pytest.mark.parametrize("language", PROGRAMS)
async def test_an_example_ends_with_the_reason_where_it_is_refused(
    language: str, stack: Stack, tmp_path: Path
) -> None:
    done = await _run(language, stack.urls[0], tmp_path, prompt="x" * 5000)
    assert done.returncode != 0
    assert "prompt" in done.stderr
    assert not (tmp_path / language / "picture.png").exists()


@pytest.mark.parametrize("language", PROGRAMS)
async def test_an_example_says_in_one_line_that_nobody_answers(language: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = await _run(language, f"http://127.0.0.1:{port}", tmp_path, prompt="a house")
    assert done.returncode != 0
    [line] = done.stderr.splitlines()
    assert "127.0.0.1" in line
    assert str(port) in line
