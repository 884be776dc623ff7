"""Named places in the code at which a test has the process die, stop, hang or fail.

A process is armed once, when it starts, from ``DARKROOM_FAILPOINTS``: ``outcome.before_record=kill:3`` has it
kill itself the third time that it comes to this place. Several are separated by commas. Without the variable
passing a place is one look into an empty table.
"""

import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn
from urllib.parse import urlsplit

import structlog

from core.errors import ConfigurationError, ServiceUnavailableError

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_CHARGE: Final = re.compile(r"(?P<point>[a-z_.]+)=(?P<action>[a-z]+)(?::(?P<passes>[1-9][0-9]*))?")

log = structlog.get_logger(__name__)


class Failpoint(StrEnum):
    """Every such place, by what stands on its two sides."""

    JOB_BEFORE_PUBLISH = "job.before_publish"
    """The generation is committed, its job is not published."""
    JOB_AFTER_PUBLISH = "job.after_publish"
    """The job is published, its row is not marked."""
    RELAY_BEFORE_MARK = "relay.before_mark"
    """What was left behind is published, its rows are not marked."""
    TICK_BEFORE_STEP = "tick.before_step"
    """The pictures of a tick are chosen, and have not taken their step; on the engine's thread."""
    PICTURE_BEFORE_UPLOAD = "picture.before_upload"
    """The picture is made, and nowhere but in the worker."""
    PICTURE_AFTER_UPLOAD = "picture.after_upload"
    """The picture is stored, and nobody knows of it."""
    OUTCOME_BEFORE_PUBLISH = "outcome.before_publish"
    """Every picture of the job is stored."""
    OUTCOME_AFTER_PUBLISH = "outcome.after_publish"
    """The outcome is reported, the job is not acknowledged."""
    JOB_AFTER_ACK = "job.after_ack"
    """The job is off the queue."""
    OUTCOME_BEFORE_RECORD = "outcome.before_record"
    """The recorder holds the outcome."""
    OUTCOME_BEFORE_COMMIT = "outcome.before_commit"
    """Everything that follows from it is written and not committed."""
    OUTCOME_AFTER_RECORD = "outcome.after_record"
    """It is committed; nobody was told, and it is not acknowledged."""
    OUTCOME_BEFORE_ACK = "outcome.before_ack"
    """Subscribers were told; it is not acknowledged."""
    WINDOW_BEFORE_OPEN = "window.before_open"
    """The beat and its jobs are fetched; no window holds them."""
    WINDOW_AFTER_OPEN = "window.after_open"
    """The window is committed; none of its jobs is released."""
    WINDOW_MID_RELEASE = "window.mid_release"
    """A part of its jobs is with the workers, and not marked."""
    WINDOW_BEFORE_SETTLE = "window.before_settle"
    """All are with the workers; the beat and the waiting jobs are not acknowledged."""
    LETTER_AFTER_CLAIM = "letter.after_claim"
    """The letter is claimed and not sent."""
    LETTER_AFTER_ACCEPT = "letter.after_accept"
    """The mail server has said 250, and the row is not marked: the letter will leave a second time."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hang() -> None:
    threading.Event().wait()


def _fail() -> NoReturn:
    raise ServiceUnavailableError("a failpoint says so")


_ACTIONS: Final[dict[str, Callable[[], None]]] = {
    "kill": _kill,
    "stop": _stop,
    "hang": _hang,
    "fail": _fail,
}
"""SIGKILL and SIGSTOP to the process itself, a thread that waits for ever, and a ServiceUnavailableError."""


@dataclass(slots=True)
class _Charge:
    """What happens when a place is passed so many more times."""

    action: str
    passes: int


_armed: dict[Failpoint, _Charge] = {}


def reach(point: Failpoint) -> None:
    """Pass a place. Nothing happens in a process that is not armed.

    Raises:
        ServiceUnavailableError: the place was armed to fail.
    """
    if not _armed:
        return
    charge = _armed.get(point)
    if charge is None:
        return
    charge.passes -= 1
    if charge.passes == 0:
        del _armed[point]
        log.warning("failpoint_reached", point=point.value, action=charge.action)
        _ACTIONS[charge.action]()


def arm(text: str | None, *, nats_url: str) -> None:
    """Arm this process, or disarm it without a text.

    Args:
        text: ``point=action`` or ``point=action:passes``, separated by commas.
        nats_url: the broker's address. A process whose broker is not on this machine is never armed: no
            production has that.

    Raises:
        ConfigurationError: no such point or action, or a broker elsewhere.
    """
    _armed.clear()
    if not text:
        return
    if not {urlsplit(address.strip()).hostname for address in nats_url.split(",")} <= _LOOPBACK:
        raise ConfigurationError(
            "DARKROOM_FAILPOINTS is for tests with a broker on this machine, and this one is elsewhere"
        )
    charges = dict(_charge(part.strip()) for part in text.split(","))
    _armed.update(charges)
    log.warning("failpoints_armed", points=text)


def _charge(text: str) -> tuple[Failpoint, _Charge]:
    parsed = _CHARGE.fullmatch(text)
    if parsed is None:
        raise ConfigurationError(f"DARKROOM_FAILPOINTS: {text!r} is not point=action or point=action:passes")
    point, action = parsed["point"], parsed["action"]
    if point not in list(Failpoint):
        raise ConfigurationError(f"DARKROOM_FAILPOINTS: no point {point!r}; there is {', '.join(Failpoint)}")
    if action not in _ACTIONS:
        raise ConfigurationError(f"DARKROOM_FAILPOINTS: no action {action!r}; there is {', '.join(_ACTIONS)}")
    return Failpoint(point), _Charge(action, int(parsed["passes"] or 1))
