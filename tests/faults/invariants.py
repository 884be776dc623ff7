"""What has to hold of a history, whatever faults it had: the promises of ``docs/reliability.md``.

Nothing here asks a server: a history is evidence that was gathered before, so that a test can plant a
violation of each kind.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import InvalidMessageError
from core.lifecycle import Delivery, GenerationState
from core.messages import Parameters
from gpu_worker.images import read_parameters

TOLERANCE: Final = 2
"""Most by which a value of a picture, 0 to 255, may differ from that of the picture made alone."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request of a client, as the client noted it.

    Attributes:
        key: its idempotency key, which stands in the negative prompt as well and so in each of its pictures.
        generation: the id that the answer named, or none when no answer came however often it was asked.
        told: the state that the api last told its owner, or none.
    """

    key: str
    email: str
    parameters: Parameters
    delivery: Delivery
    generation: str | None
    told: GenerationState | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A generation as the database has it at the end."""

    id: str
    key: str
    state: GenerationState
    window: str | None
    account: str


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A recorded picture and what lies under its key, or none."""

    generation: str
    index: int
    sha256: str
    data: bytes | None


@dataclass(frozen=True, kw_only=True)
class LetterRow:
    """A letter as the database has it; ``about`` are the generations that it tells of."""

    message_id: str
    about: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A letter in somebody's mailbox, and the pictures attached to it."""

    message_id: str
    to: str
    pictures: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """All evidence of one run.

    Attributes:
        ends: every terminal state that an observer has seen in the database, in the order of seeing.
        recorded: how often a recorder said that it had recorded an end.
        alone: the picture of a request made alone, by its parameters with the seed of one picture.
    """

    asked: Sequence[Asked]
    rows: Sequence[Row]
    pictures: Sequence[Stored]
    letters: Sequence[LetterRow]
    received: Sequence[Received]
    ends: Sequence[tuple[str, GenerationState]]
    recorded: Mapping[str, int]
    alone: Callable[[Parameters], Pixels]


@dataclass(frozen=True, order=True)
class Violation:
    """A promise that was broken, and of what."""

    promise: str
    subject: str
    detail: str = field(compare=False)


def repeated(history: History) -> dict[str, int]:
    """Letters that arrived more than once, with how often too often: what only a crash of one kind may do."""
    arrivals = Counter(letter.message_id for letter in history.received)
    return {message_id: times - 1 for message_id, times in arrivals.items() if times > 1}


def violations(history: History, *, repetitions: int = 0) -> list[Violation]:
    """Every broken promise.

    Args:
        history: what happened.
        repetitions: how many letters may have arrived once more, because a crash or a cut lay between the
            mail server's 250 and the mark.
    """
    found = [
        *_lost(history),
        *_recorded_twice(history),
        *_letters(history),
        *_pictures(history),
        *_strangers(history),
    ]
    again = repeated(history)
    if sum(again.values()) > repetitions:
        found.append(Violation("letter repeated", ", ".join(sorted(again)), f"only {repetitions} may be"))
    return sorted(found)


def _lost(history: History) -> Iterator[Violation]:
    """Accepted means done or told."""
    rows = {row.id: row for row in history.rows}
    for asked in history.asked:
        if asked.generation is None:
            continue
        row = rows.get(asked.generation)
        if row is None:
            yield Violation("accepted and gone", asked.key, f"{asked.generation} has no row")
        elif not row.state.terminal:
            yield Violation("accepted and never ended", asked.key, f"{row.id} is {row.state}")
        elif asked.told is not row.state:
            yield Violation("ended and not told", asked.key, f"{row.id} is {row.state}, told {asked.told}")
    # What a client never heard of was accepted all the same if its row is there.
    known = {asked.generation for asked in history.asked}
    for row in history.rows:
        if row.id not in known and not row.state.terminal:
            yield Violation("accepted and never ended", row.key, f"{row.id} is {row.state}")


def _recorded_twice(history: History) -> Iterator[Violation]:
    """The first terminal result stands."""
    states: dict[str, GenerationState] = {}
    for generation, state in history.ends:
        first = states.setdefault(generation, state)
        if first is not state:
            yield Violation("terminal state changed", generation, f"{first} became {state}")
    for row in history.rows:
        if row.id in states and states[row.id] is not row.state:
            yield Violation("terminal state changed", row.id, f"{states[row.id]} became {row.state}")
    for generation, times in history.recorded.items():
        if times > 1:
            yield Violation("recorded twice", generation, f"{times} times")
    keys = Counter(row.key for row in history.rows)
    for key, times in keys.items():
        if times > 1:
            yield Violation("accepted twice", key, f"{times} generations")


