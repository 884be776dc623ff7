"""Log lines, as a process writes them."""

import json
import subprocess
import sys

PROGRAM = """
import logging, os, sys, structlog
from core import telemetry
from core.settings import TelemetrySettings

telemetry.configure(TelemetrySettings(log_level="INFO", log_format="json"), process="test")
log = structlog.get_logger("api.middleware")
if sys.argv[1:] == ["unread"]:
    os.close(2)
with structlog.contextvars.bound_contextvars(request_id="r1"):
    log.info("request", status=200)
    log.debug("nobody asked for this")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    logging.getLogger("library").warning("of a %s", "library")
print("went on")
"""


def written(*arguments: str) -> tuple[list[dict[str, object]], str]:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in process.stderr.splitlines()], process.stdout


def test_our_lines_and_the_libraries_have_one_form() -> None:
    request, failed, library = written()[0]
    shared = {"process": "test", "request_id": "r1", "timestamp": request["timestamp"]}
    expected = {"event": "request", "status": 200, "level": "info", "logger": "api.middleware"}
    assert request == shared | expected
    assert (failed["event"], failed["level"], failed["logger"]) == ("failed", "error", "api.middleware")
    assert "ZeroDivisionError" in str(failed["exception"])
    assert (library["event"], library["level"], library["logger"]) == ("of a library", "warning", "library")
    assert library["request_id"] == "r1"


def test_a_log_that_nobody_takes_stops_nothing() -> None:
    assert written("unread") == ([], "went on\n")
