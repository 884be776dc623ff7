"""Settings in groups, read from ``DARKROOM_*`` variables.

A process reads only the groups it is made of, so that a worker can start without a database password and the
api without one for the mail server.
"""

from dataclasses import dataclass, fields
from email.utils import parseaddr
from pathlib import Path
from ssl import SSLContext, create_default_context
from typing import Annotated, Final, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from core.errors import ConfigurationError
from core.refusals import reason

LongSecret = Annotated[SecretStr, Field(min_length=16)]
"""A secret of at least 16 characters, as an item of a list."""

_THIS_MACHINE: Final = ("127.0.0.1", "::1", "localhost")


class SettingsGroup(BaseSettings):
    """Base of every group: frozen, from variables named ``DARKROOM_<FIELD>``."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", frozen=True, extra="ignore")


class DatabaseSettings(SettingsGroup):
    """PostgreSQL.

    With ``database_ca_file`` (PEM) the server has to show a certificate of that authority, for its name.
    Connecting, waiting for a connection, and a statement may take ``database_timeout_seconds`` each.
    """

    database_url: SecretStr
    database_ca_file: FilePath | None = None
    database_pool_size: int = Field(default=10, ge=1)
    database_timeout_seconds: float = Field(default=4, gt=0)

    @field_validator("database_url")
    @classmethod
    def _of_postgresql(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith("postgres://"):
            raise ValueError("has to be an address such as postgres://user:password@host:5432/name")
        return url

    @property
    def tls(self) -> SSLContext | None:
        """What a connection verifies; none where nothing is, and TLS is used if the server offers it."""
        return create_default_context(cafile=self.database_ca_file) if self.database_ca_file else None


class BrokerSettings(SettingsGroup):
    """NATS with JetStream. ``nats_replicas`` is 1 on one machine and 3 in production.

    ``nats_url`` is one address, or several of a cluster's with commas between. Over ``tls://`` nothing is
    said before the server has shown a certificate of an authority in ``nats_ca_file`` (PEM), or else of one
    that the system trusts. ``nats_ack_wait_seconds`` is how long the broker waits for a sign of life from the
    worker that holds a job; it waits for other readers in proportion.
    """

    nats_url: str = "nats://127.0.0.1:4222"
    nats_ca_file: Path | None = None
    nats_user: str | None = None
    nats_password: SecretStr | None = None
    nats_replicas: int = Field(default=1, ge=1, le=5)
    nats_ack_wait_seconds: float = Field(default=15, ge=1)

    @property
    def addresses(self) -> list[str]:
        """Of every server that may be asked first."""
        return [address.strip() for address in self.nats_url.split(",")]

    @property
    def encrypted(self) -> bool:
        """Whether the connection is."""
        return self.nats_url.startswith("tls://")

    @field_validator("nats_url")
    @classmethod
    def _all_encrypted_or_none(cls, url: str) -> str:
        if len({address.strip().startswith("tls://") for address in url.split(",")}) > 1:
            raise ValueError("has to name every server with tls://, or none")
        return url

    @field_validator("nats_ca_file")
    @classmethod
    def _authority_is_asked(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is not None and not str(info.data.get("nats_url", "tls://")).startswith("tls://"):
            raise ValueError("says whom to trust over tls://, and DARKROOM_NATS_URL is not such an address")
        return file


class StorageSettings(SettingsGroup):
    """The object store: a ``file://``, ``s3://``, ``gs://`` or ``az://`` address.

    One request to it may take ``storage_timeout_seconds``, and is tried again for as long.
    """

    storage_url: str
    storage_options: dict[str, str] = Field(default_factory=dict)
    storage_timeout_seconds: float = Field(default=10, gt=0)


class MailSettings(SettingsGroup):
    """The SMTP server that letters are handed to.

    Certificates are always verified; ``smtp_ca_file`` names further authorities to trust, in PEM. Each answer
    may take ``smtp_timeout_seconds``, the one to a whole letter ``smtp_acceptance_seconds``: who gives up on
    that one cannot know whether the letter was taken. Up to ``smtp_connections`` letters leave at once.
    """

    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(default=25, ge=1, le=65535)
    smtp_security: str = Field(default="none", pattern="^(none|starttls|tls)$")
    smtp_ca_file: Path | None = None
    smtp_user: str | None = None
    smtp_password: SecretStr | None = Field(default=None, validate_default=True)
    smtp_connections: int = Field(default=8, ge=1, le=100)
    smtp_timeout_seconds: float = Field(default=30, gt=0)
    smtp_acceptance_seconds: float = Field(default=300, gt=0)
    mail_from: str = "Darkroom <pictures@darkroom.local>"

    @field_validator("smtp_password")
    @classmethod
    def _password_stays_secret(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if (password is None) != (info.data.get("smtp_user") is None):
            raise ValueError("and DARKROOM_SMTP_USER are needed together")
        open_to_all = info.data.get("smtp_security") == "none"
        if password is not None and open_to_all and info.data.get("smtp_host") not in _THIS_MACHINE:
            raise ValueError("would cross the network unencrypted: set DARKROOM_SMTP_SECURITY")
        return password

    @field_validator("mail_from")
    @classmethod
    def _one_sender(cls, sender: str) -> str:
        _, address = parseaddr(sender)
        if "@" not in address or not sender.isprintable():
            raise ValueError("has to be an address, such as Darkroom <pictures@darkroom.example>")
        return sender


class LinkSettings(SettingsGroup):
    """Links that customers follow: where the api is seen from outside, and how its downloads are signed.

    ``download_secret`` signs; what one of the others has signed is good as well.
    """

    public_url: str = "http://127.0.0.1:8000"
    download_secret: SecretStr = Field(min_length=16)
    download_other_secrets: tuple[LongSecret, ...] = ()
    download_lifetime_seconds: int = Field(default=3600, ge=1)


class TokenSettings(SettingsGroup):
    """Passwords and tokens. Lifetimes in the unit that the name says.

    ``jwt_secret`` signs and ``password_pepper`` is mixed into new hashes; what was made with one of the
    others is good as well, so that each can be changed while the service runs.
    """

    jwt_secret: SecretStr = Field(min_length=32)
    jwt_other_secrets: tuple[Annotated[SecretStr, Field(min_length=32)], ...] = ()
    password_pepper: SecretStr = Field(min_length=16)
    password_other_peppers: tuple[LongSecret, ...] = ()
    bcrypt_rounds: int = Field(default=12, ge=4, le=16)
    access_token_minutes: int = Field(default=15, ge=1)
    refresh_token_days: int = Field(default=30, ge=1)


class LimitSettings(SettingsGroup):
    """How much one customer, and one network address, may ask for.

    ``max_open_…`` are generations that wait or run, ``max_subscriptions_…`` live ones.
    """

    max_open_normal: int = Field(default=50, ge=1)
    max_open_premium: int = Field(default=100, ge=1)
    max_subscriptions_normal: int = Field(default=10, ge=1)
    max_subscriptions_premium: int = Field(default=100, ge=1)
    pictures_per_day_normal: int = Field(default=200, ge=1)
    pictures_per_day_premium: int = Field(default=5000, ge=1)
    signin_attempts_per_minute: int = Field(default=10, ge=1)
    signup_attempts_per_hour: int = Field(default=20, ge=1)
    reset_requests_per_hour: int = Field(default=10, ge=1)
    voucher_attempts_per_minute: int = Field(default=10, ge=1)
    checkouts_per_hour: int = Field(default=20, ge=1)


class Offer(BaseModel):
    """Premium time that is for sale: ``price`` in the currency's minor unit, such as cents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern="^[a-z0-9-]{1,40}$")
    days: int = Field(ge=1, le=3660)
    price: int = Field(ge=1, le=99_999_999)
    currency: str = Field(pattern="^[a-z]{3}$")


