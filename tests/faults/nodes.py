"""Processes that are killed and stopped here, and started again as an orchestrator would."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.processes import started
from infra.local.command import Command
from infra.local.probes import Probe

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PAUSE: Final = 0.2
"""Seconds between a death and the next life."""

READY_SECONDS: Final = 120

Life = tuple[int, Awaitable[int]]
"""A process that runs: its number, and its exit status, to be waited for."""

Spawn = Callable[[Mapping[str, str], Path], Awaitable[Life]]
"""Starts a life with these variables, whose output goes to this file."""


class Node:
    """One process in many lives.

    Args:
        name: of its log as well.
        spawn: starts a life.
        env: all of its variables.
        ready: asked until it says yes.
        log: everything it writes, of all lives.
    """

    def __init__(self, name: str, spawn: Spawn, *, env: Mapping[str, str], ready: Probe, log: Path) -> None:
        self.name = name
        self.env = dict(env)
        self.log = log
        self.lives = 0
        self.pid: int | None = None
        """Of this life."""
        self.charges: deque[str] = deque()
        """What the next lives are armed with, one each."""
        self.spawn = spawn
        self._ready = ready
        self._wanted = False
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep it running from now on."""
        self._wanted = True
        self._keeper = asyncio.create_task(self._keep())

    async def until_ready(self, *, seconds: float = READY_SECONDS) -> None:
        """Wait until it runs and says that it is ready.

        Raises:
            AssertionError: it was not in time; with the end of its log.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.pid is None or not await self._ready():
            if self._keeper is not None and self._keeper.done():
                self._keeper.result()
            if loop.time() > deadline:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
                raise AssertionError(f"{self.name} is not ready after {seconds:g} s:\n{tail}")
            await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = 20) -> None:
        """Have it end and stay so; killed if it takes too long."""
        self._wanted = False
        self.send(signal.SIGCONT)
        self.send(number)
        if self._keeper is None:
            return
        _, late = await asyncio.wait({self._keeper}, timeout=seconds)
        if late:
            self.send(signal.SIGKILL)
            # One that has never begun has nothing to be killed.
            await asyncio.wait({self._keeper}, timeout=1)
            self._keeper.cancel()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process of this life, if there is one."""
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def restart(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End this life by a signal and wait until the next one is ready."""
        await self.next_life(number)
        await self.until_ready()

    async def next_life(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End this life by a signal and wait until the next one has begun."""
        life = self.lives
        self.send(number)
        async with asyncio.timeout(READY_SECONDS):
            while self.lives == life:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.02)

    def kills(self) -> Counter[str]:
        """How often it has killed itself, by the failpoint."""
        lines = [line for line in self.lines("failpoint_reached") if line["action"] == "kill"]
        return Counter(line["point"] for line in lines)

    def lines(self, event: str) -> list[dict[str, str]]:
        """What its log says of such events."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        found = []
        for line in text.splitlines():
            if f'"{event}"' in line:
                # A life that ends while it writes leaves half a line.
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found

    async def _keep(self) -> None:
        while self._wanted:
            env = dict(self.env)
            if self.charges:
                env["DARKROOM_FAILPOINTS"] = self.charges.popleft()
            self.pid, ended = await self.spawn(env, self.log)
            self.lives += 1
            pid = self.pid
            await ended
            self.pid = None
            # A server's own children are not to outlive it.
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            if self._wanted:
                await asyncio.sleep(PAUSE)


def program(command: Command) -> Spawn:
    """Lives of a program, which end with this process."""

    async def spawn(env: Mapping[str, str], log: Path) -> Life:
        process = await started(command.argv, env=env, log=log, user=command.user)
        return process.pid, process.wait()

    return spawn


class Nursery:
    """Forks lives of one of our modules; see :mod:`tests.faults.nursery`."""

    def __init__(self, module: str, *, log: Path) -> None:
        self._module = module
        self._log = log
        self._process: Process | None = None
        self._born: asyncio.Queue[int | None] = asyncio.Queue()
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._ordering = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def open(self, env: Mapping[str, str]) -> None:
        """Begin to import."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.nursery", self._module),
                stdin=PIPE,
                stdout=PIPE,
                stderr=output,
                cwd=REPOSITORY,
                env=dict(env),
            )
        self._listening = asyncio.create_task(self._listen())

    async def spawn(self, env: Mapping[str, str], log: Path) -> Life:
        """Fork a life; waits for the imports."""
        assert self._process is not None
        assert self._process.stdin is not None
        async with self._ordering:
            self._process.stdin.write(f"{json.dumps({'env': dict(env), 'log': str(log)})}\n".encode())
            pid = await self._born.get()
        assert pid is not None, f"{self._module} cannot be imported:\n{self._log.read_text()}"
        return pid, self._ends[pid]

    async def close(self) -> None:
        """End it, and whatever lives."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
            assert self._listening is not None
            await self._listening

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            words = json.loads(line)
            if "status" in words:
                self._ends[words["pid"]].set_result(words["status"])
            else:
                self._ends[words["pid"]] = asyncio.get_running_loop().create_future()
                self._born.put_nowait(words["pid"])
        self._born.put_nowait(None)
