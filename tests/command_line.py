"""The ``darkroom`` program in the test's own process, where all that it imports is there already."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

from console.__main__ import main


def darkroom(*words: str, environment: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """What becomes of a command in a folder, with these variables alone and nobody to answer questions."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", ["darkroom", *words]),
        patch.object(sys, "stdin", io.StringIO()),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        # A command has an event loop of its own, and does not find the database that the test has opened.
        ThreadPoolExecutor(max_workers=1) as thread,
    ):
        ended = thread.submit(main).exception()
    assert isinstance(ended, SystemExit), ended
    assert isinstance(ended.code, int)
    return subprocess.CompletedProcess(["darkroom", *words], ended.code, stdout.getvalue(), stderr.getvalue())
