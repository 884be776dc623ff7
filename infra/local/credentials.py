"""The secrets of one stack: made up once, and kept."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.errors import ConfigurationError
from infra.private_file import write_private

_NAMES = (
    "database_password",
    "jwt_secret",
    "password_pepper",
    "download_secret",
    "demo_password",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Each is URL-safe, except a demo password that somebody chose."""

    database_password: str
    jwt_secret: str
    password_pepper: str
    download_secret: str
    demo_password: str

    @classmethod
    def load(cls, path: Path, *, demo_password: str | None = None) -> Self:
        """Read the secrets, after making up those that the file does not hold yet.

        Args:
            path: a file that only its owner may read.
            demo_password: used instead of the kept one, which stays.

        Raises:
            ConfigurationError: the file is not what this wrote.
        """
        try:
            kept = json.loads(path.read_text()) if path.exists() else {}
            values = {name: str(kept.get(name, "")) for name in _NAMES}
        except (ValueError, AttributeError) as error:
            raise ConfigurationError(f"{path} is damaged: {error}") from error
        if not all(values.values()):
            # People type the demo password; the others are never seen.
            values = {
                name: value or secrets.token_urlsafe(9 if name == "demo_password" else 32)
                for name, value in values.items()
            }
            write_private(path, json.dumps(values, indent=2) + "\n")
        if demo_password is not None:
            values["demo_password"] = demo_password
        return cls(**values)
