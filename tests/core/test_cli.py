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
from core.models import Account, Generation, Purchase
from core.queue import Lane, Queue
from core.recording import Recorder
from core.settings import BrokerSettings, DatabaseSettings, TokenSettings

NewAccount = Callable[..., Awaitable[Account]]
NewGeneration = Callable[..., Awaitable[Generation]]

DARKROOM = Path(sysconfig.get_path("scripts")) / "darkroom"


@pytest.fixture
def environment(
    database: DatabaseSettings, broker_settings: BrokerSettings, token_settings: TokenSettings
) -> dict[str, str]:
    assert broker_settings.nats_user
    assert broker_settings.nats_password
    return {
        "PATH": os.environ["PATH"],
        "DARKROOM_DATABASE_URL": database.database_url.get_secret_value(),
        "DARKROOM_NATS_URL": broker_settings.nats_url,
        "DARKROOM_NATS_USER": broker_settings.nats_user,
        "DARKROOM_NATS_PASSWORD": broker_settings.nats_password.get_secret_value(),
        "DARKROOM_JWT_SECRET": token_settings.jwt_secret.get_secret_value(),
        "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper.get_secret_value(),
        "DARKROOM_BCRYPT_ROUNDS": "4",
        "MY_PASSWORD": "correct horse battery staple",
    }


def darkroom(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
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
    letters = darkroom(environment, "letter", "list").stdout
    assert letters.count("premium_started") == 2
    assert darkroom(environment, "job", "list").stdout == ""


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
    assert str(until) in revoked.stdout
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
    assert darkroom(environment, "letter", "list").stdout.split()[-2:] == ["account_deleted", "a@example.org"]


async def test_an_operator_makes_a_voucher(environment: dict[str, str]) -> None:
    made = darkroom(environment, "voucher", "create", "--days", "30")
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 43


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

    [line] = darkroom(environment, "job", "list", "--dead").stdout.splitlines()
    assert str(dead.id) in line
    for part in ("PREMIUM", "1 attempts", "w1", "a@example.org", "OSError('disk')"):
        assert part in line

    retried = darkroom(environment, "job", "retry", str(dead.id))
    assert retried.returncode == 0, retried.stderr
    made = await Generation.get(retry_of=dead.id)
    assert f"Retried as {made.id}." in retried.stdout
    assert (made.account_id, made.tier, made.seed) == (account.id, Tier.PREMIUM, 7)
    assert (made.state, made.attempts, made.idempotency_key) == (GenerationState.QUEUED, 0, None)
    assert await queue.holds_job(Lane.PREMIUM, made.id)
    assert (await Generation.get(id=dead.id)).state is GenerationState.FAILED
    assert f"retried as {made.id}" in darkroom(environment, "job", "list", "--dead").stdout

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
        done = darkroom(environment, *words)
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
