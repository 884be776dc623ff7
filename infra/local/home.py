"""The folder that holds all of a stack's state."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ConfigurationError


class Home:
    """The state folder's parts. Everything in it is the owner's alone: letters hold tokens."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "run"
        self.logs = root / "logs"
        self.mail = root / "mail"
        self.objects = root / "objects"
        self.weights = root / "weights"
        self.postgres = root / "postgres"

    def create(self) -> None:
        """Make the folders that are missing.

        Raises:
            ConfigurationError: the folder cannot be written.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.run, self.logs, self.mail, self.objects, self.weights):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"DARKROOM_HOME={self.root}: {error}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep the folder to ourselves; the kernel lets go of it when we end, however that happens.

        Raises:
            ConfigurationError: another stack runs on it.
        """
        with (self.run / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ConfigurationError(
                    f"a stack runs on {self.root} already (process {file.read().strip() or 'unknown'})."
                    " Stop it, or name another folder in DARKROOM_HOME."
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
