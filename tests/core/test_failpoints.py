import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import failpoints
from core.errors import ConfigurationError, ServiceUnavailableError
from core.failpoints import Failpoint, reach

HERE = "nats://127.0.0.1:4222"
PROGRAM = """
import sys
from core import failpoints
failpoints.arm(sys.argv[1], nats_url="nats://localhost")
for _ in range(3):
    failpoints.reach(failpoints.Failpoint.OUTCOME_BEFORE_ACK)
    print("passed", flush=True)
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm(None, nats_url=HERE)


def test_nothing_happens_without_being_armed() -> None:
    for point in Failpoint:
        reach(point)


def test_a_point_fails_at_the_pass_that_was_named_and_only_then() -> None:
    failpoints.arm("outcome.before_ack=fail:2", nats_url=HERE)
    reach(Failpoint.OUTCOME_BEFORE_ACK)
    reach(Failpoint.OUTCOME_AFTER_RECORD)
    with pytest.raises(ServiceUnavailableError):
        reach(Failpoint.OUTCOME_BEFORE_ACK)
    reach(Failpoint.OUTCOME_BEFORE_ACK)


def test_several_points_are_armed_with_commas_between() -> None:
    failpoints.arm("outcome.before_ack=fail, job.after_ack=fail", nats_url=HERE)
    for point in (Failpoint.JOB_AFTER_ACK, Failpoint.OUTCOME_BEFORE_ACK):
        with pytest.raises(ServiceUnavailableError):
            reach(point)


def test_killing_is_a_real_sigkill_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "outcome.before_ack=kill:2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.count("passed\n") == 1
    assert "outcome.before_ack" in done.stdout + done.stderr


def test_stopping_is_a_real_sigstop_from_which_the_process_goes_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "outcome.before_ack=stop"], stdout=subprocess.PIPE, text=True
    )
    status = Path(f"/proc/{process.pid}/stat")
    deadline = time.monotonic() + 30
    while status.read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGCONT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.splitlines()[-3:] == ["passed"] * 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("outcome.before_ack", "not point=action"),
        ("outcome.before_ack=kill:0", "not point=action"),
        ("outcome.before_tea=kill", "no point 'outcome.before_tea'; there is job.before_publish"),
        ("outcome.before_ack=sing", "no action 'sing'; there is kill, stop, hang, fail"),
    ],
)
def test_what_is_not_a_failpoint_is_refused_with_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        failpoints.arm(text, nats_url=HERE)


@pytest.mark.parametrize(
    "nats_url", ["nats://nats.production:4222", "nats://127.0.0.1:4222,nats://10.0.0.7:4222", "nats"]
)
def test_no_process_is_armed_whose_broker_is_elsewhere(nats_url: str) -> None:
    with pytest.raises(ConfigurationError, match="DARKROOM_FAILPOINTS is for tests"):
        failpoints.arm("outcome.before_ack=kill", nats_url=nats_url)
    reach(Failpoint.OUTCOME_BEFORE_ACK)
