"""The tables. PostgreSQL is the truth: the broker's streams are an index that can be rebuilt from here."""

from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

from tortoise import fields
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.fields.base import OnDelete
from tortoise.indexes import Index
from tortoise.models import Model

from core.lifecycle import Delivery, GenerationState, ImageFormat, Scheduler, Tier
from core.settings import DatabaseSettings, read


class LetterKind(StrEnum):
    """What a letter is about; each has a template of the same name in the batcher."""

    VERIFY_EMAIL = "verify_email"
    ADDRESS_TAKEN = "address_taken"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - the name of a letter, not a password
    PREMIUM_STARTED = "premium_started"
    PREMIUM_ENDS_SOON = "premium_ends_soon"
    PREMIUM_REVOKED = "premium_revoked"
    PAYMENT_FAILED = "payment_failed"
    GENERATION_FINISHED = "generation_finished"
    WINDOW_FINISHED = "window_finished"
    ACCOUNT_DELETED = "account_deleted"


class LetterState(StrEnum):
    """Where a letter stands between its row and the mail server."""

    PENDING = "PENDING"
    CLAIMED = "CLAIMED"
    SENT = "SENT"
    FAILED = "FAILED"


class TokenPurpose(StrEnum):
    """What a mailed token may be used for."""

    VERIFY_EMAIL = "verify_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - the name of a purpose, not a password


class WindowState(StrEnum):
    """Where a batch window stands."""

    COLLECTING = "COLLECTING"
    RELEASING = "RELEASING"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"


class Account(Model):
    """A customer. The address is kept as typed and compared in lower case (``email_key``).

    ``bounced_at`` and ``bounce_reason`` are of the latest letter, if the mail server would not take it for
    this address. Since ``reminders_off_at`` no letter comes that is not about something the customer did.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    email = fields.CharField(max_length=254)
    email_key = fields.CharField(max_length=254, unique=True)
    password_hash = fields.CharField(max_length=100)
    email_verified_at = fields.DatetimeField(null=True)
    premium_until = fields.DatetimeField(null=True)
    bounced_at = fields.DatetimeField(null=True)
    bounce_reason = fields.TextField(null=True)
    reminders_off_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account"


class AccountDeletion(Model):
    """An account whose owner has left: nobody can reach it any more, and a batcher takes it apart.

    ``due_at`` is when one may try, or try again.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.OneToOneRelation[Account] = fields.OneToOneField(
        "darkroom.Account", related_name="deletion"
    )
    account_id: UUID
    due_at = fields.DatetimeField(auto_now_add=True)
    requested_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "account_deletion"


class SessionFamily(Model):
    """One sign-in and every refresh token that descends from it; ended as a whole."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="sessions"
    )
    account_id: UUID
    created_at = fields.DatetimeField(auto_now_add=True)
    ended_at = fields.DatetimeField(null=True)

    class Meta:
        table = "session_family"
        indexes: Final = (Index(fields=("account_id",), name="session_family_account"),)


class RefreshToken(Model):
    """A refresh token's SHA-256, never the token; ``used_at`` is when it was rotated."""

    hash = fields.CharField(max_length=64, primary_key=True)
    family: fields.ForeignKeyRelation[SessionFamily] = fields.ForeignKeyField(
        "darkroom.SessionFamily", related_name="tokens"
    )
    family_id: UUID
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_token"
        indexes: Final = (Index(fields=("family_id",), name="refresh_token_family"),)


class EmailToken(Model):
    """A mailed token's SHA-256; single use."""

    hash = fields.CharField(max_length=64, primary_key=True)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="email_tokens"
    )
    account_id: UUID
    purpose = fields.CharEnumField(TokenPurpose, max_length=20)
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)

    class Meta:
        table = "email_token"
        indexes: Final = (Index(fields=("account_id",), name="email_token_account"),)


class Voucher(Model):
    """Premium time for whoever redeems the code first; only the code's SHA-256 is kept."""

    code_hash = fields.CharField(max_length=64, primary_key=True)
    days = fields.IntField()
    created_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField(null=True)
    redeemed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "voucher"


class Checkout(Model):
    """A page on which somebody may pay for premium time. Prices are in the currency's minor unit.

    ``session`` and ``payment`` are the payment provider's names for the page and for what was paid there.
    A refund that is told before its payment leaves ``reversed_at`` without ``paid_at``. It outlives its
    account, for the books, and then says no longer whose it was.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="checkouts", null=True, on_delete=OnDelete.SET_NULL
    )
    account_id: UUID | None
    session = fields.CharField(max_length=200, unique=True)
    payment = fields.CharField(max_length=200, null=True)
    days = fields.IntField()
    price = fields.IntField()
    currency = fields.CharField(max_length=3)
    created_at = fields.DatetimeField(auto_now_add=True)
    paid_at = fields.DatetimeField(null=True)
    reversed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "checkout"
        indexes: Final = (Index(fields=("account_id",), name="checkout_account"),)


class Purchase(Model):
    """Premium time that was bought, redeemed or granted: how an account came by ``premium_until``.

    An account's purchases follow one another without overlapping. One that was revoked ends where it was
    then, or where it would have started. ``reminded_at`` is when its end was announced. It outlives its
    account, for the books, and then says no longer whose it was.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="purchases", null=True, on_delete=OnDelete.SET_NULL
    )
    account_id: UUID | None
    source = fields.CharField(max_length=20)
    reference = fields.CharField(max_length=200, unique=True)
    days = fields.IntField()
    starts_at = fields.DatetimeField()
    ends_at = fields.DatetimeField()
    created_at = fields.DatetimeField(auto_now_add=True)
    revoked_at = fields.DatetimeField(null=True)
    reminded_at = fields.DatetimeField(null=True)

    class Meta:
        table = "purchase"
        indexes: Final = (
            Index(fields=("account_id",), name="purchase_account"),
            Index(fields=("ends_at",), name="purchase_end"),
        )


