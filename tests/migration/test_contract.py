"""Processes of the last release and of this code at once: on the same tables, streams and messages."""

import copy
import json
from datetime import UTC
from typing import Any, Final

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.messages import (
    MAX_SEED,
    Control,
    Heartbeat,
    Job,
    Message,
    Outcome,
    Parameters,
    Progress,
    Speed,
    Started,
    StoredImage,
)
from core.settings import DatabaseSettings
from tests.migration.contract import MESSAGES, RELEASED, Contract, breaks, present

OLD: Final[Contract] = json.loads(RELEASED.read_text())

ACCEPTED: Final[dict[str, str]] = {}
"""Breaks of the contract, each with the reason why no process of the last release minds it."""

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_at = st.datetimes(timezones=st.just(UTC))
_counts = st.integers(0, 10**6)
_sizes = st.integers(1, 256).map(lambda eighth: 8 * eighth)
_above_zero = st.floats(min_value=1e-6, max_value=1e6)
_parameters = st.builds(
    Parameters,
    prompt=_text,
    negative_prompt=_text,
    model=_text,
    width=_sizes,
    height=_sizes,
    steps=st.integers(1, 150),
    guidance_scale=st.floats(0, 30),
    seed=st.integers(0, MAX_SEED),
    count=st.integers(1, 16),
    scheduler=st.sampled_from(Scheduler),
    format=st.sampled_from(ImageFormat),
)
_images = st.builds(
    StoredImage,
    key=_text,
    width=_sizes,
    height=_sizes,
    seed=st.integers(0, MAX_SEED),
    content_type=_text,
    byte_size=_counts,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
)
_speeds = st.builds(Speed, model=_text, megapixel_steps_per_second=_above_zero, seconds_per_step=_above_zero)
_words = st.none() | _text
_ends = {"id": st.uuids(), "worker": _text, "attempt": st.integers(1, 9), "request_id": _text}
messages: Final[st.SearchStrategy[Message]] = st.one_of(
    st.builds(
        Job,
        id=st.uuids(),
        tier=st.sampled_from(Tier),
        delivery=st.sampled_from(Delivery),
        parameters=_parameters,
        accepted_at=_at,
        deadline=st.none() | _at,
        request_id=_text,
    ),
    st.builds(Started, started_at=_at, **_ends),
    st.builds(
        Outcome,
        state=st.sampled_from(GenerationState),
        images=st.lists(_images, max_size=3).map(tuple),
        reason=_words,
        cause=_words,
        finished_at=_at,
        **_ends,
    ),
    st.builds(
        Progress,
        id=st.uuids(),
        state=st.sampled_from(GenerationState),
        step=_counts,
        total_steps=_counts,
        preview=_words,
    ),
    st.builds(
        Heartbeat,
        worker=_text,
        models=st.lists(_text, max_size=3).map(tuple),
        device=_text,
        slots=_counts,
        busy=_counts,
        images_per_second=st.floats(0, 1e6),
        speeds=st.lists(_speeds, max_size=2).map(tuple),
        tiers=st.lists(st.sampled_from(Tier)).map(tuple),
        jobs=st.lists(st.uuids(), max_size=3).map(tuple),
        started_at=_at,
        beat_at=_at,
    ),
    st.builds(Control, id=st.uuids(), action=st.sampled_from(["cancel", "preview"])),
)
unknown: Final = st.dictionaries(
    _text.map(lambda name: f"new {name}"), st.none() | st.booleans() | _text, max_size=2
)


async def test_a_process_of_the_last_release_works_on_the_present_tables_and_streams(
    database_settings: DatabaseSettings,
) -> None:
    new = await present(database_settings.database_url.get_secret_value())
    found = breaks(OLD, new)
    assert found == ACCEPTED.keys(), "processes of the last release mind this: see docs/migrations.md"
    assert new["migrations"][: len(OLD["migrations"])] == OLD["migrations"]


@pytest.mark.parametrize("kind", MESSAGES)
def test_what_the_last_release_writes_is_read(kind: type[Message]) -> None:
    written = OLD["examples"][kind.__name__]
    read = json.loads(kind.decode(json.dumps(written).encode()).encode())
    assert {name: read[name] for name in written} == written


_READERS: Final = {name: jsonschema_rs.validator_for(schema) for name, schema in OLD["messages"].items()}


@given(messages)
def test_the_last_release_reads_what_is_written(message: Message) -> None:
    _READERS[type(message).__name__].validate(json.loads(message.encode()))


@given(messages, st.data())
def test_fields_that_a_reader_does_not_know_change_nothing(message: Message, data: st.DataObject) -> None:
    def extended(value: Any) -> Any:
        if isinstance(value, dict):
            known = {name: extended(item) for name, item in value.items()}
            return {**data.draw(unknown), **known}
        return [extended(item) for item in value] if isinstance(value, list) else value

    written = json.dumps(extended(json.loads(message.encode()))).encode()
    assert type(message).decode(written) == message


