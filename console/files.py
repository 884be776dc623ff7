"""Files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path
from typing import Final

from console.failures import CommandError

_USUAL: Final = 0o666


def write(path: Path, data: bytes, *, private: bool = False) -> None:
    """Put a file in its place at once; folders are made.

    Args:
        path: where it is to be.
        data: what it holds.
        private: whether its owner alone may read it; otherwise it is as the umask says.

    Raises:
        CommandError: the folder or the file cannot be written; nothing is left of it then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
        # Made for its owner alone.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                if not private:
                    umask = os.umask(0)
                    os.umask(umask)
                    os.fchmod(file.fileno(), _USUAL & ~umask)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from error