class Window(Model):
    """One batch window.

    ``tick_at`` is the broker's beat that opened it, so that a beat which comes again finds its row.
    ``put_off`` jobs waited, and were left to the next window because this one could not have made them in
    time. How its own ended is written when the last one has; ``failures`` are the reasons, with their jobs.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    tick_at = fields.DatetimeField(unique=True)
    opened_at = fields.DatetimeField(null=True, auto_now_add=True)
    deadline = fields.DatetimeField()
    state = fields.CharEnumField(WindowState, max_length=12, default=WindowState.COLLECTING)
    jobs = fields.IntField(default=0)
    customers = fields.IntField(default=0, db_default=0)
    put_off = fields.IntField(default=0, db_default=0)
    released_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    succeeded = fields.IntField(default=0, db_default=0)
    failed = fields.IntField(default=0, db_default=0)
    rejected = fields.IntField(default=0, db_default=0)
    canceled = fields.IntField(default=0, db_default=0)
    failures: fields.JSONField[dict[str, int]] = fields.JSONField(null=True)

    class Meta:
        table = "batch_window"

    @property
    def counts(self) -> dict[GenerationState, int]:
        """How its jobs ended, once it has finished."""
        return {
            GenerationState.SUCCEEDED: self.succeeded,
            GenerationState.FAILED: self.failed,
            GenerationState.REJECTED: self.rejected,
            GenerationState.CANCELED: self.canceled,
        }


class WindowAccount(Model):
    """One customer's part of a window: its letter is written when ``open_jobs`` reaches zero."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    window: fields.ForeignKeyRelation[Window] = fields.ForeignKeyField(
        "darkroom.Window", related_name="accounts"
    )
    window_id: UUID
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="windows"
    )
    account_id: UUID
    open_jobs = fields.IntField()

    class Meta:
        table = "window_account"
        unique_together = (("window", "account"),)
        indexes: Final = (Index(fields=("account_id",), name="window_account_account"),)


class WindowClock(Model):
    """The window schedule as last seen by a batcher; one row, ``id`` 1."""

    id = fields.IntField(primary_key=True, generated=False)
    expression = fields.CharField(max_length=100)
    next_at = fields.DatetimeField()

    class Meta:
        table = "window_clock"


class Generation(Model):
    """One accepted request for pictures.

    ``published_at`` is empty while the job is only in this row: the relay publishes what stays so.
    ``traceparent`` is where in a trace it was asked for. ``worker`` began with it last, ``attempts`` is how
    often one has, ``losses`` how often the broker had lost its job. ``cause`` is why our side failed it, for
    the operator: with it, it is a dead letter. ``retry_of`` is the dead one that an operator made this from.
    Beside the indexes below there are partial ones, of what is open, of what is unpublished (migration 0002),
    of what is dead, and of retries (0005).
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="generations", db_index=False
    )
    account_id: UUID
    tier = fields.CharEnumField(Tier, max_length=10)
    delivery = fields.CharEnumField(Delivery, max_length=10)
    state = fields.CharEnumField(GenerationState, max_length=10, default=GenerationState.QUEUED)
    prompt = fields.TextField()
    negative_prompt = fields.TextField(default="")
    model = fields.CharField(max_length=100)
    width = fields.IntField()
    height = fields.IntField()
    steps = fields.IntField()
    guidance_scale = fields.FloatField()
    seed = fields.IntField()
    count = fields.IntField()
    scheduler = fields.CharEnumField(Scheduler, max_length=20)
    format = fields.CharEnumField(ImageFormat, max_length=5)
    idempotency_key = fields.CharField(max_length=128, null=True)
    request_fingerprint = fields.CharField(max_length=64)
    request_id = fields.CharField(max_length=64, default="")
    traceparent = fields.CharField(max_length=55, null=True)
    error = fields.TextField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    published_at = fields.DatetimeField(null=True)
    started_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)
    window: fields.ForeignKeyNullableRelation[Window] = fields.ForeignKeyField(
        "darkroom.Window", related_name="generations", null=True, on_delete=OnDelete.SET_NULL, db_index=False
    )
    window_id: UUID | None
    released_at = fields.DatetimeField(null=True)
    worker = fields.CharField(max_length=255, null=True)
    attempts = fields.IntField(db_default=0)
    losses = fields.IntField(db_default=0)
    cause = fields.TextField(null=True)
    retry_of: UUID | None = fields.UUIDField(null=True)
    images: fields.ReverseRelation["Image"]

    class Meta:
        table = "generation"
        unique_together = (("account", "idempotency_key"),)
        indexes: Final = (
            Index(fields=("account_id", "created_at", "id"), name="generation_listing"),
            Index(fields=("window_id", "account_id"), name="generation_window"),
            Index(fields=("state", "created_at"), name="generation_state"),
        )


class Image(Model):
    """A stored picture of a generation. Sizes in pixels and bytes."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    generation: fields.ForeignKeyRelation[Generation] = fields.ForeignKeyField(
        "darkroom.Generation", related_name="images"
    )
    generation_id: UUID
    index = fields.IntField()
    key = fields.CharField(max_length=200)
    width = fields.IntField()
    height = fields.IntField()
    seed = fields.IntField()
    content_type = fields.CharField(max_length=20)
    byte_size = fields.IntField()
    sha256 = fields.CharField(max_length=64)

    class Meta:
        table = "image"
        unique_together = (("generation", "index"),)


