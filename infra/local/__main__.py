"""``python -m infra.local``: the whole of Darkroom on one machine, in the foreground."""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from core.errors import DarkroomError
from core.settings import read
from infra.local import banner, launch
from infra.local.credentials import Credentials
from infra.local.home import Home
from infra.local.ports import Ports
from infra.local.processes import Stack, declare
from infra.local.settings import StackSettings
from infra.local.supervisor import Supervisor
from infra.private_file import write_private

_START_SECONDS: Final = 120.0
_FURTHER_WORKER_SECONDS: Final = 30.0
"""Within which all has to be ready; workers load their models beside one another, on the same cores."""

_REPOSITORY: Final = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the stack until a signal; the exit status is 1 when it could not be started."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description=__doc__)
    parser.add_argument(
        "--end-with-parent", action="store_true", help="stop when the process that started this one is gone"
    )
    if parser.parse_args().end_with_parent:
        launch.end_with_parent(signal.SIGTERM)
    try:
        settings = read(StackSettings)
        home = Home(settings.home)
        home.create()
        with home.lock():
            return asyncio.run(_run(settings, home))
    except DarkroomError as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return 1


async def _run(settings: StackSettings, home: Home) -> int:
    stop = _stop_signals()
    ports = Ports(home.root / "ports.json")
    chosen = settings.demo_password.get_secret_value() if settings.demo_password else None
    credentials = Credentials.load(home.root / "secrets.json", demo_password=chosen)
    stack = declare(settings, home=home, ports=ports, credentials=credentials)
    ports.save()
    _write_environment(home, stack)
    clock = _Clock()
    supervisor = Supervisor(
        stack.processes, run_dir=home.run, log_dir=home.logs, work_dir=_REPOSITORY, report=clock.report
    )
    seconds = _START_SECONDS + (settings.gpu_workers - 1) * _FURTHER_WORKER_SECONDS
    starting = asyncio.create_task(supervisor.start(seconds=seconds))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            clock.started()
            password = credentials.demo_password
            print(banner.compose(settings, url=stack.url, home=home, password=password), flush=True)
            await stopping
        return 0
    finally:
        starting.cancel()
        clock.report("stopping")
        stop.clear()
        hurrying = asyncio.create_task(_hurry(stop, supervisor))
        await supervisor.stop()
        hurrying.cancel()
        clock.report("stopped")


def _stop_signals() -> asyncio.Event:
    """Set by each signal that asks to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _hurry(again: asyncio.Event, supervisor: Supervisor) -> None:
    await again.wait()
    supervisor.hurry()


def _write_environment(home: Home, stack: Stack) -> None:
    """Leave for the ``darkroom`` command what it needs to work on this stack."""
    lines = (f"{name}={value}\n" for name, value in stack.environment.items())
    write_private(home.root / "operator.env", "".join(lines))


class _Clock:
    """Says what happens: with the seconds since the start while starting, with the time of day later."""

    def __init__(self) -> None:
        self._begun: float | None = time.monotonic()

    def started(self) -> None:
        self._begun = None

    def report(self, line: str) -> None:
        when = (
            time.strftime("%H:%M:%S") if self._begun is None else f"{time.monotonic() - self._begun:6.1f} s"
        )
        try:
            print(f"{when}  {line}", flush=True)
        except OSError:
            # The terminal or the pipe is gone; that is no reason to stop serving.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - stays open until the process ends


if __name__ == "__main__":
    sys.exit(main())
