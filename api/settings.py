"""What the api reads from the environment."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from core.settings import (
    BrokerSettings,
    CatalogueSettings,
    DatabaseSettings,
    DocumentSettings,
    LimitSettings,
    LinkSettings,
    PaymentSettings,
    ProcessSettings,
    SettingsGroup,
    StorageSettings,
    TelemetrySettings,
    TokenSettings,
)


class HttpSettings(SettingsGroup):
    """Where the api listens.

    ``inbox_maildir`` is for the one-machine stack alone: it shows that Maildir at ``/inbox`` to everybody.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    shutdown_seconds: int = Field(default=5, ge=0)
    inbox_maildir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings(ProcessSettings):
    """Every group that the api is made of."""

    http: HttpSettings
    database: DatabaseSettings
    broker: BrokerSettings
    storage: StorageSettings
    links: LinkSettings
    tokens: TokenSettings
    limits: LimitSettings
    payment: PaymentSettings
    documents: DocumentSettings
    catalogue: CatalogueSettings
    telemetry: TelemetrySettings
