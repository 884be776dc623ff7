"""The broker's users: a password for each, and the file of hashes that ``nats.conf`` reads."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import bcrypt

from infra.private_file import write_private

PROCESSES: Final = ("api", "batcher", "gpu_worker", "operator")
USERS: Final = (
    *(f"{process}{spare}" for process in PROCESSES for spare in ("", "_spare")),
    "emergency",
    "monitor",
)

_BYTES: Final = 32
_ROUNDS: Final = 4
"""Few: nobody guesses a random password of this length, and every connection costs the broker the hashing."""


def write_users(folder: Path) -> Mapping[str, str]:
    """Make up the passwords that are missing, and write ``users.conf`` anew.

    Args:
        folder: gets ``users.conf`` with the hashes, and ``passwords/`` with a file for each user; both are
            their owner's alone.

    Returns:
        The password of each user.
    """
    kept = folder / "passwords"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    passwords = {user: _password(kept / user) for user in USERS}
    lines = (
        f'{user.upper()}_PASSWORD: "{bcrypt.hashpw(password.encode(), bcrypt.gensalt(_ROUNDS)).decode()}"\n'
        for user, password in passwords.items()
    )
    write_private(folder / "users.conf", "".join(lines))
    return passwords


def _password(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(_BYTES))
    return path.read_text()
