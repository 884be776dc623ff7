import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infra.local import launch
from infra.local.command import Command
from infra.local.supervisor import Process, StartError, Supervisor

REPOSITORY = Path(__file__).resolve().parents[2]
SLEEPER = "import time; time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); {SLEEPER}"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print(child.pid, flush=True)
child.wait()
"""


def python(code: str, *arguments: str) -> Command:
    return Command(argv=(sys.executable, "-I", "-S", "-c", code, *arguments))


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


def alive(pid: int) -> bool:
    """Whether the process runs: one that has ended and waits to be fetched does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def program(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


async def until(condition: Callable[[], bool], *, seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.02)


class Bench:
    """A supervisor over small real processes, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._supervisors: list[Supervisor] = []

    async def start(self, *processes: Process, seconds: float = 10) -> Supervisor:
        supervisor = Supervisor(
            processes,
            run_dir=self.folder,
            log_dir=self.folder,
            work_dir=self.folder,
            report=self.lines.append,
        )
        self._supervisors.append(supervisor)
        await supervisor.start(seconds=seconds)
        return supervisor

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def runs(self, name: str) -> bool:
        return (self.folder / f"{name}.pid").exists()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def close(self) -> None:
        for supervisor in self._supervisors:
            supervisor.hurry()
            await supervisor.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


def announcing(name: str, diary: Path, *, stops_in: float) -> Command:
    """A program that writes into a diary when it begins, and so many seconds after it is told to stop."""
    code = """
import signal, sys, time
def note(word):
    with open(sys.argv[2], "a") as file:
        file.write(word + " " + sys.argv[1] + "\\n")
def stop(*_):
    time.sleep(float(sys.argv[3]))
    note("stop")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
note("start")
time.sleep(60)
"""
    return python(code, name, str(diary), str(stops_in))


def begun(diary: Path, name: str) -> Callable[[], bool]:
    return lambda: diary.exists() and f"start {name}\n" in diary.read_text()


async def test_processes_start_after_those_they_need_and_stop_before_them(bench: Bench) -> None:
    diary = bench.folder / "diary"

    def process(name: str, *after: str) -> Process:
        async def ready() -> bool:
            return begun(diary, name)()

        # Those that others need would be the first to have stopped.
        command = announcing(name, diary, stops_in=0.3 if after else 0)
        return Process(name=name, command=command, ready=ready, after=after)

    step = Process(name="step", command=python("pass"), ready=None, after=("server",))
    supervisor = await bench.start(process("app", "step"), step, process("server"))
    await supervisor.stop()
    assert diary.read_text().split("\n") == ["start server", "start app", "stop app", "stop server", ""]
    assert bench.lines == ["server ready", "step done", "app ready"]


async def test_a_pid_file_names_the_process_for_as_long_as_it_runs(bench: Bench) -> None:
    supervisor = await bench.start(Process(name="one", command=python(SLEEPER), ready=at_once))
    pid = bench.pid("one")
    await until(lambda: program(pid) == [*python(SLEEPER).argv])
    await supervisor.stop()
    assert not alive(pid)
    assert not bench.runs("one")


async def test_a_killed_process_is_started_again(bench: Bench) -> None:
    await bench.start(Process(name="one", command=python(SLEEPER), ready=at_once))
    first = bench.pid("one")
    os.kill(first, signal.SIGKILL)
    await until(lambda: bench.runs("one") and bench.pid("one") != first)
    assert alive(bench.pid("one"))
    assert "one ended (killed by SIGKILL); it starts again in 0.5 s" in bench.lines[-1]


async def test_the_pause_before_the_next_start_doubles(bench: Bench) -> None:
    brief = python("import time; time.sleep(0.3); raise SystemExit(3)")
    await bench.start(Process(name="one", command=brief, ready=at_once))
    await until(lambda: len(bench.lines) > 3)
    ended = [line.split(". See")[0] for line in bench.lines if "ended" in line][:3]
    assert ended == [f"one ended (status 3); it starts again in {pause} s" for pause in ("0.5", "1", "2")]


async def test_what_a_process_says_is_appended_to_its_log(bench: Bench) -> None:
    (bench.folder / "one.log").write_text("from before\n")
    code = "import os; os.write(1, b'out\\n'); os.write(2, b'err\\n')"
    await bench.start(Process(name="one", command=python(code), ready=None))
    assert bench.log("one") == "from before\nout\nerr\n"


async def test_a_process_deaf_to_its_stop_signal_is_killed_in_time(bench: Bench) -> None:
    process = Process(name="deaf", command=python(DEAF), ready=at_once, stop_seconds=0.3)
    supervisor = await bench.start(process)
    await until(lambda: bench.log("deaf") != "")
    pid, begin = bench.pid("deaf"), time.monotonic()
    await supervisor.stop()
    assert 0.3 <= time.monotonic() - begin < 2
    assert not alive(pid)


async def test_hurrying_kills_what_is_still_stopping(bench: Bench) -> None:
    server = Process(name="server", command=python(SLEEPER), ready=at_once)
    app = Process(name="app", command=python(DEAF), ready=at_once, after=("server",), stop_seconds=30)
    supervisor = await bench.start(server, app)
    await until(lambda: bench.log("app") != "")
    pids, begin = [bench.pid("server"), bench.pid("app")], time.monotonic()
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    supervisor.hurry()
    await stopping
    assert time.monotonic() - begin < 2
    assert not any(alive(pid) for pid in pids)
    assert not any("starts again" in line for line in bench.lines)


async def test_what_a_process_started_does_not_outlive_it(bench: Bench) -> None:
    await bench.start(Process(name="one", command=python(PARENT), ready=at_once))
    await until(lambda: bench.log("one").endswith("\n"))
    child = int(bench.log("one"))
    assert alive(child)
    os.kill(bench.pid("one"), signal.SIGKILL)
    await until(lambda: not alive(child))


async def test_a_step_that_fails_ends_the_start_and_shows_its_log(bench: Bench) -> None:
    step = Process(name="migrate", command=python("raise SystemExit('no such table')"), ready=None)
    waiting = Process(name="api", command=python(SLEEPER), ready=at_once, after=("migrate",))
    with pytest.raises(StartError, match=r"(?s)^migrate failed \(status 1\)\..*no such table"):
        await bench.start(step, waiting)
    assert not bench.runs("api")


async def test_a_process_that_is_not_ready_in_time_is_named_with_its_log(bench: Bench) -> None:
    lame = Process(name="lame", command=python(f"print('warming up', flush=True); {SLEEPER}"), ready=never)
    waiting = Process(name="waiting", command=python(SLEEPER), ready=at_once, after=("lame",))
    with pytest.raises(StartError, match=r"(?s)^lame is not ready after 1 s\..*warming up"):
        await bench.start(waiting, lame, seconds=1)


async def test_a_program_that_is_missing_is_named(bench: Bench) -> None:
    command = Command(argv=("/nowhere/at-all",))
    with pytest.raises(StartError, match=r"/nowhere/at-all: .*No such file"):
        await bench.start(Process(name="one", command=command, ready=None))


async def test_pid_files_of_a_killed_supervisor_are_forgotten(bench: Bench) -> None:
    (bench.folder / "old.pid").write_text("1\n")
    await bench.start(Process(name="one", command=python(SLEEPER), ready=at_once))
    assert not bench.runs("old")


def test_no_process_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys
from pathlib import Path
from infra.local.command import Command
from infra.local.supervisor import Process, Supervisor
async def at_once():
    return True
async def main():
    folder = Path({str(tmp_path)!r})
    command = Command((sys.executable, "-c", {SLEEPER!r}))
    processes = [Process(name=name, command=command, ready=at_once) for name in "ab"]
    supervisor = Supervisor(processes, run_dir=folder, log_dir=folder, work_dir=folder, report=print)
    await supervisor.start(seconds=10)
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=REPOSITORY
    ) as supervisor:
        assert supervisor.stdout is not None
        while supervisor.stdout.readline() != b"started\n":
            assert supervisor.poll() is None
        pids = [int((tmp_path / f"{name}.pid").read_text()) for name in "ab"]
        asyncio.run(until(lambda: all(program(pid) == [sys.executable, "-c", SLEEPER] for pid in pids)))
        supervisor.kill()
    asyncio.run(until(lambda: not any(alive(pid) for pid in pids), seconds=3))


def test_a_program_is_not_started_for_somebody_who_is_gone() -> None:
    argv = [sys.executable, "-I", "-S", launch.__file__, "1", "", sys.executable, "-c", "print('ran')"]
    assert subprocess.run(argv, check=True, capture_output=True).stdout == b""
