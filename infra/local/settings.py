"""What a person may choose about the one-machine stack."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from core.settings import SettingsGroup


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
    """

    home: Path = Path(".darkroom")
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    window: str = "0 */2 * * * *"
    demo_password: SecretStr | None = None
    public_url: str | None = None
    gpu_workers: int = Field(default=1, ge=1, le=64)
    api_processes: int = Field(default=1, ge=1, le=64)

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("demo_password", "public_url", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: str | None) -> str | None:
        return value or None