class Erasure(Model):
    """Objects that nobody is to see again: a batcher deletes all whose keys begin with ``prefix``.

    ``due_at`` is when one may try, or try again; from ``until`` on nothing can appear there any more. With
    ``keeps_recorded`` the pictures that are recorded stay.
    """

    prefix = fields.CharField(max_length=200, primary_key=True)
    due_at = fields.DatetimeField(db_index=True)
    until = fields.DatetimeField()
    keeps_recorded = fields.BooleanField(db_default=False)

    class Meta:
        table = "erasure"


class Letter(Model):
    """A letter to be rendered and sent by a batcher; ``message_id`` never changes over its attempts.

    ``recipient`` is the address where there is no account to have it, and goes once the letter has left. A
    letter with neither is for nobody, and dropped: it was written because a stranger must not be able to
    tell that there was nobody to write to. ``traceparent`` is where in a trace it was written.
    """

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyNullableRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="letters", null=True
    )
    account_id: UUID | None
    recipient = fields.CharField(max_length=254, null=True)
    kind = fields.CharEnumField(LetterKind, max_length=24)
    parameters: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)
    message_id = fields.CharField(max_length=100, unique=True)
    state = fields.CharEnumField(LetterState, max_length=8, default=LetterState.PENDING)
    attempts = fields.IntField(default=0)
    due_at = fields.DatetimeField(auto_now_add=True)
    claimed_until = fields.DatetimeField(null=True)
    sent_at = fields.DatetimeField(null=True)
    error = fields.TextField(null=True)
    traceparent = fields.CharField(max_length=55, null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "letter"
        indexes: Final = (
            Index(fields=("state", "due_at"), name="letter_due"),
            Index(fields=("account_id",), name="letter_account"),
        )

    @property
    def address(self) -> str | None:
        """To whom it goes, with its account loaded; none when it is for nobody."""
        return self.account.email if self.account else self.recipient


class RateLimit(Model):
    """What was spent of one allowance; ``key`` is a SHA-256, so that no address stands here.

    ``restored_at`` is when all of it will be there again. The table is unlogged: a crash of the server
    gives everybody a fresh start.
    """

    key = fields.CharField(max_length=64, primary_key=True)
    restored_at = fields.DatetimeField(db_index=True)

    class Meta:
        table = "rate_limit"


class Subscription(Model):
    """One of an account's places for live subscriptions, held by an api process that renews it. Unlogged."""

    id = fields.UUIDField(primary_key=True, default=uuid4)
    account: fields.ForeignKeyRelation[Account] = fields.ForeignKeyField(
        "darkroom.Account", related_name="subscriptions", db_index=False
    )
    account_id: UUID
    place = fields.IntField()
    process = fields.UUIDField(db_index=True)
    expires_at = fields.DatetimeField()

    class Meta:
        table = "subscription"
        unique_together = (("account", "place"),)


def database_config(settings: DatabaseSettings, *, patience: float | None = None) -> dict[str, Any]:
    """Tortoise's configuration for a database; timestamps are aware and in UTC.

    Args:
        settings: where it is.
        patience: seconds that a statement, or the wait for a connection, may take; none for as long as it
            takes.
    """
    connection = expand_db_url(settings.database_url.get_secret_value())
    connection["engine"] = "core.repository.postgres"
    connection["credentials"] |= {
        "minsize": 1,
        "maxsize": settings.database_pool_size,
        "patience": patience,
    }
    if (tls := settings.tls) is not None:
        connection["credentials"]["ssl"] = tls
    return {
        "connections": {"default": connection},
        "apps": {"darkroom": {"models": ["core.models"], "migrations": "core.migrations"}},
        "use_tz": True,
        "timezone": "UTC",
    }


def __getattr__(name: str) -> dict[str, Any]:
    """``MIGRATIONS_CONFIG``, which Tortoise's command line reads, is made only when asked for."""
    if name == "MIGRATIONS_CONFIG":
        return database_config(read(DatabaseSettings))
    raise AttributeError(name)