def _letters(history: History) -> Iterator[Violation]:
    """Each e-mailed generation is in exactly one letter, which arrived, with its pictures, at its owner's."""
    asked_by_key = {asked.key: asked for asked in history.asked}
    written = defaultdict(list)
    for letter in history.letters:
        for generation in letter.about:
            written[generation].append(letter.message_id)
    received = {letter.message_id: _Opened.of(letter) for letter in history.received}
    for row in history.rows:
        asked = asked_by_key.get(row.key)
        if asked is None or asked.delivery is Delivery.DOWNLOAD or row.state is GenerationState.CANCELED:
            continue
        letters = written[row.id]
        if row.state.terminal and len(letters) != 1:
            yield Violation("not in exactly one letter", row.key, f"in {len(letters)}: {letters}")
            continue
        for message_id in letters:
            yield from _arrival(row, asked, message_id, received.get(message_id))
    yield from _misdirected(history, received.values())


@dataclass(frozen=True)
class _Opened:
    """A letter, and how many pictures of each request it carries."""

    to: str
    carried: Counter[str | None]

    @classmethod
    def of(cls, letter: Received) -> Self:
        return cls(letter.to, Counter(_key_in(data) for data in letter.pictures))


def _arrival(row: Row, asked: Asked, message_id: str, letter: _Opened | None) -> Iterator[Violation]:
    if letter is None:
        yield Violation("letter never arrived", row.key, message_id)
        return
    if letter.to != asked.email:
        yield Violation("letter to somebody else", row.key, letter.to)
    carried = letter.carried[row.key]
    due = asked.parameters.count if row.state is GenerationState.SUCCEEDED else 0
    if carried != due:
        yield Violation("pictures not in the letter", row.key, f"{carried} of {due}")


def _misdirected(history: History, letters: Iterable[_Opened]) -> Iterator[Violation]:
    """Nobody gets a picture of somebody else's, whatever the rows say."""
    owners = {asked.key: asked.email for asked in history.asked}
    for letter in letters:
        for key in letter.carried:
            if key is not None and owners.get(key, letter.to) != letter.to:
                yield Violation("letter to somebody else", key, letter.to)


def _pictures(history: History) -> Iterator[Violation]:
    """Every picture is readable, is what its row says, and what was asked for."""
    asked_by_key = {asked.key: asked for asked in history.asked}
    keys = {row.id: row.key for row in history.rows}
    recorded = Counter(picture.generation for picture in history.pictures)
    for row in history.rows:
        asked = asked_by_key.get(row.key)
        due = asked.parameters.count if asked and row.state is GenerationState.SUCCEEDED else 0
        if asked and recorded[row.id] != due:
            yield Violation("number of pictures", row.key, f"{recorded[row.id]} of {due}")
    for picture in history.pictures:
        key = keys[picture.generation]
        if key in asked_by_key:
            yield from _picture(picture, asked_by_key[key], history.alone)


def _picture(picture: Stored, asked: Asked, alone: Callable[[Parameters], Pixels]) -> Iterator[Violation]:
    subject = f"{asked.key}/{picture.index}"
    if picture.data is None:
        yield Violation("picture missing", subject, picture.generation)
        return
    if hashlib.sha256(picture.data).hexdigest() != picture.sha256:
        yield Violation("picture differs from its hash", subject, picture.generation)
    own = asked.parameters.model_copy(update={"seed": asked.parameters.seed_of(picture.index), "count": 1})
    try:
        inside = Parameters.model_validate(read_parameters(picture.data))
        pixels = np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB"))
    except (InvalidMessageError, OSError, ValueError, SyntaxError) as error:
        yield Violation("picture unreadable", subject, repr(error))
        return
    if inside != own:
        yield Violation("picture of other parameters", subject, f"{inside} instead of {own}")
    reference = alone(own)
    if pixels.shape != reference.shape or int(_difference(pixels, reference).max()) > TOLERANCE:
        yield Violation("picture differs from the one made alone", subject, f"seed {own.seed}")


def _strangers(history: History) -> Iterator[Violation]:
    keys = {asked.key for asked in history.asked}
    for row in history.rows:
        if row.key not in keys:
            yield Violation("nobody asked for it", row.key, row.id)


def _difference(one: Pixels, other: Pixels) -> NDArray[np.int16]:
    difference: NDArray[np.int16] = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return difference


def _key_in(data: bytes) -> str | None:
    """Whose picture this is: what it says of its own negative prompt."""
    try:
        return str(read_parameters(data).get("negative_prompt"))
    except InvalidMessageError:
        return None
