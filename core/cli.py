"""What operators do from a shell; ``console`` makes a program of it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeVar
from uuid import UUID

import typer

from core.accounts.closing import close_account
from core.accounts.limits import RateLimiter
from core.accounts.passwords import PasswordHasher
from core.accounts.premium import create_voucher, grant_premium, revoke_purchase
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
        typer.echo(f"verified       {account.email_verified_at or 'no'}")
        typer.echo(f"tier           {tier_of(account, at=now()).value}")
        typer.echo(f"premium until  {account.premium_until or '-'}")
        typer.echo(f"created        {account.created_at}")
        typer.echo(f"reminders      {'off' if account.reminders_off_at else 'on'}")
        if account.bounced_at:
            typer.echo(f"bounced        {account.bounced_at}  {account.bounce_reason}")
        for purchase in await purchases.purchases_of(account.id):
            typer.echo(
                f"purchase       {purchase.id}  {purchase.days} days"
                f"  {purchase.starts_at:%Y-%m-%d %H:%M} to {purchase.ends_at:%Y-%m-%d %H:%M}"
                f"  {purchase.reference}{'  revoked' if purchase.revoked_at else ''}"
            )

    _with_database(show)


@account_app.command("grant-premium")
def account_grant_premium(email: Email, days: Days) -> None:
    """Give premium time without payment."""

    async def grant() -> Account:
        return await grant_premium((await _account(email)).id, days=days)

    typer.echo(f"Premium until {_with_database(grant).premium_until}.")


@purchase_app.command("revoke")
def purchase_revoke(purchase_id: UUID) -> None:
    """Take back what is left of a purchase's time. Money is refunded at the payment provider, not here."""
    account = _with_database(lambda: revoke_purchase(purchase_id))
    typer.echo(f"{account.email} is premium until {account.premium_until}.")


@account_app.command("ensure")
def account_ensure(
    email: Email,
    password_env: Annotated[str, typer.Option(help="The variable that holds the password.")],
    premium_days: Annotated[int, typer.Option(help="Give premium time if the account has none.")] = 0,
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
        for letter in await letters.recent(state=state, kind=kind, account_id=account_id, limit=limit):
            typer.echo(
                f"{letter.id}  {letter.created_at:%Y-%m-%d %H:%M:%S}  {letter.state.value:<8}"
                f"{letter.kind.value:<20} {letter.attempts:>2}  {letter.address or '-'}  {letter.error or ''}"
            )

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
        for job, retried_as in await jobs.dead(limit=limit):
            typer.echo(
                f"{job.id}  {job.finished_at:%Y-%m-%d %H:%M:%S}  {job.tier.value:<8}{job.attempts} attempts"
                f"  {job.worker or '-'}  {job.account.email}  {job.cause}"
                f"{f'  retried as {retried_as}' if retried_as else ''}"
            )

    async def show() -> None:
        for job in await generations.recent(state=state, limit=limit):
            typer.echo(
                f"{job.id}  {job.created_at:%Y-%m-%d %H:%M:%S}  {job.tier.value:<8}{job.state.value:<10}"
                f"{job.account.email}  {job.error or ''}"
            )

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
        for window in await windows.recent(limit=limit):
            typer.echo(
                f"{window.id}  {window.tick_at:%Y-%m-%d %H:%M:%S}  {window.state.value:<11}"
                f"jobs {window.jobs}  customers {window.customers}"
                f"{f'  put off {window.put_off}' if window.put_off else ''}"
                f"{f'  failed {window.failed}' if window.failed else ''}"
                f"{f'  finished {window.finished_at:%H:%M:%S}' if window.finished_at else ''}"
            )

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
        typer.echo(f"beat       {window.tick_at}")
        typer.echo(f"opened     {window.opened_at or '-'}")
        typer.echo(f"released   {window.released_at or '-'}")
        typer.echo(f"finished   {window.finished_at or '-'}")
        typer.echo(f"deadline   {window.deadline}")
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
