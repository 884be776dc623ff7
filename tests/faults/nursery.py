"""Starts lives of one of our processes without their imports, which take longer than everything else.

``python -m tests.faults.nursery MODULE`` imports ``MODULE.__main__`` once and forks each life from there: the
process is as real as one from ``python -m MODULE``, is killed like it, and is ready in a second. Each line
that it reads is an order, ``{"env": …, "log": path}``; it answers ``{"pid": …}`` and, when that life has
ended, ``{"pid": …, "status": …}``, below 0 for a signal. It ends its lives and itself when its input ends.
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
from typing import NoReturn


def _tell(**words: int) -> None:
    os.write(1, f"{json.dumps(words)}\n".encode())


def _live(module: str, env: dict[str, str], log: str) -> NoReturn:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(env)
    status = 1
    try:
        status = importlib.import_module(f"{module}.__main__").main()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _bury(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    _tell(pid=pid, status=os.waitstatus_to_exitcode(status))


def main(module: str) -> None:
    """Fork a life for every order."""
    importlib.import_module(f"{module}.__main__")
    gc.freeze()
    lives: list[int] = []
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(module, order["env"], order["log"])
        lives.append(pid)
        _tell(pid=pid)
        threading.Thread(target=_bury, args=(pid,), daemon=True).start()
    for pid in lives:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main(sys.argv[1])
