"""What a batcher is told: the groups it is made of, and how its letters carry pictures."""

from dataclasses import dataclass

from pydantic import Field

from core.settings import (
    BrokerSettings,
    DatabaseSettings,
    FailpointSettings,
    LinkSettings,
    MailSettings,
    ProcessSettings,
    ReconcilerSettings,
    RetentionSettings,
    SettingsGroup,
    StorageSettings,
    TelemetrySettings,
    WindowSettings,
)


class LetterSettings(SettingsGroup):
    """Pictures are attached up to so many MiB a letter; the rest are links that work for some days.

    Customers are reminded ``premium_reminder_days`` before their premium time ends; 0 reminds nobody.
    """

    letter_attachments_mebibytes: float = Field(default=12, ge=0)
    letter_link_days: int = Field(default=7, ge=1)
    premium_reminder_days: float = Field(default=3, ge=0)


class BatcherProcessSettings(SettingsGroup):
    """How long what is under way may still take once the batcher is told to stop, in seconds."""

    batcher_drain_seconds: float = Field(default=7, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatcherSettings(ProcessSettings):
    """Every group of the process."""

    process: BatcherProcessSettings
    database: DatabaseSettings
    broker: BrokerSettings
    storage: StorageSettings
    mail: MailSettings
    links: LinkSettings
    window: WindowSettings
    letters: LetterSettings
    retention: RetentionSettings
    reconciler: ReconcilerSettings
    failpoints: FailpointSettings
    telemetry: TelemetrySettings
