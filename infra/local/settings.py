"""What a person may choose about the one-machine stack."""

from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, field_validator

from core.settings import CatalogueSettings, SettingsGroup

BUNDLED_MODELS: Final = ("darkroom-demo",)
"""What the shipped catalogue holds that needs no download."""


class StackSettings(SettingsGroup):
    """The stack's own variables; ``DARKROOM_*`` variables of the single processes reach these besides.

    Attributes:
        home: the state folder.
        host: where the api listens.
        port: of the first api process; the others take the next free ones. 0 chooses one.
        window: the batch window, as a NATS schedule expression.
        demo_password: of both ready-made accounts, instead of the one that is made up.
        public_url: how customers reach the api, where that is not the address it listens on.
        gpu_workers: how many to start.
        api_processes: how many to start.
        batchers: how many to start.
        brokers: how many nodes of the broker: one alone, or a cluster of three.
        catalogue: a catalogue file instead of the shipped one.
        models: the catalogue's models to offer.
    """

    home: Path = Path(".darkroom")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    window: str = "0 */2 * * * *"
    demo_password: SecretStr | None = None
    public_url: str | None = None
    gpu_workers: int = Field(default=1, ge=1, le=64)
    api_processes: int = Field(default=1, ge=1, le=64)
    batchers: int = Field(default=1, ge=1, le=64)
    brokers: int = Field(default=1, ge=1, le=3)
    catalogue: Path | None = None
    models: tuple[str, ...] | None = None

    @property
    def offer(self) -> CatalogueSettings:
        """Which models the processes offer: the bundled ones, unless somebody chose a catalogue or models."""
        unchosen = BUNDLED_MODELS if self.catalogue is None else ()
        models = unchosen if self.models is None else self.models
        return CatalogueSettings(catalogue=self.catalogue, models=models)

    @field_validator("home", "catalogue", mode="after")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().resolve()

    @field_validator("brokers")
    @classmethod
    def _one_may_be_away(cls, nodes: int) -> int:
        if nodes == 2:  # noqa: PLR2004 - the one number between
            raise ValueError("has to be 1 or 3: of two both are needed")
        return nodes

    @field_validator("demo_password", "public_url", "catalogue", "models", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value
