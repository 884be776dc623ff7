"""Makes sure that a model's weights lie on this machine, complete, and as safetensors only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from filelock import FileLock, Timeout

from core.catalogue import BundledSource, DirectorySource, HubSource, ModelEntry
from core.errors import WeightsError
from core.pins import RemoteFile
from gpu_worker import demo_model, layout
from gpu_worker.hub import Hub

_BUNDLED: Final = {"demo_model": demo_model.WEIGHTS}

_log = structlog.get_logger(__name__)


class WeightsStore:
    """The models of one machine, under one folder that several workers may share.

    Args:
        root: where downloaded models are kept.
        hub: where models with a hub source come from.
    """

    def __init__(self, root: Path, *, hub: Hub | None = None) -> None:
        self._root = root
        self._hub = hub or Hub()

    def ensure(self, entry: ModelEntry) -> Path:
        """The folder of ``entry``'s weights in diffusers' layout, downloaded first where need be.

        Blocks, for a download possibly many minutes: call it in a thread. A model that is there already needs
        no network; where it is pinned in the lock file, every file's content is compared with it.

        Raises:
            WeightsError: the weights cannot be had or are not as they must be; names the model and the file.
        """
        try:
            match entry.source:
                case BundledSource(name=name):
                    folder = _bundled(name)
                case DirectorySource(path=path):
                    folder = path
                case HubSource():
                    folder = self._downloaded(entry.source)
            layout.verify(folder, entry.family)
        except (WeightsError, OSError) as error:
            raise WeightsError(f"model {entry.id}: {error}") from error
        _log.info("weights.ready", model=entry.id, folder=str(folder))
        return folder

    def _downloaded(self, source: HubSource) -> Path:
        if source.revision is None:
            raise WeightsError(f"{source.repository} is not pinned to a revision")
        owner, _, name = source.repository.partition("/")
        shelf = self._root / "hub" / f"{owner}--{name}"
        label = f"{source.revision}.{source.variant}" if source.variant else source.revision
        folder = shelf / label
        if folder.exists():
            _compare(folder, source.files)
            return folder
        shelf.mkdir(parents=True, exist_ok=True)
        lock = FileLock(shelf / f"{label}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _log.info("weights.waiting", source=source.repository, reason="another process downloads it")
            lock.acquire()
        try:
            if not folder.exists():
                partial = shelf / f"{label}.partial"
                partial.mkdir(exist_ok=True)
                self._hub.download(source, partial)
                partial.rename(folder)
        finally:
            lock.release()
        return folder


def _compare(folder: Path, files: Sequence[RemoteFile]) -> None:
    """Raise a WeightsError for the first of ``files`` that ``folder`` does not hold as it has to be."""
    for file in files:
        path = folder / file.path
        if not path.is_file():
            raise WeightsError(f"{path} is missing: the lock file names it")
        if (found := file.digest_of(path)) != file.digest:
            raise WeightsError(
                f"{path} has changed: expected the hash {file.digest}, found {found}."
                f" Remove {folder} to have it downloaded again"
            )


def _bundled(name: str) -> Path:
    if name not in _BUNDLED:
        raise WeightsError(f"no bundled model is called {name!r}; there are {', '.join(_BUNDLED)}")
    return _BUNDLED[name]
