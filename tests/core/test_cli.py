import os
import subprocess
import sysconfig
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from core.accounts.closing import close_account
from core.clock import now
from core.lifecycle import GenerationState, Tier
from core.models import Account, Generation, Letter, LetterKind, LetterState, Purchase
from core.outbox import write_letter
from core.queue import Lane, Queue
from core.recording import Recorder
from core.repository import generations, windows
from core.repository.accounts import note_bounce
from core.repository.database import in_transaction
from core.settings import BrokerSettings, DatabaseSettings, TokenSettings
from tests import command_line

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

DARKROOM = Path(sysconfig.get_path("scripts")) / "darkroom"


@pytest.fixture
def environment(
    database: DatabaseSettings,
    broker_settings: BrokerSettings,
    token_settings: TokenSettings,
    tmp_path: Path,
) -> dict[str, str]:
    assert broker_settings.nats_user
    assert broker_settings.nats_password
    return {
        "PATH": os.environ["PATH"],
        # Not what `make up` has left in the working folder.
        "DARKROOM_HOME": str(tmp_path),
        "DARKROOM_DATABASE_URL": database.database_url.get_secret_value(),
        "DARKROOM_NATS_URL": broker_settings.nats_url,
        "DARKROOM_NATS_USER": broker_settings.nats_user,
        "DARKROOM_NATS_PASSWORD": broker_settings.nats_password.get_secret_value(),
        "DARKROOM_JWT_SECRET": token_settings.jwt_secret.get_secret_value(),
        "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper.get_secret_value(),
        "DARKROOM_BCRYPT_ROUNDS": "4",
        "MY_PASSWORD": "correct horse battery staple",
    }