class PaymentSettings(SettingsGroup):
    """Selling premium time by card. Without ``stripe_secret_key`` nothing is for sale.

    ``payment_timeout_seconds`` is how long opening a payment page may take, attempts again included.
    """

    stripe_secret_key: SecretStr | None = None
    stripe_webhook_secret: SecretStr | None = Field(default=None, validate_default=True)
    stripe_url: str = "https://api.stripe.com"
    payment_timeout_seconds: float = Field(default=15, gt=0)
    offers: tuple[Offer, ...] = Field(default=(), validate_default=True)

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _webhooks_can_be_checked(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if info.data.get("stripe_secret_key") is not None and secret is None:
            raise ValueError("is needed with DARKROOM_STRIPE_SECRET_KEY: payments are told by webhook")
        return secret

    @field_validator("offers")
    @classmethod
    def _offers_differ(cls, offers: tuple[Offer, ...], info: ValidationInfo) -> tuple[Offer, ...]:
        if info.data.get("stripe_secret_key") is not None and not offers:
            raise ValueError("are needed with DARKROOM_STRIPE_SECRET_KEY: nothing is for sale")
        if len({offer.id for offer in offers}) < len(offers):
            raise ValueError("have to have different ids")
        return offers


class RetentionSettings(SettingsGroup):
    """For how many days what belongs to customers is kept.

    Of generations, with prompt and pictures, the days count from their end; of letters from when they left
    or were given up; of accounts whose address nobody verified from their sign-up.
    """

    keep_normal_days: int = Field(default=30, ge=1)
    keep_premium_days: int = Field(default=30, ge=1)
    keep_letter_days: int = Field(default=30, ge=1)
    keep_unverified_days: int = Field(default=7, ge=2)


class DocumentSettings(SettingsGroup):
    """How large a GraphQL document may be, fragments counted as often as they are spread, and what it takes.

    ``document_tokens`` are words and brackets, ``document_depth`` fields inside one another, and
    ``document_repeats`` how often one name may be asked for in one place. ``document_cost`` is in the units
    of the schema's ``@cost``.
    """

    document_tokens: int = Field(default=1000, ge=1)
    document_depth: int = Field(default=16, ge=1)
    document_fields: int = Field(default=600, ge=1)
    document_aliases: int = Field(default=30, ge=0)
    document_directives: int = Field(default=30, ge=0)
    document_repeats: int = Field(default=20, ge=1)
    document_cost: int = Field(default=1000, ge=1)
    operation_timeout_seconds: float = Field(default=10, gt=0)

    @property
    def measures(self) -> dict[str, int]:
        """The limits of what a document expands to, by what they limit."""
        return {
            "depth": self.document_depth,
            "fields": self.document_fields,
            "aliases": self.document_aliases,
            "directives": self.document_directives,
            "repeats": self.document_repeats,
        }


class CatalogueSettings(SettingsGroup):
    """Which models there are: the shipped catalogue unless a file is named, and all of it unless some are."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    catalogue: Path | None = None
    models: tuple[str, ...] = ()


class WindowSettings(SettingsGroup):
    """The batch tier's clock: a NATS schedule expression, and how long a window may take."""

    window: str = "0 */30 * * * *"
    window_deadline_minutes: float = Field(default=30, gt=0)


class ReconcilerSettings(SettingsGroup):
    """How often open jobs are looked for on the broker, and how long after their publication first."""

    reconcile_seconds: float = Field(default=10, gt=0)
    reconcile_age_seconds: float = Field(default=15, ge=0)


class FailpointSettings(SettingsGroup):
    """For tests alone: where this process dies, stops, hangs or fails; see :mod:`core.failpoints`."""

    failpoints: str | None = None


class TelemetrySettings(SettingsGroup):
    """Logs, metrics and traces. Port 0 leaves the metrics server off, no address the traces.

    ``traces_url`` takes spans by OTLP over HTTP, path included; of the traces that begin in this process
    ``traces_sampled_share`` are sent.
    """

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: str = Field(default="json", pattern="^(json|console)$")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    traces_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+/\S*$")
    traces_sampled_share: float = Field(default=1.0, ge=0, le=1)


_Group = TypeVar("_Group", bound=SettingsGroup)


def read(group: type[_Group]) -> _Group:
    """Read one group from the environment.

    Raises:
        ConfigurationError: a variable is missing or outside its range; the message names each.
    """
    try:
        return group()
    except ValidationError as error:
        problems = "; ".join(
            f"DARKROOM_{'_'.join(str(part) for part in item['loc']).upper()}: {reason(item)}"
            for item in error.errors(include_input=False)
        )
        raise ConfigurationError(f"settings: {problems}") from error
    except SettingsError as error:
        # It names the field; lists and tables alone get this far.
        raise ConfigurationError(f"settings: {error}: write it as JSON") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Base of what one process is made of: each field is a group."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read every group.

        Raises:
            ConfigurationError: a variable is missing or outside its range; the message names each.
        """
        return cls(**{field.name: read(cast("type[SettingsGroup]", field.type)) for field in fields(cls)})
