"""Gathers what a run has left: rows, objects, letters, logs."""

import asyncio
import email
import json
import mailbox
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from email.parser import BytesHeaderParser
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.lifecycle import GenerationState
from core.messages import Parameters
from tests.faults.clients import Clients
from tests.faults.invariants import History, LetterRow, Pixels, Received, Row, Stored
from tests.faults.service import Customer, Service

_LOOK_SECONDS: Final = 0.5
_ENDED: Final = [state.value for state in GenerationState if state.terminal]
_ROWS: Final = """
SELECT id, idempotency_key, state, window_id, account_id FROM generation WHERE account_id = ANY($1::uuid[])
"""
_LETTERS: Final = """
SELECT message_id, kind, parameters, account_id, state FROM letter WHERE account_id = ANY($1::uuid[])
"""
_PICTURES: Final = """
SELECT generation_id, index, key, sha256 FROM image
WHERE generation_id IN (SELECT id FROM generation WHERE account_id = ANY($1::uuid[]))
"""
_OPEN: Final = """
SELECT (SELECT count(*) FROM generation WHERE account_id = ANY($1::uuid[]) AND state <> ALL($2)) +
       (SELECT count(*) FROM letter WHERE account_id = ANY($1::uuid[]) AND state IN ('PENDING', 'CLAIMED'))
"""


class Observer:
    """Looks at the database again and again, past every link, and notes each end that it sees."""

    def __init__(self, service: Service, customers: Sequence[Customer]) -> None:
        self.ends: list[tuple[str, GenerationState]] = []
        self._service = service
        self._accounts = [UUID(customer.id) for customer in customers]
        self._seen: set[tuple[str, str]] = set()

    async def look_on(self, stop: asyncio.Event) -> None:
        """Look until told to stop."""
        while not stop.is_set():
            await self._look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)

    async def until_settled(self, *, seconds: float) -> int:
        """Wait until nothing is open and no letter is due; returns how much is left when the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = await _asked_of(self._service, _OPEN, self._accounts, _ENDED)
            open_ones = int(left[0][0])
            if open_ones == 0 or loop.time() > deadline:
                return open_ones
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        query = "SELECT id, state FROM generation WHERE account_id = ANY($1::uuid[]) AND state = ANY($2)"
        # PostgreSQL may be the one that is away.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            for row in await _asked_of(self._service, query, self._accounts, _ENDED):
                seen = (str(row["id"]), row["state"])
                if seen not in self._seen:
                    self._seen.add(seen)
                    self.ends.append((seen[0], GenerationState(seen[1])))


async def gather(
    service: Service, clients: Clients, observer: Observer, *, alone: Callable[[Parameters], Pixels]
) -> History:
    """Everything that there is to know of these clients."""
    accounts = [UUID(customer.id) for customer in clients.customers]
    rows = [
        Row(
            id=str(row["id"]),
            key=row["idempotency_key"],
            state=GenerationState(row["state"]),
            window=str(row["window_id"]) if row["window_id"] else None,
            account=str(row["account_id"]),
        )
        for row in await _asked_of(service, _ROWS, accounts)
    ]
    objects = service.home / "objects"
    pictures = []
    for row in await _asked_of(service, _PICTURES, accounts):
        path = objects / row["key"]
        pictures.append(
            Stored(
                generation=str(row["generation_id"]),
                index=row["index"],
                sha256=row["sha256"],
                data=path.read_bytes() if path.exists() else None,
            )
        )
    return History(
        asked=list(clients.journal.values()),
        rows=rows,
        pictures=pictures,
        letters=[_letter(row, rows) for row in await _asked_of(service, _LETTERS, accounts)],
        received=list(await asyncio.to_thread(lambda: list(_received(service, clients.customers)))),
        ends=observer.ends,
        recorded=await asyncio.to_thread(_recorded, service, {row.id for row in rows}),
        alone=alone,
    )


async def _asked_of(service: Service, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(service.database_url, timeout=5)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *values, timeout=20)
        return found
    finally:
        await connection.close(timeout=5)


def _letter(letter: asyncpg.Record, rows: Sequence[Row]) -> LetterRow:
    about = json.loads(letter["parameters"])
    if "window_id" in about:
        told = {
            row.id
            for row in rows
            if (row.window, row.account) == (about["window_id"], str(letter["account_id"]))
            and row.state is not GenerationState.CANCELED
        }
    else:
        told = {about["generation_id"]} if "generation_id" in about else set()
    return LetterRow(message_id=letter["message_id"], about=frozenset(told))


def _received(service: Service, customers: Sequence[Customer]) -> Iterable[Received]:
    addresses = {customer.email for customer in customers}
    box = mailbox.Maildir(service.home / "mail", create=False)
    for key in box.keys():  # noqa: SIM118 - a mailbox is iterated by its letters
        data = box.get_bytes(key)
        # The heading first: the others' letters are many, and reading a whole one takes long.
        if BytesHeaderParser().parsebytes(data)["To"] not in addresses:
            continue
        letter = email.message_from_bytes(data)
        files = [
            part.get_payload(decode=True)
            for part in letter.walk()
            if part.get_content_disposition() == "attachment"
        ]
        yield Received(
            message_id=str(letter["Message-ID"]).strip(),
            to=str(letter["To"]),
            pictures=tuple(file for file in files if isinstance(file, bytes)),
        )


def _recorded(service: Service, generations: set[str]) -> Counter[str]:
    """How often each was recorded, as the recorders say in their logs."""
    found: Counter[str] = Counter()
    for process in ("api", "batcher"):
        for node in service.replicas(process):
            found.update(line["generation"] for line in node.lines("outcome_recorded"))
    return Counter({name: times for name, times in found.items() if name in generations})
