"""A checker that cannot fail is worth nothing: here every violation is planted, and has to be found."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler
from core.messages import Parameters
from gpu_worker.images import encode
from tests.faults.invariants import (
    TOLERANCE,
    Asked,
    History,
    LetterRow,
    Pixels,
    Received,
    Row,
    Stored,
    repeated,
    violations,
)

SUCCEEDED, FAILED, CANCELED = GenerationState.SUCCEEDED, GenerationState.FAILED, GenerationState.CANCELED


def parameters_of(key: str, *, seed: int, count: int = 1) -> Parameters:
    return Parameters(
        prompt="a red fox",
        negative_prompt=key,
        model="tiny",
        width=8,
        height=8,
        steps=1,
        guidance_scale=1,
        seed=seed,
        count=count,
        scheduler=Scheduler.DDIM,
    )


def pixels_of(parameters: Parameters) -> Pixels:
    """What the model would make of it: here a surface of one colour."""
    return np.full((8, 8, 3), 40 + parameters.seed, dtype=np.uint8)


def file_of(parameters: Parameters, index: int = 0, *, brighter: int = 0) -> bytes:
    own = parameters.model_copy(update={"seed": parameters.seed_of(index)})
    picture = Image.fromarray(pixels_of(own) + np.uint8(brighter))
    return encode(picture, format=ImageFormat.PNG, parameters=parameters, index=index)


def stored(parameters: Parameters, generation: str, index: int = 0) -> Stored:
    data = file_of(parameters, index)
    return Stored(generation=generation, index=index, sha256=hashlib.sha256(data).hexdigest(), data=data)


@pytest.fixture
def history() -> History:
    """Nothing is wrong: two pictures by e-mail in a window, one downloaded, one failed, one unheard of."""
    mailed, loaded, failed, unheard = (
        parameters_of(key, seed=seed, count=count)
        for key, seed, count in (("k1", 1, 2), ("k2", 5, 1), ("k3", 7, 1), ("k4", 9, 1))
    )
    common: dict[str, Any] = {"delivery": Delivery.EMAIL, "email": "one@example.org"}
    return History(
        asked=[
            Asked(key="k1", parameters=mailed, generation="g1", told=SUCCEEDED, **common),
            Asked(
                key="k2",
                parameters=loaded,
                generation="g2",
                told=SUCCEEDED,
                email="two@example.org",
                delivery=Delivery.DOWNLOAD,
            ),
            Asked(key="k3", parameters=failed, generation="g3", told=FAILED, **common),
            Asked(key="k4", parameters=unheard, generation=None, **common),
        ],
        rows=[
            Row(id="g1", key="k1", state=SUCCEEDED, window="w", account="a1"),
            Row(id="g2", key="k2", state=SUCCEEDED, window=None, account="a2"),
            Row(id="g3", key="k3", state=FAILED, window="w", account="a1"),
        ],
        pictures=[stored(mailed, "g1", 0), stored(mailed, "g1", 1), stored(loaded, "g2")],
        letters=[LetterRow(message_id="<l1>", about=frozenset({"g1", "g3"}))],
        received=[
            Received(
                message_id="<l1>", to="one@example.org", pictures=(file_of(mailed, 0), file_of(mailed, 1))
            )
        ],
        ends=[("g1", SUCCEEDED), ("g2", SUCCEEDED), ("g3", FAILED), ("g1", SUCCEEDED)],
        recorded={"g1": 1, "g2": 1, "g3": 1},
        alone=pixels_of,
    )


Plant = Callable[[History], History]


def _rows(history: History, index: int, **changes: Any) -> History:
    rows = list(history.rows)
    rows[index] = replace(rows[index], **changes)
    return replace(history, rows=rows)


def _asked(history: History, index: int, **changes: Any) -> History:
    asked = list(history.asked)
    asked[index] = replace(asked[index], **changes)
    return replace(history, asked=asked)


def _pictures(history: History, index: int, **changes: Any) -> History:
    pictures = list(history.pictures)
    pictures[index] = replace(pictures[index], **changes)
    return replace(history, pictures=pictures)


def _file(history: History, data: bytes) -> History:
    return _pictures(history, 2, data=data, sha256=hashlib.sha256(data).hexdigest())


def _received(history: History, **changes: Any) -> History:
    return replace(history, received=[replace(history.received[0], **changes)])


OTHER = parameters_of("k2", seed=15)
ASKED = parameters_of("k2", seed=5)

PLANTED: list[tuple[str, str, Plant]] = [
    ("accepted and gone", "k2", lambda h: replace(h, rows=[h.rows[0], h.rows[2]], pictures=h.pictures[:2])),
    ("accepted and never ended", "k3", lambda h: _rows(h, 2, state=GenerationState.RUNNING)),
    (
        "accepted and never ended",
        "k4",
        lambda h: replace(
            h,
            rows=[*h.rows, Row(id="g4", key="k4", state=GenerationState.QUEUED, window=None, account="a1")],
        ),
    ),
    ("ended and not told", "k1", lambda h: _asked(h, 0, told=None)),
    ("ended and not told", "k2", lambda h: _asked(h, 1, told=GenerationState.RUNNING)),
    ("terminal state changed", "g1", lambda h: replace(h, ends=[("g1", FAILED), *h.ends])),
    ("terminal state changed", "g3", lambda h: replace(h, ends=[("g3", CANCELED)])),
    ("recorded twice", "g2", lambda h: replace(h, recorded={**h.recorded, "g2": 2})),
    (
        "accepted twice",
        "k2",
        lambda h: replace(h, rows=[*h.rows, replace(h.rows[1], id="g9", state=FAILED)]),
    ),
    ("not in exactly one letter", "k1", lambda h: replace(h, letters=[])),
    (
        "not in exactly one letter",
        "k3",
        lambda h: replace(h, letters=[*h.letters, LetterRow(message_id="<l2>", about=frozenset({"g3"}))]),
    ),
    ("letter never arrived", "k1", lambda h: replace(h, received=[])),
    ("letter to somebody else", "k1", lambda h: _received(h, to="two@example.org")),
    ("pictures not in the letter", "k1", lambda h: _received(h, pictures=h.received[0].pictures[:1])),
    ("letter repeated", "<l1>", lambda h: replace(h, received=[*h.received, *h.received])),
    ("number of pictures", "k1", lambda h: replace(h, pictures=h.pictures[1:])),
    ("picture missing", "k2/0", lambda h: _pictures(h, 2, data=None)),
    ("picture differs from its hash", "k2/0", lambda h: _pictures(h, 2, sha256="0" * 64)),
    ("picture unreadable", "k2/0", lambda h: _file(h, file_of(ASKED)[:60])),
    ("picture unreadable", "k2/0", lambda h: _file(h, b"")),
    ("picture of other parameters", "k2/0", lambda h: _file(h, file_of(parameters_of("k9", seed=5)))),
    (
        "picture differs from the one made alone",
        "k2/0",
        lambda h: _file(h, file_of(ASKED, brighter=TOLERANCE + 1)),
    ),
    ("nobody asked for it", "k9", lambda h: _rows(h, 1, key="k9")),
]


def test_a_history_without_faults_has_no_violation(history: History) -> None:
    assert violations(history) == []


@pytest.mark.parametrize(
    ("promise", "subject", "plant"),
    PLANTED,
    ids=[f"{promise} ({subject})" for promise, subject, _ in PLANTED],
)
def test_a_planted_violation_is_found(history: History, promise: str, subject: str, plant: Plant) -> None:
    found = violations(plant(history))
    assert (promise, subject) in {(violation.promise, violation.subject) for violation in found}, found


def test_a_picture_of_another_seed_is_found_twice(history: History) -> None:
    found = violations(_file(history, file_of(OTHER)))
    assert [violation.promise for violation in found] == [
        "picture differs from the one made alone",
        "picture of other parameters",
    ]


def test_rounding_is_no_violation(history: History) -> None:
    assert violations(_file(history, file_of(ASKED, brighter=TOLERANCE))) == []


def test_one_repetition_is_allowed_where_it_was_made_and_no_second(history: History) -> None:
    twice = replace(history, received=[*history.received, *history.received])
    assert repeated(twice) == {"<l1>": 1}
    assert violations(twice, repetitions=1) == []
    thrice = replace(history, received=[*twice.received, *history.received])
    assert [violation.promise for violation in violations(thrice, repetitions=1)] == ["letter repeated"]


def test_what_a_customer_canceled_needs_no_letter(history: History) -> None:
    canceled = _asked(_rows(history, 2, state=CANCELED), 2, told=CANCELED)
    letters = [LetterRow(message_id="<l1>", about=frozenset({"g1"}))]
    assert violations(replace(canceled, letters=letters, ends=[])) == []
