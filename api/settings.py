"""What the api reads from the environment."""

from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, field_validator
from strawberry.http.websocket_origin import normalize_allowed_origins

from core.settings import (
    BrokerSettings,
    CatalogueSettings,
    DatabaseSettings,
    DocumentSettings,
    FailpointSettings,
    LimitSettings,
    LinkSettings,
    PaymentSettings,
    ProcessSettings,
    RetentionSettings,
    SettingsGroup,
    StorageSettings,
    TelemetrySettings,
    TokenSettings,
)


class HttpSettings(SettingsGroup):
    """Where the api listens, whom it takes requests from, and how it stops.

    Told to stop it serves on for ``drain_seconds``, then gives requests ``shutdown_seconds``. A websocket
    whose client takes nothing is cut off after ``websocket_patience_seconds``.


    ``allowed_origins`` are those of web pages, beside our own, that may call the api from a browser.
    ``trusted_proxies`` are addresses or networks whose ``X-Forwarded-For`` is believed.
    ``inbox_maildir`` is for the one-machine stack alone: it shows that Maildir at ``/inbox`` to everybody.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    drain_seconds: float = Field(default=0, ge=0)
    shutdown_seconds: int = Field(default=5, ge=0)
    websocket_patience_seconds: float = Field(default=10, gt=0)
    inbox_maildir: Path | None = None
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(normalize_allowed_origins(value)))

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(one)) for one in value)


class WebSocketSettings(SettingsGroup):
    """How much one websocket connection may do, and how often its session is looked at."""

    websocket_init_seconds: float = Field(default=10, gt=0)
    websocket_operations: int = Field(default=100, ge=1)
    session_check_seconds: float = Field(default=3, gt=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings(ProcessSettings):
    """Every group that the api is made of."""

    http: HttpSettings
    websocket: WebSocketSettings
    database: DatabaseSettings
    broker: BrokerSettings
    storage: StorageSettings
    links: LinkSettings
    tokens: TokenSettings
    limits: LimitSettings
    payment: PaymentSettings
    retention: RetentionSettings
    documents: DocumentSettings
    catalogue: CatalogueSettings
    failpoints: FailpointSettings
    telemetry: TelemetrySettings
