"""Keeps a set of processes running, in the order in which they need one another."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.errors import ConfigurationError, DarkroomError
from infra.local import launch
from infra.local.command import Command
from infra.local.probes import Probe

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0
"""Seconds before a process that ended is started again: doubled each time, up to this."""

STEADY_SECONDS: Final = 30.0
"""After a life of this length the pause is the first one again."""

_PROBE_PAUSE: Final = 0.1
_TAIL_LINES: Final = 25

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What to run, and what it needs.

    Attributes:
        name: of its ``NAME.pid`` and ``NAME.log``.
        command: the program.
        env: all of its variables.
        ready: asked until it says yes; none for a step, which is done when it has ended with status 0.
        after: names of the processes that have to be ready before this one starts.
        prepare: called in a thread before the first start.
        stop_signal: asks it to end in order.
        stop_seconds: how long it may take to; then it is killed.
    """

    name: str
    command: Command
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Probe | None
    after: tuple[str, ...] = ()
    prepare: Callable[[], None] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 6.0


class StartError(ConfigurationError):
    """A process did not become ready; the message names it and shows the end of its log."""


class Supervisor:
    """Runs the processes until told to stop. Made inside a running event loop.

    Args:
        processes: in any order.
        run_dir: for ``NAME.pid`` of every process that runs.
        log_dir: for ``NAME.log``, appended to.
        work_dir: where the programs run.
        report: told what happens, a line at a time.
    """

    def __init__(
        self, processes: Sequence[Process], *, run_dir: Path, log_dir: Path, work_dir: Path, report: Report
    ) -> None:
        # Whoever left these was killed, and its processes with it.
        for stale in run_dir.glob("*.pid"):
            stale.unlink()
        self._keepers = {
            process.name: _Keeper(
                process,
                pid_file=run_dir / f"{process.name}.pid",
                log_file=log_dir / f"{process.name}.log",
                work_dir=work_dir,
                report=report,
            )
            for process in processes
        }

    async def start(self, *, seconds: float) -> None:
        """Start everything; all of it is ready when this returns.

        Raises:
            StartError: a step failed, or a process was not ready in time.
            ConfigurationError: a process could not be prepared.
        """
        keepers = self._keepers.values()
        for keeper in keepers:
            keeper.start([self._keepers[name] for name in keeper.process.after])
        try:
            async with asyncio.timeout(seconds):
                await _all_ready(keepers)
        except TimeoutError:
            # The first to blame is one that had all it needs.
            late = next(keeper for keeper in keepers if keeper.begun and not keeper.ready.done())
            raise StartError(late.blame(f"is not ready after {seconds:g} s")) from None

    async def stop(self) -> None:
        """Stop everything, each process once those that need it have ended; none starts again."""
        for keeper in self._keepers.values():
            keeper.stopping.set()
        await asyncio.gather(*(self._stop(keeper) for keeper in self._keepers.values()))

    async def _stop(self, keeper: "_Keeper") -> None:
        name = keeper.process.name
        dependents = [other for other in self._keepers.values() if name in other.process.after]
        await asyncio.gather(*(other.ended.wait() for other in dependents))
        await keeper.stop()

    def hurry(self) -> None:
        """Kill whatever still runs."""
        for keeper in self._keepers.values():
            keeper.kill()


class _Keeper:
    """Keeps one process running."""

    def __init__(
        self, process: Process, *, pid_file: Path, log_file: Path, work_dir: Path, report: Report
    ) -> None:
        self.process = process
        self.begun = False
        self.stopping = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._pid_file = pid_file
        self._log_file = log_file
        self._work_dir = work_dir
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None

    def start(self, needed: Sequence["_Keeper"]) -> None:
        """Begin as soon as the needed ones are ready."""
        self._task = asyncio.create_task(self._run(needed))

    async def stop(self) -> None:
        """End the process in order, or kill it when that takes too long."""
        if self._task is not None:
            if self._child is None:
                self._task.cancel()
            else:
                self._send(self.process.stop_signal)
            await asyncio.wait({self._task}, timeout=self.process.stop_seconds)
            if not self._task.done():
                self._report(f"{self.process.name} does not end; it is killed")
                self.kill()
                await asyncio.wait({self._task})
        self.ended.set()

    def kill(self) -> None:
        """End the process, and what it started in its group, at once."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def blame(self, what: str) -> str:
        """A message on what is wrong with this process, with the end of its log."""
        try:
            lines = self._log_file.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        except FileNotFoundError:
            lines = []
        tail = "".join(f"\n    {line}" for line in lines)
        return f"{self.process.name} {what}. The end of {self._log_file}:{tail or ' nothing'}"

    async def _run(self, needed: Sequence["_Keeper"]) -> None:
        try:
            await _all_ready(needed)
            self.begun = True
            if self.process.prepare is not None:
                await asyncio.to_thread(self.process.prepare)
            if self.process.ready is None:
                await self._take_step()
            else:
                await self._keep(self.process.ready)
        except DarkroomError as error:
            # Whoever waits for this process is told; an error of a needed one is passed on.
            if not self.ready.done():
                self.ready.set_exception(error)

    async def _take_step(self) -> None:
        status = await self._live()
        if self.stopping.is_set():
            return
        if status != 0:
            raise StartError(self.blame(f"failed ({_in_words(status)})"))
        self._now_ready("done")

    async def _keep(self, probe: Probe) -> None:
        pause = FIRST_PAUSE
        watching = asyncio.create_task(self._watch(probe))
        try:
            while not self.stopping.is_set():
                born = time.monotonic()
                status = await self._live()
                if self.stopping.is_set():
                    return
                if time.monotonic() - born >= STEADY_SECONDS:
                    pause = FIRST_PAUSE
                self._report(
                    f"{self.process.name} ended ({_in_words(status)}); it starts again in {pause:g} s."
                    f" See {self._log_file}"
                )
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            watching.cancel()

    async def _live(self) -> int:
        """Run the program until it ends; returns its status, below 0 for a signal."""
        process = self.process
        # A program of its own session is out of the terminal's reach: Ctrl-C is for the supervisor.
        with self._log_file.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), process.command.user or ""),
                *process.command.argv,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._work_dir,
                env=dict(process.env),
                start_new_session=True,
            )
        self._child = child
        try:
            _write_whole(self._pid_file, f"{child.pid}\n")
            return await child.wait()
        finally:
            self._pid_file.unlink(missing_ok=True)
            # What it has started itself is not to outlive it.
            self.kill()
            self._child = None

    async def _watch(self, probe: Probe) -> None:
        while True:
            if self._child is not None and await probe():
                self._now_ready("ready")
                return
            await asyncio.sleep(_PROBE_PAUSE)

    def _now_ready(self, word: str) -> None:
        self.ready.set_result(None)
        self._report(f"{self.process.name} {word}")

    def _send(self, number: signal.Signals) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)


async def _all_ready(keepers: Iterable[_Keeper]) -> None:
    """Wait for all of them; the first failure ends the waiting. The waiting may be given up."""
    await asyncio.gather(*(asyncio.shield(keeper.ready) for keeper in keepers))


def _in_words(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader never finds half of it."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
