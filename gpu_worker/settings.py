"""What the GPU worker reads from the environment: no database, no mail."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator

from core.lifecycle import Tier
from core.settings import (
    BrokerSettings,
    CatalogueSettings,
    FailpointSettings,
    ProcessSettings,
    SettingsGroup,
    StorageSettings,
    TelemetrySettings,
)


def _default_name() -> str:
    return f"{socket.gethostname().replace('.', '-')}-{os.getpid()}"


class WorkerSettings(SettingsGroup):
    """How one worker works.

    ``worker_tiers`` are those whose jobs it takes. ``worker_slots`` is how many pictures take a step at once.
    A step with fewer premium pictures than ``worker_premium_fill`` is filled up to so many with the batch
    tier's, and after ``worker_patience`` steps without it the batch tier gets one to itself.
    ``worker_models`` names the catalogue's entries that it offers, all of them when empty, and
    ``worker_model_memory`` is how many bytes of the device those may take that are loaded at a time, without
    limit when 0. ``worker_precision`` is that of the weights, by default what suits the device; with
    ``worker_fp8`` the large products of fused models have eight bits, which is faster and rounds more.
    ``worker_fusion`` has models run through fused blocks, on CUDA with our own kernels and with graphs, which
    are recorded for batches of as many rows as ``worker_buckets`` says (a guided picture has two; by default
    one row, and every size that guided pictures have), and ``worker_kernel_dir`` keeps the kernels.
    ``worker_drain_seconds`` is how long the pictures under way may still take once it is told to stop, and
    ``worker_stall_seconds`` how long a part of it may stand still until it ends itself, for ever when 0.
    """

    worker_name: str = Field(default_factory=_default_name, pattern=r"^[\w-]+$")
    worker_tiers: tuple[Tier, ...] = (Tier.PREMIUM, Tier.NORMAL)
    weights_dir: Path = Path.home() / ".cache" / "darkroom" / "weights"
    worker_slots: int = Field(default=8, ge=1)
    worker_premium_fill: int = Field(default=0, ge=0)
    worker_patience: int = Field(default=100, ge=1)
    worker_models: tuple[str, ...] = ()
    worker_model_memory: ByteSize = Field(default=ByteSize(0), ge=0)
    worker_precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    worker_fp8: bool = False
    worker_fusion: bool = True
    worker_buckets: tuple[Annotated[int, Field(ge=1)], ...] = ()
    worker_kernel_dir: Path = Path.home() / ".cache" / "darkroom" / "kernels"
    worker_drain_seconds: float = Field(default=7, ge=0)
    worker_stall_seconds: float = Field(default=300, ge=0)

    @field_validator("worker_tiers")
    @classmethod
    def _some_tiers(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        if not tiers or len(set(tiers)) < len(tiers):
            raise ValueError("have to be one or both of PREMIUM and NORMAL")
        return tiers

    @property
    def buckets(self) -> tuple[int, ...]:
        """The sizes to record, in rows, smallest first: up to two rows for each slot."""
        return tuple(sorted(set(self.worker_buckets))) or (1, *range(2, 2 * self.worker_slots + 1, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWorkerSettings(ProcessSettings):
    """Every group that the worker is made of."""

    worker: WorkerSettings
    broker: BrokerSettings
    storage: StorageSettings
    catalogue: CatalogueSettings
    failpoints: FailpointSettings
    telemetry: TelemetrySettings
