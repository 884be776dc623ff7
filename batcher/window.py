"""When windows open. Pure: no clock, no I/O.

Expressions are read exactly as the broker reads them, so that what customers are told is when it ticks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from typing import Final

from core.errors import ConfigurationError

_EVERY: Final = "@every "

_ALIASES: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}

_HORIZON: Final = 5 * 366
"""Days after which an expression counts as one that never comes round, such as 30 February."""

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # the micro sign
    "μs": 1e-6,  # the Greek letter
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_QUANTITY: Final = rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})"


@dataclass(frozen=True, slots=True)
class _Unit:
    """A field of a cron expression: its range and the names that may stand for numbers."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)


def _named(names: str, *, start: int) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), start)}


_CRON: Final = (
    _Unit("second", 0, 59),
    _Unit("minute", 0, 59),
    _Unit("hour", 0, 23),
    _Unit("day", 1, 31),
    _Unit("month", 1, 12, _named("jan feb mar apr may jun jul aug sep oct nov dec", start=1)),
    _Unit("weekday", 0, 6, _named("sun mon tue wed thu fri sat", start=0)),
)


def next_tick(expression: str, *, since: datetime, now: datetime) -> datetime:
    """The first beat after ``now`` of a NATS schedule expression, in UTC.

    Args:
        expression: six cron fields, seconds first; an alias such as ``@hourly``; or ``@every`` and a duration
            as Go writes them (``90s``, ``1h30m``) of a second or more.
        since: when the broker stored the schedule: intervals count from there.
        now: the moment to look from.

    Raises:
        ConfigurationError: not such an expression, or one that does not come round within five years.
    """
    try:
        if expression.startswith(_EVERY):
            return _next_interval(expression.removeprefix(_EVERY), since=since, now=now)
        return _next_cron(_ALIASES.get(expression, expression), now=now)
    except ValueError as error:
        raise ConfigurationError(f"window {expression!r}: {error}") from error


def _next_interval(duration: str, *, since: datetime, now: datetime) -> datetime:
    seconds = _seconds(duration)
    first = _nearest_second(since) + timedelta(seconds=seconds)
    if first > now:
        return first
    # The broker rounds each beat to a second before it adds the interval to it.
    period = timedelta(seconds=int(seconds + 0.5))
    return first + period * ((now - first) // period + 1)


def _seconds(duration: str) -> float:
    if not re.fullmatch(rf"\+?(?:{_QUANTITY})+", duration):
        raise ValueError("not a duration such as 90s or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_QUANTITY, duration))
    if seconds < 1:
        raise ValueError("shorter than a second")
    return seconds


def _nearest_second(moment: datetime) -> datetime:
    return (moment + timedelta(milliseconds=500)).replace(microsecond=0)


def _next_cron(expression: str, *, now: datetime) -> datetime:
    texts = expression.split()
    if len(texts) != len(_CRON):
        raise ValueError(f"{len(texts)} fields, wants {len(_CRON)}: second minute hour day month weekday")
    values = [_values(text, unit) for text, unit in zip(texts, _CRON, strict=True)]
    seconds, minutes, hours, days, months, weekdays = (frozenset(found) for found in values)
    either_day = not (_starred(texts[3]) or _starred(texts[5]))

    def matches(day: date) -> bool:
        on_day, on_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        fits = on_day or on_weekday if either_day else on_day and on_weekday
        return fits and day.month in months

    start = (now + timedelta(seconds=1)).astimezone(UTC).replace(microsecond=0)
    for day in (start.date() + timedelta(days=offset) for offset in range(_HORIZON)):
        if not matches(day):
            continue
        earliest = start.time() if day == start.date() else time.min
        late_enough = sorted(hour for hour in hours if hour >= earliest.hour)
        for hour, minute, second in product(late_enough, sorted(minutes), sorted(seconds)):
            if (moment := time(hour, minute, second)) >= earliest:
                return datetime.combine(day, moment, tzinfo=UTC)
    raise ValueError("does not come round within five years")


def _starred(text: str) -> bool:
    """Whether a day field restricts nothing: only if both days and weekdays do is one of them enough."""
    return any(re.fullmatch(r"[*?](/1)?", part) for part in text.split(","))


def _values(text: str, unit: _Unit) -> set[int]:
    """What a field such as ``1,10-20/5,*/15`` stands for."""
    values: set[int] = set()
    for part in text.split(","):
        parsed = re.fullmatch(r"([*?]|[0-9a-z]+)(?:-([0-9a-z]+))?(?:/([0-9]+))?", part, re.IGNORECASE)
        if parsed is None:
            raise ValueError(f"{part!r} is not a {unit.name}")
        first, last, step = parsed.groups()
        if first in "*?":
            low, high = unit.low, unit.high
        else:
            low = _number(first, unit)
            # A single number with a step begins a range that goes on to the end.
            high = _number(last, unit) if last else unit.high if step else low
        if not (unit.low <= low <= high <= unit.high and int(step or 1) > 0):
            raise ValueError(f"{part!r} is not within {unit.low}-{unit.high} for a {unit.name}")
        values.update(range(low, high + 1, int(step or 1)))
    return values


def _number(text: str, unit: _Unit) -> int:
    named = unit.names.get(text.lower())
    return int(text) if named is None else named
