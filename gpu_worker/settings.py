"""What the GPU worker reads from the environment: no database, no mail."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from core.settings import (
    BrokerSettings,
    CatalogueSettings,
    ProcessSettings,
    SettingsGroup,
    StorageSettings,
    TelemetrySettings,
)


def _default_name() -> str:
    return f"{socket.gethostname().replace('.', '-')}-{os.getpid()}"


class WorkerSettings(SettingsGroup):
    """How one worker works.

    ``worker_slots`` is how many pictures take a step at once, ``worker_batch_share`` how many batch pictures
    may join a step of premium ones, and ``worker_patience`` after how many steps without the batch tier it
    gets one to itself; ``worker_models`` names the catalogue's entries
    that it loads, all of them when empty; ``worker_drain_seconds`` is how long the pictures under way may
    still take once it is told to stop.
    """

    worker_name: str = Field(default_factory=_default_name, pattern=r"^[\w-]+$")
    weights_dir: Path = Path.home() / ".cache" / "darkroom" / "weights"
    worker_slots: int = Field(default=8, ge=1)
    worker_batch_share: int = Field(default=0, ge=0)
    worker_patience: int = Field(default=100, ge=1)
    worker_models: tuple[str, ...] = ()
    worker_drain_seconds: float = Field(default=7, ge=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWorkerSettings(ProcessSettings):
    """Every group that the worker is made of."""

    worker: WorkerSettings
    broker: BrokerSettings
    storage: StorageSettings
    catalogue: CatalogueSettings
    telemetry: TelemetrySettings