def darkroom(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return command_line.darkroom(*words, environment=environment, folder=Path(environment["DARKROOM_HOME"]))


def installed(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """As :func:`darkroom`, in a process of its own."""
    return subprocess.run(
        [str(DARKROOM), *words], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


async def test_an_operator_makes_an_account_premium_and_looks_at_it(environment: dict[str, str]) -> None:
    made = darkroom(environment, "account", "ensure", "a@example.org", "--password-env", "MY_PASSWORD")
    assert made.returncode == 0, made.stderr
    again = darkroom(
        environment,
        "account",
        "ensure",
        "a@example.org",
        "--password-env",
        "MY_PASSWORD",
        "--premium-days",
        "9",
    )
    assert again.returncode == 0, again.stderr
    granted = darkroom(environment, "account", "grant-premium", "a@example.org", "--days", "30")
    assert granted.returncode == 0, granted.stderr
    shown = darkroom(environment, "account", "show", "A@example.org").stdout
    assert "PREMIUM" in shown
    account = await Account.get()
    assert account.premium_until is not None
    assert f"premium until  {account.premium_until:%Y-%m-%d %H:%M:%S} UTC\n" in shown
    assert f"created        {account.created_at:%Y-%m-%d %H:%M:%S} UTC\n" in shown
    letters = darkroom(environment, "letter", "list").stdout
    assert letters.count("premium_started") == 2
    none = darkroom(environment, "job", "list")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "There are no such generations.\n")


async def test_an_operator_takes_a_purchase_back(
    environment: dict[str, str], new_account: NewAccount
) -> None:
    await new_account("a@example.org")
    for days in ("30", "7"):
        darkroom(environment, "account", "grant-premium", "a@example.org", "--days", days)
    month, week = await Purchase.all().order_by("starts_at")
    shown = darkroom(environment, "account", "show", "a@example.org").stdout
    assert shown.index(f"{month.id}  30 days") < shown.index(f"{week.id}  7 days")

    revoked = darkroom(environment, "purchase", "revoke", str(month.id))
    assert revoked.returncode == 0, revoked.stderr
    until = (await Account.get()).premium_until
    assert until is not None
    assert f"{until:%Y-%m-%d %H:%M:%S} UTC" in revoked.stdout
    assert abs(until - now() - timedelta(days=7)) < timedelta(minutes=1)
    shown = darkroom(environment, "account", "show", "a@example.org").stdout
    [line] = [line for line in shown.splitlines() if str(month.id) in line]
    assert line.endswith("revoked")

    again = darkroom(environment, "purchase", "revoke", str(month.id))
    assert (again.returncode, again.stdout) == (1, "")
    assert "no purchase" in again.stderr


async def test_an_operator_deletes_an_account(environment: dict[str, str]) -> None:
    darkroom(environment, "account", "ensure", "a@example.org", "--password-env", "MY_PASSWORD")
    asked = darkroom(environment, "account", "delete", "a@example.org")
    assert (asked.returncode, await Account.filter(email="a@example.org").count()) == (1, 1)
    deleted = darkroom(environment, "account", "delete", "A@example.org", "--yes")
    assert deleted.returncode == 0, deleted.stderr
    assert "there is no account" in darkroom(environment, "account", "show", "a@example.org").stderr
    assert darkroom(environment, "letter", "list").stdout.split()[-3:] == [
        "account_deleted",
        "0",
        "a@example.org",
    ]


async def test_an_operator_looks_for_letters_and_sends_failed_ones_again(
    environment: dict[str, str], new_account: NewAccount
) -> None:
    ada, bob = await new_account("ada@example.org"), await new_account("bob@example.org")
    for account in (ada, bob):
        for kind in (LetterKind.ADDRESS_TAKEN, LetterKind.PREMIUM_STARTED):
            await write_letter(account.id, kind)
    await Letter.filter(account_id=ada.id).update(state=LetterState.FAILED, error="550 nobody", attempts=1)
    await note_bounce(ada.id, at=now(), reason="550 nobody")

    wanted = ("--account", "Ada@example.org", "--state", "FAILED", "--kind", "address_taken")
    listed = darkroom(environment, "letter", "list", *wanted)
    assert listed.returncode == 0, listed.stderr
    headings, line = listed.stdout.splitlines()
    assert headings.index("ADDRESS") == line.index("ada@example.org")
    assert line.split()[3:] == ["FAILED", "address_taken", "1", "ada@example.org", "550", "nobody"]
    shown = darkroom(environment, "account", "show", "ada@example.org").stdout
    assert [line for line in shown.splitlines() if line.startswith("bounced") and "550 nobody" in line]

    narrow = ("--all", "--kind", "premium_started", "--account", "ada@example.org")
    assert darkroom(environment, "letter", "retry", *narrow).stdout == "1 will be sent.\n"
    failed = await Letter.get(state=LetterState.FAILED)
    assert (failed.account_id, failed.kind) == (ada.id, LetterKind.ADDRESS_TAKEN)
    refused = darkroom(environment, "letter", "retry", str(failed.id), "--all")
    assert refused.returncode == 2
    assert "name one letter, or --all" in refused.stderr
    assert darkroom(environment, "letter", "retry", str(failed.id)).stdout == "1 will be sent.\n"
    await failed.refresh_from_db()
    assert (failed.state, failed.attempts) == (LetterState.PENDING, 0)


async def test_an_operator_makes_a_voucher(environment: dict[str, str]) -> None:
    made = darkroom(environment, "voucher", "create", "--days", "30")
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 43


async def test_an_operator_looks_at_windows(
    environment: dict[str, str], new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account()
    ends = [(GenerationState.SUCCEEDED, None), *2 * [(GenerationState.FAILED, "Out of paint.")]]
    jobs = [await new_generation(account) for _ in ends]
    async with in_transaction():
        window = await windows.open_window(tick_at=now(), deadline=now() + timedelta(minutes=30))
        await windows.assign(window, [job.id for job in jobs], put_off=4)
    await windows.mark_running(window.id, at=now())
    for number, (job, (state, error)) in enumerate(zip(jobs, ends, strict=True)):
        if number == 2:
            shown = darkroom(environment, "window", "show", str(window.id)).stdout
            assert "queued     1\n" in shown
            assert "failure    1: Out of paint.\n" in shown
        async with in_transaction():
            await generations.transition(job.id, state, at=now(), error=error)
            await windows.close_job(window_id=window.id, account_id=account.id, at=now())

    listed = darkroom(environment, "window", "list")
    assert listed.returncode == 0, listed.stderr
    headings, line = listed.stdout.splitlines()
    assert line.startswith(str(window.id))
    assert line.split()[3:8] == ["FINISHED", "3", "1", "4", "2"]
    assert [line[headings.index(name)] for name in ("JOBS", "CUSTOMERS", "PUT OFF", "FAILED")] == list("3142")
    # The record outlives the rows that it was counted from.
    await Generation.all().delete()
    shown = darkroom(environment, "window", "show", str(window.id)).stdout
    for row in ("state      FINISHED", "jobs       3", "succeeded  1", "failed     2", "put off    4"):
        assert f"{row}\n" in shown
    assert "failure    2: Out of paint.\n" in shown


async def test_an_operator_looks_at_what_died_and_has_it_made_again_once(
    environment: dict[str, str], queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account("a@example.org")
    recorder = Recorder(queue=queue)
    dead, refused = [
        await new_generation(account, tier=Tier.PREMIUM, seed=seed, idempotency_key=str(seed))
        for seed in (7, 8)
    ]
    await recorder.start(dead.id, at=now(), worker="w1")
    await recorder.finish(dead.id, GenerationState.FAILED, at=now(), error="Sorry.", cause="OSError('disk')")
    await recorder.finish(refused.id, GenerationState.FAILED, at=now(), error="Not made of numbers.")

    _, line = darkroom(environment, "job", "list", "--dead").stdout.splitlines()
    assert line.split()[0] == str(dead.id)
    assert line.split()[3:] == ["PREMIUM", "1", "w1", "a@example.org", "-", "OSError('disk')"]

    retried = darkroom(environment, "job", "retry", str(dead.id))
    assert retried.returncode == 0, retried.stderr
    made = await Generation.get(retry_of=dead.id)
    assert f"Retried as {made.id}." in retried.stdout
    assert (made.account_id, made.tier, made.seed) == (account.id, Tier.PREMIUM, 7)
    assert (made.state, made.attempts, made.idempotency_key) == (GenerationState.QUEUED, 0, None)
    assert await queue.position_of(Lane.PREMIUM, made.id)
    assert (await Generation.get(id=dead.id)).state is GenerationState.FAILED
    assert f"a@example.org  {made.id}" in darkroom(environment, "job", "list", "--dead").stdout

    again = darkroom(environment, "job", "retry", str(dead.id))
    assert (again.returncode, again.stderr.strip()) == (
        1,
        f"darkroom: generation {dead.id} was retried as {made.id}",
    )
    assert await Generation.all().count() == 3


async def test_what_a_closed_account_asked_for_is_not_made_again(
    environment: dict[str, str], queue: Queue, new_account: NewAccount, new_generation: NewGeneration
) -> None:
    account = await new_account("a@example.org")
    dead = await new_generation(account, state=GenerationState.FAILED, cause="-", finished_at=now())
    await close_account(account.id)
    refused = darkroom(environment, "job", "retry", str(dead.id))
    assert refused.returncode == 1
    assert "is closed" in refused.stderr
    assert await Generation.all().count() == 1


async def test_streams_and_migrations_may_be_run_again(environment: dict[str, str]) -> None:
    for words in (["streams"], ["streams"], ["migrate"]):
        done = installed(environment, *words)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["account", "show", "nobody@example.org"], "there is no account nobody@example.org"),
        (["account", "delete", "nobody@example.org", "--yes"], "there is no account"),
        (["account", "grant-premium", "nobody@example.org", "--days", "1"], "there is no account"),
        (["voucher", "create", "--days", "0"], "days: must be 1 to 3660, not 0"),
        (["account", "ensure", "a@example.org", "--password-env", "UNSET"], "password: must have 8 to 128"),
        (["letter", "retry", "00000000-0000-4000-8000-000000000000"], "no failed letter"),
        (["window", "show", "00000000-0000-4000-8000-000000000000"], "there is no window"),
        (["job", "retry", "00000000-0000-4000-8000-000000000000"], "no open or failed generation"),
    ],
)
async def test_a_mistake_is_one_line_and_exit_status_1(
    environment: dict[str, str], words: list[str], reason: str
) -> None:
    done = darkroom(environment, *words)
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("voucher create --days 1 --valid-days 0", "--valid-days: must be at least 1, not 0"),
        ("voucher create --days 1 --valid-days 36501", "--valid-days: must be at most 36500, not 36501"),
        ("voucher create --days many", "--days: must be a whole number, not many"),
        (
            "account ensure a@example.org --password-env MINE --premium-days -1",
            "--premium-days: must be at least",
        ),
        ("letter list --limit -1", "--limit: must be at least 1, not -1"),
        ("letter list --state LOST", "--state: 'LOST' is not one of 'PENDING', 'CLAIMED', 'SENT', 'FAILED'"),
        ("job list --limit -1", "--limit: must be at least 1, not -1"),
        ("window list --limit -1", "--limit: must be at least 1, not -1"),
        ("window show last", "window_id: must be a whole id, not last"),
        ("top --interval soon", "--interval: must be a number, not soon"),
        ("letter retry", "name one letter, or --all"),
    ],
)
def test_what_is_no_value_is_one_line_and_refused_before_anything_is_asked(
    words: str, reason: str, tmp_path: Path
) -> None:
    done = command_line.darkroom(
        *words.split(), environment={"DARKROOM_HOME": str(tmp_path)}, folder=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"darkroom: {reason}")
    assert len(done.stderr.splitlines()) == 1
