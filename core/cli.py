"""What operators do from a shell; ``console`` makes a program of it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar
from uuid import UUID

import typer

from core.accounts.closing import close_account
from core.accounts.limits import RateLimiter
from core.accounts.passwords import PasswordHasher
from core.accounts.premium import MAX_DAYS, create_voucher, grant_premium, revoke_purchase
from core.accounts.registration import Registration
from core.accounts.sessions import tier_of
from core.clock import now
from core.errors import NotFoundError
from core.lifecycle import GenerationState
from core.models import Account, LetterKind, LetterState
from core.outbox import JobOutbox
from core.queue import Queue
from core.reconciler import retry
from core.repository import accounts, generations, jobs, letters, purchases, windows
from core.repository.database import database, migrate
from core.settings import BrokerSettings, DatabaseSettings, LimitSettings, TokenSettings, read

_T = TypeVar("_T")

_MOST_LISTED: Final = 100_000
_LONGEST_DAYS: Final = 36_500
"""A hundred years; the calendar of Python ends some thousands later."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look after a Darkroom.")
voucher_app = typer.Typer(no_args_is_help=True, help="Codes that give premium time.")
account_app = typer.Typer(no_args_is_help=True, help="Customers.")
purchase_app = typer.Typer(no_args_is_help=True, help="Premium time that was given.")
letter_app = typer.Typer(no_args_is_help=True, help="Mail to customers.")
job_app = typer.Typer(no_args_is_help=True, help="Generations on their way.")
window_app = typer.Typer(no_args_is_help=True, help="Batch windows.")
app.add_typer(voucher_app, name="voucher")
app.add_typer(account_app, name="account")
app.add_typer(purchase_app, name="purchase")
app.add_typer(letter_app, name="letter")
app.add_typer(job_app, name="job")
app.add_typer(window_app, name="window")

Email = Annotated[str, typer.Argument(help="The account's e-mail address.")]
Kind = Annotated[LetterKind | None, typer.Option(help="Only letters of this kind.")]
AccountOption = Annotated[str | None, typer.Option(help="Only letters to the account with this address.")]
Days = Annotated[int, typer.Option(help="Days of premium time.")]
Limit = Annotated[int, typer.Option(min=1, max=_MOST_LISTED, help="How many, newest first.")]


