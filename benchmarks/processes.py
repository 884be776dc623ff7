"""Child processes that end when the benchmark does."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from core.errors import DarkroomError
from infra.local import launch
from infra.local.probes import healthy

REPOSITORY: Final = Path(__file__).resolve().parents[1]
_PAUSE: Final = 0.1
_TAIL_LINES: Final = 20
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class BenchmarkError(DarkroomError):
    """A measurement could not be taken; the message says why."""


class Child:
    """One running program.

    Attributes:
        process: the program itself.
        log: what it has written to both of its outputs.
    """

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def resident_bytes(self) -> int:
        """Memory of it that is in use."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    def check(self) -> None:
        """See that it runs.

        Raises:
            BenchmarkError: it has ended.
        """
        if self.process.returncode is not None:
            raise BenchmarkError(f"ended with status {self.process.returncode}:\n{self.tail()}")

    async def until_healthy(self, port: int, path: str, *, seconds: float) -> None:
        """Wait until its health page answers 200.

        Raises:
            BenchmarkError: it has ended, or that takes longer than ``seconds``.
        """
        answers = healthy("127.0.0.1", port, path)
        try:
            async with asyncio.timeout(seconds):
                while not await answers():
                    self.check()
                    await asyncio.sleep(_PAUSE)
        except TimeoutError as error:
            raise BenchmarkError(f"not ready after {seconds:g} s:\n{self.tail()}") from error

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


async def started(
    argv: Sequence[str], *, env: Mapping[str, str], log: Path, user: str | None = None
) -> Process:
    """Start a program in the repository's folder, as ``user`` if given.

    It leads a session of its own, and ends with this process at the latest.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), user or ""),
            *argv,
            stdin=DEVNULL,
            stdout=output,
            stderr=output,
            cwd=REPOSITORY,
            env=dict(env),
            start_new_session=True,
        )


@contextlib.asynccontextmanager
async def running(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    user: str | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_seconds: float = 15,
) -> AsyncIterator[Child]:
    """Run a program in the repository's folder, as ``user`` if given.

    It is ended in order, or killed after ``stop_seconds``.
    """
    process = await started(argv, env=env, log=log, user=user)
    try:
        yield Child(process, log)
    finally:
        if process.returncode is None:
            process.send_signal(stop_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), stop_seconds)
        # It leads a session of its own: whatever it has started and left goes too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