@given(messages, st.data())
def test_fields_that_have_a_default_may_be_missing(message: Message, data: st.DataObject) -> None:
    fields = type(message).model_fields
    optional = sorted(name for name, field in fields.items() if not field.is_required())
    left_out = data.draw(st.sets(st.sampled_from(optional)))
    written = {name: value for name, value in json.loads(message.encode()).items() if name not in left_out}
    read = type(message).decode(json.dumps(written).encode())
    for name, field in fields.items():
        expected = field.get_default() if name in left_out else getattr(message, name)
        assert getattr(read, name) == expected


def test_only_what_was_there_from_the_first_is_required() -> None:
    for kind in MESSAGES:
        schema = OLD["messages"][kind.__name__]
        required = {name for name, field in kind.model_fields.items() if field.is_required()}
        assert required <= set(schema["required"])


def _without_column(new: Any) -> None:
    del new["tables"]["generation"]["columns"]["prompt"]


def _renamed_table(new: Any) -> None:
    new["tables"]["picture"] = new["tables"].pop("image")


def _changed_type(new: Any) -> None:
    new["tables"]["generation"]["columns"]["seed"]["type"] = "text"


def _not_null(new: Any) -> None:
    new["tables"]["generation"]["columns"]["cause"]["nullable"] = False


def _without_default(new: Any) -> None:
    new["tables"]["generation"]["columns"]["attempts"]["filled"] = False


def _new_and_required(new: Any) -> None:
    new["tables"]["generation"]["columns"]["mood"] = {"type": "text", "nullable": False, "filled": False}


def _newly_unique(new: Any) -> None:
    new["tables"]["generation"]["rules"].append("UNIQUE (seed)")


def _newly_checked(new: Any) -> None:
    new["tables"]["generation"]["rules"].append("CHECK ((steps > 4))")


def _another_kind_of_row(new: Any) -> None:
    new["values"]["Letter.kind"].append("happy_birthday")


def _other_subjects(new: Any) -> None:
    new["streams"]["RESULTS"]["subjects"] = ["outcomes.*"]


def _other_filter(new: Any) -> None:
    new["consumers"]["RESULTS.api"]["filter"] = "results.>"


def _not_sent_any_more(new: Any) -> None:
    del new["messages"]["Job"]["properties"]["parameters"]


def _has_to_be_sent(new: Any) -> None:
    new["messages"]["Started"]["properties"]["mood"] = {"type": "string"}
    new["messages"]["Started"]["required"].append("mood")


def _another_value(new: Any) -> None:
    new["messages"]["Job"]["$defs"]["Scheduler"]["enum"].append("A_NEW_ONE")


def _tighter_value(new: Any) -> None:
    new["messages"]["Job"]["$defs"]["Parameters"]["properties"]["width"]["multipleOf"] = 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_column, "column generation.prompt is gone"),
        (_renamed_table, "table image is gone"),
        (_changed_type, "column generation.seed is text and was"),
        (_not_null, "column generation.cause may not be null any more"),
        (_without_default, "column generation.attempts has no default any more"),
        (_new_and_required, "column generation.mood is new and has to be given"),
        (_newly_unique, "table generation has a new rule"),
        (_newly_checked, "table generation has a new rule"),
        (_another_kind_of_row, "rows may have happy_birthday in Letter.kind"),
        (_other_subjects, "stream RESULTS is"),
        (_other_filter, "consumer RESULTS.api is"),
        (_not_sent_any_more, "Job.parameters is not sent any more"),
        (_has_to_be_sent, "Started.mood is new and has no default"),
        (_another_value, "Job's Scheduler takes other values"),
        (_tighter_value, "Job's Parameters.width takes other values"),
    ],
)
def test_what_would_break_a_process_is_found(change: Any, said: str) -> None:
    new = copy.deepcopy(dict(OLD))
    change(new)
    [found] = breaks(OLD, new)
    assert found.startswith(said)


def test_what_a_release_may_add_is_no_break() -> None:
    new = copy.deepcopy(dict(OLD))
    columns = new["tables"]["generation"]["columns"]
    columns["mood"] = {"type": "text", "nullable": True, "filled": False}
    columns["tries"] = {"type": "int4", "nullable": False, "filled": True}
    new["tables"]["generation"]["rules"].append("UNIQUE (mood)")
    new["tables"]["mood"] = {"columns": {}, "rules": []}
    new["streams"]["MOODS"] = {"subjects": ["moods.*"]}
    new["messages"]["Job"]["properties"]["mood"] = {"default": "sunny", "type": "string"}
    new["messages"]["Mood"] = {"properties": {}}
    assert breaks(OLD, new) == set()