def _with_database(action: Callable[[], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        async with database(read(DatabaseSettings)):
            return await action()

    return asyncio.run(run())


def _with_queue(action: Callable[[Queue], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        queue = await Queue.connect(read(BrokerSettings), name="darkroom-cli")
        try:
            return await action(queue)
        finally:
            await queue.close()

    return asyncio.run(run())


async def _account(email: str) -> Account:
    account = await accounts.find_by_email(email)
    if account is None:
        raise NotFoundError(f"there is no account {email}")
    return account


def _second(at: datetime | None) -> str:
    """A moment as lists have it, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else "-"


def _moment(at: datetime | None) -> str:
    """A moment that stands alone."""
    return f"{_second(at)} UTC" if at else "-"


def _list(rows: Sequence[Mapping[str, object]], *, of: str) -> None:
    """Rows under their headings; where there are none people are told so, and programs read nothing."""
    if not rows:
        typer.echo(f"There are no such {of}.", err=True)
        return
    lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@app.command("migrate")
def migrate_command() -> None:
    """Bring the database's schema up to date; safe to run from several machines at once."""
    asyncio.run(migrate(read(DatabaseSettings)))
    typer.echo("The schema is up to date.")


@app.command("streams")
def streams_command(
    update: Annotated[bool, typer.Option("--update", help="Change streams that differ.")] = False,
) -> None:
    """Create the broker's streams and check those that exist."""
    _with_queue(lambda queue: queue.declare(update=update))
    typer.echo("The streams are as declared.")


@voucher_app.command("create")
def voucher_create(
    days: Days,
    valid_days: Annotated[
        int | None,
        typer.Option(min=1, max=_LONGEST_DAYS, help="Days until the code expires; never by default."),
    ] = None,
) -> None:
    """Make a code that gives premium time to whoever redeems it first. It is shown only now."""
    typer.echo(_with_database(lambda: create_voucher(days=days, valid_days=valid_days)))


@account_app.command("show")
def account_show(email: Email) -> None:
    """What is known of a customer, and how it came by its premium time."""

    async def show() -> None:
        account = await _account(email)
        typer.echo(f"id             {account.id}")
        typer.echo(f"email          {account.email}")
        typer.echo(
            f"verified       {_moment(account.email_verified_at) if account.email_verified_at else 'no'}"
        )
        typer.echo(f"tier           {tier_of(account, at=now()).value}")
        typer.echo(f"premium until  {_moment(account.premium_until)}")
        typer.echo(f"created        {_moment(account.created_at)}")
        typer.echo(f"reminders      {'off' if account.reminders_off_at else 'on'}")
        if account.bounced_at:
            typer.echo(f"bounced        {_moment(account.bounced_at)}  {account.bounce_reason}")
        for purchase in await purchases.purchases_of(account.id):
            typer.echo(
                f"purchase       {purchase.id}  {purchase.days} days"
                f"  {_second(purchase.starts_at)} to {_moment(purchase.ends_at)}"
                f"  {purchase.reference}{'  revoked' if purchase.revoked_at else ''}"
            )

    _with_database(show)


@account_app.command("grant-premium")
def account_grant_premium(email: Email, days: Days) -> None:
    """Give premium time without payment."""

    async def grant() -> Account:
        return await grant_premium((await _account(email)).id, days=days)

    typer.echo(f"Premium until {_moment(_with_database(grant).premium_until)}.")


@purchase_app.command("revoke")
def purchase_revoke(purchase_id: UUID) -> None:
    """Take back what is left of a purchase's time. Money is refunded at the payment provider, not here."""
    account = _with_database(lambda: revoke_purchase(purchase_id))
    typer.echo(f"{account.email} is premium until {_moment(account.premium_until)}.")


@account_app.command("ensure")
def account_ensure(
    email: Email,
    password_env: Annotated[str, typer.Option(help="The variable that holds the password.")],
    premium_days: Annotated[
        int, typer.Option(min=0, max=MAX_DAYS, help="Give premium time if the account has none.")
    ] = 0,
) -> None:
    """Make a verified account, or set its password."""

    async def ensure() -> None:
        registration = Registration(
            passwords=PasswordHasher(read(TokenSettings)), limiter=RateLimiter(read(LimitSettings))
        )
        account = await registration.ensure_account(email=email, password=os.environ.get(password_env, ""))
        if premium_days and account.premium_until is None:
            await grant_premium(account.id, days=premium_days)

    _with_database(ensure)
    typer.echo(f"{email} is ready.")


@account_app.command("delete")
def account_delete(
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete an account with its prompts and pictures, as its owner could. It cannot be undone."""
    if not yes:
        typer.confirm(f"Delete {email} with all prompts and pictures?", abort=True)

    async def delete() -> None:
        await close_account((await _account(email)).id)

    _with_database(delete)
    typer.echo("The account is closed; a batcher deletes what it had.")


@letter_app.command("list")
def letter_list(
    state: Annotated[LetterState | None, typer.Option(help="Only letters in this state.")] = None,
    kind: Kind = None,
    account: AccountOption = None,
    limit: Limit = 50,
) -> None:
    """Letters and how they fared."""

    async def show() -> None:
        account_id = (await _account(account)).id if account else None
        found = await letters.recent(state=state, kind=kind, account_id=account_id, limit=limit)
        rows = [
            {
                "ID": letter.id,
                "WRITTEN (UTC)": _second(letter.created_at),
                "STATE": letter.state.value,
                "KIND": letter.kind.value,
                "ATTEMPTS": letter.attempts,
                "ADDRESS": letter.address or "-",
                "ERROR": letter.error or "",
            }
            for letter in found
        ]
        _list(rows, of="letters")

    _with_database(show)


@letter_app.command("retry")
def letter_retry(
    letter_id: Annotated[UUID | None, typer.Argument(help="One failed letter.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every failed letter, or those of a kind or an account.")
    ] = False,
    kind: Kind = None,
    account: AccountOption = None,
) -> None:
    """Send failed letters once more, with a whole new round of attempts."""
    if (letter_id is None) != every or (letter_id is not None and (kind or account)):
        raise typer.BadParameter("name one letter, or --all with or without --kind and --account")

    async def retry() -> int:
        if letter_id is not None:
            return int(await letters.retry(letter_id, now=now()))
        account_id = (await _account(account)).id if account else None
        return await letters.retry_all(kind=kind, account_id=account_id, now=now())

    retried = _with_database(retry)
    if letter_id is not None and not retried:
        raise NotFoundError(f"there is no failed letter {letter_id}")
    typer.echo(f"{retried} will be sent.")


@job_app.command("list")
def job_list(
    state: Annotated[GenerationState | None, typer.Option(help="Only generations in this state.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Only what our side failed, and why.")] = False,
    limit: Limit = 50,
) -> None:
    """Generations and where they stand."""

    async def show_dead() -> None:
        rows = [
            {
                "ID": job.id,
                "FAILED (UTC)": _second(job.finished_at),
                "TIER": job.tier.value,
                "ATTEMPTS": job.attempts,
                "WORKER": job.worker or "-",
                "ACCOUNT": job.account.email,
                "RETRIED AS": retried_as or "-",
                "CAUSE": job.cause,
            }
            for job, retried_as in await jobs.dead(limit=limit)
        ]
        _list(rows, of="generations")

    async def show() -> None:
        rows = [
            {
                "ID": job.id,
                "ACCEPTED (UTC)": _second(job.created_at),
                "TIER": job.tier.value,
                "STATE": job.state.value,
                "ACCOUNT": job.account.email,
                "ERROR": job.error or "",
            }
            for job in await generations.recent(state=state, limit=limit)
        ]
        _list(rows, of="generations")

    _with_database(show_dead if dead else show)


@job_app.command("retry")
def job_retry(generation_id: UUID) -> None:
    """Ask once more for what a failed generation was to show; publish an open one that the broker has lost.

    A failed one stays failed. The new one is its account's, counts against no limit, and is made once.
    """

    async def publish(queue: Queue) -> None:
        async with database(read(DatabaseSettings)):
            generation = await generations.waiting(generation_id)
            if generation is None:
                generation = await retry(generation_id)
                typer.echo(f"Retried as {generation.id}.")
            outbox = JobOutbox(queue=queue)
            await outbox.publish(generation)
            await outbox.mark()

    _with_queue(publish)
    typer.echo("The broker has it.")


@window_app.command("list")
def window_list(
    limit: Limit = 50,
) -> None:
    """Batch windows and how they ended."""

    async def show() -> None:
        rows = [
            {
                "ID": window.id,
                "BEAT (UTC)": _second(window.tick_at),
                "STATE": window.state.value,
                "JOBS": window.jobs,
                "CUSTOMERS": window.customers,
                "PUT OFF": window.put_off,
                "FAILED": window.failed if window.finished_at else "-",
                "FINISHED (UTC)": _second(window.finished_at),
            }
            for window in await windows.recent(limit=limit)
        ]
        _list(rows, of="windows")

    _with_database(show)


@window_app.command("show")
def window_show(window_id: UUID) -> None:
    """What is known of a batch window: its times, how its jobs stand, and why some failed."""

    async def show() -> None:
        window = await windows.find(window_id)
        if window is None:
            raise NotFoundError(f"there is no window {window_id}")
        tally = await windows.tally(window.id)
        typer.echo(f"id         {window.id}")
        typer.echo(f"state      {window.state.value}")
        typer.echo(f"beat       {_moment(window.tick_at)}")
        typer.echo(f"opened     {_moment(window.opened_at)}")
        typer.echo(f"released   {_moment(window.released_at)}")
        typer.echo(f"finished   {_moment(window.finished_at)}")
        typer.echo(f"deadline   {_moment(window.deadline)}")
        typer.echo(f"jobs       {window.jobs}")
        typer.echo(f"customers  {window.customers}")
        typer.echo(f"put off    {window.put_off}")
        counts = window.counts if window.finished_at else tally.states
        for state in GenerationState:
            if counts.get(state):
                typer.echo(f"{state.value.lower():<11}{counts[state]}")
        for reason, failed in (window.failures or tally.failures).items():
            typer.echo(f"failure    {failed}: {reason or 'without a reason'}")

    _with_database(show)
