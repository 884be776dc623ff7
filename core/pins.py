"""The lock file of a catalogue: which commit of its repository a model is, and what its files must hold."""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigurationError

# Each is safe as a path on this machine, in an address, and between quotes in TOML.
ModelId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Repository = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Variant = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
FilePath = Annotated[str, Field(pattern=r"^(\w[\w.-]*/)?\w[\w.-]*$")]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]

_SHA256_DIGITS: Final = 64
_CHUNK: Final = 1 << 20
_HEADING: Final = """\
# Written by `make pin`: the commits of the models that come from a hub, and what their files must hold.
# A digest is the SHA-256 of a file; one of 40 digits is the SHA-1 that git gives a small one.
"""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        path: relative to the repository's root, with slashes.
        size: in bytes.
        digest: SHA-256 in hex of a large file's content, or the SHA-1 that git gives a small one.
    """

    path: FilePath
    size: Annotated[int, Field(ge=0)]
    digest: Digest

    def digest_of(self, file: Path) -> str:
        """What ``digest`` would have to be for ``file`` to hold this file's content."""
        if len(self.digest) == _SHA256_DIGITS:
            found = hashlib.sha256()
        else:
            found = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
        with file.open("rb") as content:
            while chunk := content.read(_CHUNK):
                found.update(chunk)
        return found.hexdigest()


class Pin(BaseModel):
    """One model at one commit, with every file that it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: ModelId
    repository: Repository
    variant: Variant | None = None
    revision: Revision
    files: tuple[RemoteFile, ...] = Field(min_length=1)


class Pins(BaseModel):
    """The content of a lock file, ordered by the models' ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pins: tuple[Pin, ...] = Field(alias="model", default=())

    def get(self, model_id: str) -> Pin | None:
        """The pin of the model called ``model_id``, or none."""
        return next((pin for pin in self.pins if pin.id == model_id), None)

    def including(self, pin: Pin) -> Self:
        """These pins with ``pin`` in place of its model's earlier one."""
        others = [other for other in self.pins if other.id != pin.id]
        return self.model_copy(update={"pins": tuple(sorted((*others, pin), key=lambda each: each.id))})


def lock_path(catalogue: Path) -> Path:
    """Where the pins of a catalogue file are: ``models.lock.toml`` beside ``models.toml``."""
    return catalogue.with_suffix(".lock.toml")


def read_pins(path: Path) -> Pins:
    """Read a lock file; one that is not there holds no pins.

    Raises:
        ConfigurationError: the file cannot be read or breaks a rule; the message names file and field.
    """
    try:
        return Pins.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError:
        return Pins()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"lock file {path}: {error}") from error


def write_pins(path: Path, pins: Pins) -> None:
    """Write a lock file so that a reader finds the old one or the new one; equal pins give equal bytes.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with draft.open("w", encoding="utf-8") as output:
            output.write("\n".join((_HEADING, *map(_table, pins.pins))))
            output.flush()
            os.fsync(output.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(f"lock file {path}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _table(pin: Pin) -> str:
    variant = f'variant = "{pin.variant}"\n' if pin.variant else ""
    files = "".join(
        f'    {{ path = "{file.path}", size = {file.size}, digest = "{file.digest}" }},\n'
        for file in pin.files
    )
    return (
        f'[[model]]\nid = "{pin.id}"\nrepository = "{pin.repository}"\n{variant}'
        f'revision = "{pin.revision}"\nfiles = [\n{files}]\n'
    )
