"""When windows open: pure, so by properties."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.window import next_tick
from core.errors import ConfigurationError

EPOCH = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)

moments = st.datetimes(
    min_value=datetime(2024, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds and adds the zone
    max_value=datetime(2035, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.just(UTC),
)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """One cron field: a star, a number, a range or a step, or a list of them."""
    number = st.integers(low, high)
    step = st.integers(1, high - low + 1)
    part = st.one_of(
        st.sampled_from(["*", "?"]),
        number.map(str),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.tuples(st.sampled_from("*?"), step).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    )
    return st.one_of(part, st.lists(number.map(str), min_size=1, max_size=4).map(",".join))


clock_fields = st.tuples(field(0, 59), field(0, 59), field(0, 23))


def allowed(text: str, low: int, high: int) -> set[int]:
    """The values that a field of :func:`field` stands for, read independently of the code under test."""
    values: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        lower, upper = (low, high) if first in "*?" else (int(first), int(last or first))
        values |= set(range(lower, upper + 1, int(step or 1)))
    return values


@given(fields=clock_fields, now=moments)
def test_a_cron_beat_is_the_first_matching_second_after_now(
    fields: tuple[str, str, str], now: datetime
) -> None:
    beat = next_tick(f"{' '.join(fields)} * * *", since=EPOCH, now=now)

    seconds, minutes, hours = (
        sorted(allowed(text, 0, high)) for text, high in zip(fields, (59, 59, 23), strict=True)
    )
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    candidates = (
        midnight + timedelta(days=day, hours=hour, minutes=minute, seconds=second)
        for day, hour, minute, second in product((0, 1), hours, minutes, seconds)
    )
    assert beat == next(candidate for candidate in candidates if candidate > now)


@given(days=field(1, 28), months=field(1, 12), now=moments)
def test_a_daily_cron_beat_falls_on_an_allowed_day_and_month(days: str, months: str, now: datetime) -> None:
    beat = next_tick(f"0 0 6 {days} {months} *", since=EPOCH, now=now)

    assert beat > now
    assert (beat.hour, beat.minute, beat.second, beat.microsecond) == (6, 0, 0, 0)
    assert beat.day in allowed(days, 1, 31)
    assert beat.month in allowed(months, 1, 12)


@given(now=moments)
def test_a_beat_on_the_second_leads_to_the_one_after_it(now: datetime) -> None:
    first = next_tick("0 */30 * * * *", since=EPOCH, now=now)
    second = next_tick("0 */30 * * * *", since=EPOCH, now=first)

    assert second - first == timedelta(minutes=30)


@pytest.mark.parametrize(
    ("alias", "beat"),
    [
        ("@hourly", datetime(2026, 3, 1, 13, tzinfo=UTC)),
        ("@daily", datetime(2026, 3, 2, tzinfo=UTC)),
        ("@midnight", datetime(2026, 3, 2, tzinfo=UTC)),
        ("@weekly", datetime(2026, 3, 8, tzinfo=UTC)),
        ("@monthly", datetime(2026, 4, 1, tzinfo=UTC)),
        ("@yearly", datetime(2027, 1, 1, tzinfo=UTC)),
        ("@annually", datetime(2027, 1, 1, tzinfo=UTC)),
        ("0 0 9 * * mon-FRI", datetime(2026, 3, 2, 9, tzinfo=UTC)),
        ("0 0 9 15 * MON", datetime(2026, 3, 2, 9, tzinfo=UTC)),
    ],
)
def test_aliases_and_names_are_read_as_the_broker_reads_them(alias: str, beat: datetime) -> None:
    assert next_tick(alias, since=EPOCH, now=EPOCH) == beat


@given(seconds=st.integers(1, 100_000), since=moments, waited=st.timedeltas(timedelta(0), timedelta(days=30)))
def test_an_interval_is_counted_in_whole_steps_from_the_schedule(
    seconds: int, since: datetime, waited: timedelta
) -> None:
    now = since + waited
    interval = timedelta(seconds=seconds)

    beat = next_tick(f"@every {seconds}s", since=since, now=now)

    assert now < beat <= now + interval + timedelta(milliseconds=500)
    assert abs((beat - since) % interval) <= timedelta(milliseconds=500) or (
        interval - (beat - since) % interval <= timedelta(milliseconds=500)
    )


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1.5m", 90), ("+2m", 120), ("1h", 3600), ("1500ms", 1.5), (".5h", 1800)],
)
def test_durations_are_read_as_go_writes_them(duration: str, seconds: float) -> None:
    beat = next_tick(f"@every {duration}", since=EPOCH, now=EPOCH)

    assert beat == EPOCH + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * * *",
        "0 */30 * * * * *",
        "61 * * * * *",
        "0 0 0 30 2 *",
        "0 0 0 L * *",
        "0 0 H * * *",
        "@reboot",
        "@at 2026-03-01T12:00:00Z",
        "@every",
        "@every 10",
        "@every 500ms",
        "@every -5m",
        "@every 5 m",
        "every 5m",
    ],
)
def test_what_the_broker_could_not_keep_is_a_configuration_error(expression: str) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        next_tick(expression, since=EPOCH, now=EPOCH)
