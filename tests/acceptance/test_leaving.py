"""What is left of a customer in rows, objects and logs, once the account or the pictures' time is over."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from dotenv import dotenv_values
from gql.transport.exceptions import TransportQueryError

from tests.stack import PASSWORD, SMALL, Customer, Stack, download

pytestmark = pytest.mark.acceptance

PROMPT = "a lighthouse that only one customer asks for"


@pytest.fixture
async def leaver(stack: Stack, normal: Customer, darkroom: Callable[..., str]) -> Customer:
    """Somebody new, with premium time."""
    darkroom("account", "grant-premium", normal.email, "--days", "1")
    return normal


async def fetch(stack: Stack, statement: str, *values: object) -> list[str]:
    """The first column of what a statement gives, as an operator could send it."""
    connection = await asyncpg.connect(dotenv_values(stack.home / "operator.env")["DARKROOM_DATABASE_URL"])
    try:
        return [str(row[0]) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def rows(stack: Stack) -> str:
    """Every value of every row, as text."""
    tables = await fetch(stack, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    found = [
        row
        for table in tables
        for row in await fetch(stack, f'SELECT t::text FROM "{table}" AS t')  # noqa: S608 - its own tables
    ]
    return "\n".join(found)


def objects_of(stack: Stack, generation_ids: list[str]) -> list[Path]:
    """The pictures of generations, by their keys."""
    folders = [stack.home / "objects" / "generations" / key for key in generation_ids]
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


async def until(check: Callable[[], Awaitable[bool]], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not await check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)


async def keys_of(stack: Stack, prompt: str) -> list[str]:
    return await fetch(stack, "SELECT id FROM generation WHERE prompt = $1", prompt)


async def test_after_deletion_no_file_and_no_row_tells_of_the_customer(
    stack: Stack, leaver: Customer
) -> None:
    done = await leaver.generate(prompt=PROMPT, count=2, **SMALL)
    image = (await leaver.watch_to_end(done))[-1]["generation"]["images"][0]
    assert (await download(image["url"])).status_code == 200
    # One that a worker is in the middle of.
    await leaver.generate(prompt=PROMPT, count=4, steps=50)
    keys = await keys_of(stack, PROMPT)
    assert len(objects_of(stack, keys)) >= 2

    document = """
    mutation ($password: String!) { deleteAccount(input: { password: $password }) { __typename } }
    """
    answer = await leaver.execute(document, password=PASSWORD)

    assert answer["deleteAccount"]["__typename"] == "AccountDeleted"
    assert (await leaver.execute("{ me { id } }"))["me"] is None
    with pytest.raises(TransportQueryError):
        await leaver.generate(prompt=PROMPT)
    await stack.letter(leaver.email, "account_deleted")

    async def nothing_is_left() -> bool:
        text = await rows(stack)
        return PROMPT not in text and leaver.email not in text and not objects_of(stack, keys)

    await until(nothing_is_left)
    # Nor does anything come back from the worker that was at it.
    await asyncio.sleep(5)
    assert await nothing_is_left()
    assert (await download(image["url"])).status_code == 404
    for log in (stack.home / "logs").glob("*.log"):
        if log.name != "postgres.log":
            assert PROMPT not in log.read_text(errors="replace"), log
    kinds = {letter["X-Darkroom-Letter"] for letter in stack.letters(leaver.email, "account_deleted")}
    assert kinds == {"account_deleted"}


@pytest.mark.timeout(240)
async def test_a_batcher_that_is_killed_meanwhile_goes_on_with_the_deletion(
    stack: Stack, leaver: Customer, darkroom: Callable[..., str]
) -> None:
    prompt = f"{PROMPT}, once more"
    await leaver.watch_to_end(await leaver.generate(prompt=prompt, count=2, **SMALL))
    keys = await keys_of(stack, prompt)
    assert len(objects_of(stack, keys)) == 2

    darkroom("account", "delete", leaver.email, "--yes")
    for _ in range(3):
        # The supervisor may not have started the next one yet.
        with contextlib.suppress(ProcessLookupError):
            os.kill(stack.pid("batcher"), signal.SIGKILL)
        await asyncio.sleep(1.5)

    async def nothing_is_left() -> bool:
        text = await rows(stack)
        return prompt not in text and leaver.email not in text and not objects_of(stack, keys)

    # What a killed one had claimed is free again after a minute or two.
    await until(nothing_is_left, seconds=200)


async def test_a_deleted_address_can_sign_up_again(
    stack: Stack, normal: Customer, darkroom: Callable[..., str]
) -> None:
    assert "closed" in darkroom("account", "delete", normal.email, "--yes")
    document = """
    mutation ($email: String!, $password: String!) {
      signup(input: { email: $email, password: $password }) { __typename }
    }
    """
    await normal.execute(document, email=normal.email, password=PASSWORD)
    letter = await stack.letter(normal.email, "verify_email", after=1)
    body = letter.get_body(("plain",))
    assert body is not None
    token = body.get_content().split("/verify?token=")[1].split()[0]
    document = "mutation ($token: String!) { verifyEmail(token: $token) { __typename } }"
    assert (await normal.execute(document, token=token))["verifyEmail"]["__typename"] == "Account"
    assert (await normal.sign_in()).token


async def test_after_its_time_a_generation_is_unknown_and_its_pictures_are_gone(
    stack: Stack, leaver: Customer
) -> None:
    prompt = f"{PROMPT}, long ago"
    generation_id = await leaver.generate(prompt=prompt, **SMALL)
    image = (await leaver.watch_to_end(generation_id))[-1]["generation"]["images"][0]
    keys = await keys_of(stack, prompt)
    document = "query ($id: ID!) { generation(id: $id) { expiresAt } }"
    assert (await leaver.execute(document, id=generation_id))["generation"]["expiresAt"]
    await fetch(
        stack,
        "UPDATE generation SET created_at = created_at - interval '31 days', "
        "finished_at = finished_at - interval '31 days' WHERE prompt = $1",
        prompt,
    )

    async def nothing_is_left() -> bool:
        return prompt not in await rows(stack) and not objects_of(stack, keys)

    await until(nothing_is_left, seconds=90)
    assert (await leaver.execute(document, id=generation_id))["generation"] is None
    assert (await download(image["url"])).status_code == 404
