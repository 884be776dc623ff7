"""What is deleted, when, and that nothing is left of it, whatever dies half-way."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY
from tortoise import connections

from batcher.retention import BATCH, Retention
from core.accounts.closing import close_account
from core.accounts.erasing import AccountEraser
from core.clock import now
from core.errors import ServiceUnavailableError
from core.lifecycle import GenerationState, Tier
from core.messages import Outcome, StoredImage
from core.models import (
    Account,
    AccountDeletion,
    EmailToken,
    Erasure,
    Generation,
    Image,
    Letter,
    LetterKind,
    LetterState,
    Purchase,
    RefreshToken,
    SessionFamily,
    TokenPurpose,
    Window,
    WindowState,
)
from core.outbox import JobOutbox, write_letter
from core.queue import Lane, Queue, topology
from core.recording import Recorder
from core.repository import accounts, erasures
from core.repository.database import database as open_database
from core.settings import BrokerSettings, DatabaseSettings, RetentionSettings
from core.storage import Storage

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]
Succeed = Callable[[Generation], Awaitable[None]]

EMAIL = "gone@example.org"
PROMPT = "a very private garden"


@pytest.fixture
def retention(queue: Queue, storage: Storage) -> Retention:
    return Retention(
        storage=storage,
        eraser=AccountEraser(recorder=Recorder(queue=queue), outbox=JobOutbox(queue=queue)),
        settings=RetentionSettings(keep_normal_days=30, keep_premium_days=60),
    )


@pytest.fixture
def objects(tmp_path: Path) -> Callable[[], list[str]]:
    """The keys of what is in the object store."""
    folder = tmp_path / "objects"
    return lambda: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def age(*generations: Generation, days: float) -> None:
    moment = now() - timedelta(days=days)
    await Generation.filter(id__in=[each.id for each in generations]).update(
        created_at=moment - timedelta(minutes=5), finished_at=moment
    )


async def everything() -> str:
    """Every value of every row, as text."""
    client = connections.get("default")
    tables = await client.execute_query_dict("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [
        str(row["row"])
        for table in tables
        for row in await client.execute_query_dict(f'SELECT t::text AS row FROM "{table["tablename"]}" AS t')  # noqa: S608 - the catalogue's own names
    ]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("tier", "days", "kept"),
    [(Tier.NORMAL, 29, True), (Tier.NORMAL, 31, False), (Tier.PREMIUM, 59, True), (Tier.PREMIUM, 61, False)],
)
async def test_generations_go_with_their_pictures_when_their_tiers_time_is_over(
    retention: Retention,
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
    tier: Tier,
    days: int,
    kept: bool,
) -> None:
    generation = await new_generation(await new_account(), tier=tier, count=2, prompt=PROMPT)
    await succeed(generation)
    await Letter.all().delete()
    await age(generation, days=days)

    assert await retention.expire() == (0 if kept else 1)
    await retention.erase_objects()

    assert await Generation.all().exists() is kept
    assert await Image.all().count() == (2 if kept else 0)
    assert len(objects()) == (2 if kept else 0)
    assert (PROMPT in await everything()) is kept
    assert not await Erasure.all().exists()


async def test_what_has_not_ended_stays_however_old_it_is(
    retention: Retention, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    generation = await new_generation(await new_account())
    await Generation.all().update(created_at=now() - timedelta(days=400))
    assert await retention.expire() == 0
    assert await Generation.exists(id=generation.id)


async def test_many_go_in_bounded_steps_and_several_replicas_share_them(
    retention: Retention, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    one = await new_generation(account, state=GenerationState.FAILED)
    fields = {name: getattr(one, name) for name in Generation._meta.db_fields if name != "id"}
    await Generation.bulk_create([Generation(id=uuid4(), **fields) for _ in range(BATCH + 10)])
    await Generation.all().update(
        created_at=now() - timedelta(days=40), finished_at=now() - timedelta(days=40)
    )

    shares = await asyncio.gather(retention.expire(), retention.expire())

    assert sum(shares) <= BATCH + 11
    assert max(shares) == BATCH
    while await retention.expire():
        pass
    assert not await Generation.all().exists()
    assert await Erasure.all().count() == BATCH + 11


async def test_a_store_that_does_not_answer_is_asked_again(
    retention: Retention,
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
    monkeypatch: Any,
    storage: Storage,
) -> None:
    generation = await new_generation(await new_account())
    await succeed(generation)
    await age(generation, days=31)
    await retention.expire()

    async def refuse(prefix: str, *, keep: object) -> int:
        raise ServiceUnavailableError("object store: out")

    with monkeypatch.context() as broken:
        broken.setattr(storage, "delete_under", refuse)
        assert await retention.erase_objects() == 1
    # As after a crash: the folder is somebody's until the lease ends, and then anybody's.
    assert await retention.erase_objects() == 0
    assert len(objects()) == 1
    await Erasure.all().update(due_at=now())
    assert await retention.erase_objects() == 1
    assert objects() == []
    assert not await Erasure.all().exists()


async def test_what_was_stored_and_never_reported_goes_after_an_hour_and_what_was_recorded_stays(
    retention: Retention,
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
    storage: Storage,
) -> None:
    generation = await new_generation(await new_account(), attempts=2)
    await succeed(generation)
    recorded = objects()
    # Its first worker died between the upload and the report.
    await storage.put(f"generations/{generation.id}/1-aa/0.png", b"-", content_type="image/png")
    assert await retention.erase_objects() == 0
    assert len(objects()) == 2
    await Erasure.all().update(due_at=now())
    assert await retention.erase_objects() == 1
    assert objects() == recorded
    # Looked at once more, when nobody can have anything left to put there.
    erasure = await Erasure.get()
    assert timedelta(hours=23) < erasure.due_at - now() < timedelta(hours=25)
    await Erasure.all().update(due_at=now(), until=now())
    assert await retention.erase_objects() == 1
    assert objects() == recorded
    assert not await Erasure.all().exists()


async def test_a_generation_that_is_deleted_takes_its_recorded_pictures_along_whatever_was_noted_before(
    retention: Retention,
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
) -> None:
    generation = await new_generation(await new_account(), attempts=2)
    await succeed(generation)
    noted = await Erasure.get()
    await age(generation, days=31)
    await retention.expire()
    # Somebody was just about to spare them.
    await erasures.settle(noted, now=noted.until)
    assert await retention.erase_objects() == 1
    assert objects() == []


async def test_emptying_a_folder_leaves_the_neighbours_alone_and_no_empty_folders(
    storage: Storage, objects: Callable[[], list[str]], tmp_path: Path
) -> None:
    for key in ("generations/a/1/0.png", "generations/a/2/0.png", "generations/ab/1/0.png"):
        await storage.put(key, b"-", content_type="image/png")
    assert await storage.delete_under("generations/a/") == 2
    assert await storage.delete_under("generations/a/") == 0
    assert objects() == ["generations/ab/1/0.png"]
    assert not (tmp_path / "objects/generations/a").exists()


def outcome(generation: Generation, *, attempt: str, worker: str = "w1") -> Outcome:
    image = StoredImage(
        key=f"generations/{generation.id}/{attempt}/0.png",
        width=64,
        height=64,
        seed=1,
        content_type="image/png",
        byte_size=1,
        sha256="0" * 64,
    )
    return Outcome(
        id=generation.id,
        worker=worker,
        attempt=1,
        state=GenerationState.SUCCEEDED,
        images=(image,),
        finished_at=now(),
    )


async def settled(queue: Queue, *outcomes: Outcome) -> None:
    """Records what a worker reports, as the batcher does."""
    consumer = queue.consumer(topology.NORMAL_RESULTS)
    recorder = Recorder(queue=queue)
    for one in outcomes:
        await queue.publish_result(Tier.NORMAL, one)
    for message in await consumer.fetch(len(outcomes), wait=2):
        await recorder._settle(message)


async def test_pictures_of_an_attempt_that_came_too_late_go_and_recorded_ones_stay(
    queue: Queue,
    storage: Storage,
    retention: Retention,
    new_account: NewAccount,
    new_generation: NewGeneration,
    objects: Callable[[], list[str]],
) -> None:
    generation = await new_generation(await new_account())
    first, twin = outcome(generation, attempt="1-a"), outcome(generation, attempt="2-b", worker="w2")
    for one in (first, twin):
        await storage.put(one.images[0].key, b"-", content_type="image/png")
    # The first comes a second time as well, as after a lost acknowledgement; the broker would know its name.
    again = first.model_copy(update={"worker": "w3"})
    await settled(queue, first, twin, again)
    await retention.erase_objects()
    assert objects() == [first.images[0].key]


async def test_a_worker_speaks_for_no_generation_but_its_own(
    queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    mine, other = [await new_generation(await new_account()) for _ in range(2)]
    forged = outcome(mine, attempt="1").model_copy(update={"images": outcome(other, attempt="1").images})
    await Generation.filter(id=mine.id).delete()
    await settled(queue, forged)
    assert not await Erasure.all().exists()


@pytest.fixture
def send_letters(
    new_postman: Callable[..., Any], delivered: Callable[[], list[EmailMessage]]
) -> Callable[[], Awaitable[list[EmailMessage]]]:
    """Sends every letter that is due, and reads all that have arrived."""

    async def run() -> list[EmailMessage]:
        stop = asyncio.Event()
        running = asyncio.create_task(new_postman().run(stop=stop))
        async with asyncio.timeout(10):
            while await Letter.filter(state__in=[LetterState.PENDING, LetterState.CLAIMED]).exists():  # noqa: ASYNC110 - the database has no event
                await asyncio.sleep(0.05)
        stop.set()
        await running
        return delivered()

    return run


@pytest.fixture
async def customer(new_account: NewAccount) -> Account:
    """Somebody with everything that an account can have, but for generations."""
    account = await new_account(EMAIL, premium_until=now() + timedelta(days=9))
    family = await accounts.open_session(account, token_hash="r", expires_at=now() + timedelta(days=1))
    assert family.id
    await EmailToken.create(
        hash="e", account=account, purpose=TokenPurpose.RESET_PASSWORD, expires_at=now() + timedelta(hours=1)
    )
    await Purchase.create(
        account=account, source="voucher", reference="voucher:1", days=9, starts_at=now(), ends_at=now()
    )
    await write_letter(account.id, LetterKind.RESET_PASSWORD)
    return account


async def work_off(retention: Retention) -> None:
    await retention._eraser.erase_closed()
    await retention.erase_objects()


async def test_of_a_deleted_account_nothing_is_left_but_an_anonymous_purchase(
    queue: Queue,
    retention: Retention,
    customer: Account,
    new_account: NewAccount,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
    send_letters: Callable[[], Awaitable[list[EmailMessage]]],
) -> None:
    neighbour = await new_generation(await new_account("stays@example.org"), prompt="another garden")
    await succeed(neighbour)
    done = await new_generation(customer, prompt=PROMPT, idempotency_key="k")
    await succeed(done)
    waiting = await new_generation(customer, prompt=PROMPT)
    running = await new_generation(customer, prompt=PROMPT, tier=Tier.PREMIUM)
    outbox = JobOutbox(queue=queue)
    for one in (waiting, running):
        await outbox.publish(one)
    await Recorder(queue=queue).start(running.id, at=now())
    assert PROMPT in await everything()

    await close_account(customer.id)

    assert await SessionFamily.filter(ended_at=None).count() == 0
    assert not await EmailToken.all().exists()
    text = await everything()
    assert text.count(EMAIL) == 1  # in the farewell
    await work_off(retention)
    letters = await send_letters()

    assert [key.split("/")[1] for key in objects()] == [str(neighbour.id)]
    for lane, generation in ((Lane.NORMAL, waiting), (Lane.PREMIUM, running)):
        assert not await queue.position_of(lane, generation.id)
    assert [account.email for account in await Account.all()] == ["stays@example.org"]
    text = await everything()
    assert PROMPT not in text
    assert EMAIL not in text
    assert str(customer.id) not in text
    kept = await Purchase.get()
    assert (kept.account_id, kept.reference, kept.days) == (None, "voucher:1", 9)
    to_customer = [letter for letter in letters if letter["To"] == EMAIL]
    assert [letter["X-Darkroom-Letter"] for letter in to_customer] == ["account_deleted"]


async def test_a_picture_that_is_made_while_its_account_goes_leaves_nothing(
    queue: Queue,
    storage: Storage,
    retention: Retention,
    customer: Account,
    new_generation: NewGeneration,
    objects: Callable[[], list[str]],
) -> None:
    generation = await new_generation(customer)
    await close_account(customer.id)
    await work_off(retention)
    assert not await Generation.all().exists()

    reported, silent = outcome(generation, attempt="1-a"), outcome(generation, attempt="2-b")
    for one in (reported, silent):
        await storage.put(one.images[0].key, b"-", content_type="image/png")
    await settled(queue, reported)
    await retention.erase_objects()
    assert objects() == [silent.images[0].key]

    # The worker that stored this one died before it could say so: a day later nobody can be at work.
    kept = await Erasure.get()
    assert timedelta(hours=23) < kept.due_at - now() < timedelta(hours=25)
    await Erasure.all().update(due_at=now(), until=now())
    await retention.erase_objects()
    assert objects() == []
    assert not await Erasure.all().exists()


async def test_a_deletion_goes_on_after_a_death_at_any_step(
    queue: Queue,
    broker_settings: BrokerSettings,
    retention: Retention,
    customer: Account,
    new_generation: NewGeneration,
    succeed: Succeed,
    objects: Callable[[], list[str]],
    monkeypatch: Any,
) -> None:
    await succeed(await new_generation(customer))
    waiting = await new_generation(customer)
    await JobOutbox(queue=queue).publish(waiting)
    await close_account(customer.id)

    async def die(*_: Any, **__: Any) -> Any:
        raise ServiceUnavailableError("broker: out")

    steps: list[tuple[Any, str]] = [
        (queue, "purge_job"),
        (erasures, "discard_of"),
        (accounts, "delete"),
    ]
    for where, step in steps:
        with monkeypatch.context() as broken:
            broken.setattr(where, step, die)
            with pytest.raises(ServiceUnavailableError):
                await retention._eraser.erase_closed()
        assert await Account.exists(id=customer.id)
        assert await retention._eraser.erase_closed() == 0
        await AccountDeletion.all().update(due_at=now())
    await work_off(retention)

    assert not await Account.all().exists()
    assert not await queue.position_of(Lane.NORMAL, waiting.id)
    assert objects() == []


async def test_a_request_under_way_when_the_account_closes_does_not_outlive_it(
    retention: Retention, customer: Account, new_generation: NewGeneration, monkeypatch: Any
) -> None:
    await close_account(customer.id)
    genuine = erasures.discard_of

    async def and_one_comes(account_id: Any, **rest: Any) -> int:
        count = await genuine(account_id, **rest)
        if not await Generation.all().exists():
            await new_generation(customer)
        return count

    with monkeypatch.context() as busy:
        busy.setattr(erasures, "discard_of", and_one_comes)
        await retention._eraser.erase_closed()
    assert await Account.exists(id=customer.id)
    await AccountDeletion.all().update(due_at=now())
    await retention._eraser.erase_closed()
    assert not await Account.all().exists()


async def test_a_purchase_outlives_even_the_row_of_its_account(customer: Account) -> None:
    await Account.filter(id=customer.id).delete()
    assert (await Purchase.get()).account_id is None
    assert not await Letter.all().exists()


async def test_a_letter_for_nobody_is_dropped_unsent(
    customer: Account, send_letters: Callable[[], Awaitable[list[EmailMessage]]]
) -> None:
    await Letter.all().update(account_id=None)
    assert await send_letters() == []
    assert not await Letter.all().exists()


def days(number: float) -> datetime:
    return now() + timedelta(days=number)


async def test_mailed_tokens_go_when_they_were_used_or_have_expired(
    retention: Retention, new_account: NewAccount
) -> None:
    account = await new_account()
    for name, expires_at, used_at in (
        ("live", days(1), None),
        ("used", days(1), now()),
        ("expired", days(-1), None),
    ):
        await EmailToken.create(
            hash=name,
            account=account,
            purpose=TokenPurpose.VERIFY_EMAIL,
            expires_at=expires_at,
            used_at=used_at,
        )
    await retention.sweep()
    assert [token.hash for token in await EmailToken.all()] == ["live"]


async def test_sessions_go_when_they_were_ended_or_have_no_token_and_take_theirs_along(
    retention: Retention, new_account: NewAccount
) -> None:
    account = await new_account()
    live, ended, stale = [await SessionFamily.create(account=account) for _ in range(3)]
    await SessionFamily.filter(id=ended.id).update(ended_at=days(-0.1))
    for name, family, expires_at in (
        ("newest", live, days(1)),
        ("rotated", live, days(0.5)),
        ("over", live, days(-1)),
        ("of an ended one", ended, days(1)),
        ("of a stale one", stale, days(-1)),
    ):
        await RefreshToken.create(hash=name, family=family, expires_at=expires_at)
    await retention.sweep()
    assert sorted(token.hash for token in await RefreshToken.all()) == ["newest", "rotated"]
    assert [family.id for family in await SessionFamily.all()] == [live.id]


async def test_letters_go_when_they_have_left_or_were_given_up_long_ago(
    retention: Retention, new_account: NewAccount
) -> None:
    account = await new_account()
    for name, state, at in (
        ("old", LetterState.SENT, days(-40)),
        ("old and given up", LetterState.FAILED, days(-40)),
        ("old and waiting", LetterState.PENDING, days(-40)),
        ("new", LetterState.SENT, days(-1)),
    ):
        letter = await Letter.create(
            account=account, kind=LetterKind.ADDRESS_TAKEN, message_id=name, state=state
        )
        await Letter.filter(id=letter.id).update(created_at=at, due_at=at)
    await retention.sweep()
    assert sorted(letter.message_id for letter in await Letter.all()) == ["new", "old and waiting"]


async def test_accounts_go_that_nobody_has_verified_and_nobody_still_can(
    retention: Retention, new_account: NewAccount
) -> None:
    await new_account("verified@example.org")
    for name in ("fresh", "linked", "never"):
        await new_account(f"{name}@example.org", email_verified_at=None)
    linked = await Account.get(email="linked@example.org")
    await EmailToken.create(
        hash="linked", account=linked, purpose=TokenPurpose.VERIFY_EMAIL, expires_at=days(1)
    )
    await Account.exclude(email="fresh@example.org").update(created_at=days(-8))
    await retention.sweep()
    assert {account.email.split("@")[0] for account in await Account.all()} == {"verified", "fresh", "linked"}


@pytest.mark.usefixtures("database")
async def test_windows_go_when_they_were_finished_long_ago(retention: Retention) -> None:
    over = days(-31)
    await Window.create(tick_at=over, deadline=over, state=WindowState.FINISHED, finished_at=over)
    await Window.create(tick_at=days(-32), deadline=over, state=WindowState.RUNNING)
    await retention.sweep()
    assert [window.state for window in await Window.all()] == [WindowState.RUNNING]


async def test_a_table_that_cannot_be_swept_does_not_keep_the_others(
    retention: Retention, database_settings: DatabaseSettings
) -> None:
    labels = {"table": "email_token"}
    before = REGISTRY.get_sample_value("darkroom_sweeps_postponed_total", labels) or 0
    over = days(-31)
    other = await asyncpg.connect(database_settings.database_url.get_secret_value())
    async with open_database(database_settings.model_copy(update={"database_timeout_seconds": 0.5})):
        await Window.create(tick_at=over, deadline=over, state=WindowState.FINISHED, finished_at=over)
        async with other.transaction():
            await other.execute("LOCK TABLE email_token")
            await retention.sweep()
        assert not await Window.all().exists()
    await other.close()
    assert REGISTRY.get_sample_value("darkroom_sweeps_postponed_total", labels) == before + 1


async def test_it_runs_until_it_is_told_to_stop_and_survives_an_absent_store(
    retention: Retention, customer: Account, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "objects", ignore_errors=True)
    await close_account(customer.id)
    stop = asyncio.Event()
    running = asyncio.create_task(retention.run(stop=stop))
    async with asyncio.timeout(10):
        while await Account.all().exists():  # noqa: ASYNC110 - the database has no event
            await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(running, 5)
