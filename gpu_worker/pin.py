"""``python -m gpu_worker.pin [MODEL …]``: writes the commits and hashes of hub models to the lock file."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from core import telemetry
from core.catalogue import SHIPPED_CATALOGUE, HubSource, ModelEntry, load_catalogue
from core.errors import ConfigurationError, DarkroomError, WeightsError
from core.pins import Pin, lock_path, read_pins, write_pins
from core.settings import CatalogueSettings, TelemetrySettings, read
from gpu_worker.hub import Hub

_ATTEMPTS: Final = 3
"""Somebody waits for the answer: fewer than a download makes."""


def main() -> int:
    """Pin the models that are named, or all; the status is 1 when one of them could not be pinned."""
    arguments = _arguments()
    try:
        telemetry.configure(_quiet(read(TelemetrySettings)), process="pin")
        path = read(CatalogueSettings).catalogue or SHIPPED_CATALOGUE
        return pin_models(path, arguments.models, hub=Hub(attempts=_ATTEMPTS), revision=arguments.revision)
    except DarkroomError as error:
        sys.stderr.write(f"pin: {error}\n")
        return 1


def pin_models(catalogue: Path, model_ids: Sequence[str], *, hub: Hub, revision: str | None = None) -> int:
    """Pin models of a catalogue file in the lock file beside it, and say so, a line for each.

    A model that cannot be pinned is named on standard error and keeps the pin that it has.

    Args:
        catalogue: the catalogue file.
        model_ids: which models; all that come from a hub when empty.
        hub: where they come from.
        revision: a branch, tag or commit to pin instead of the default branch, for one model.

    Returns:
        How the process ends: 0, or 1 when a model could not be pinned.

    Raises:
        ConfigurationError: the catalogue, the lock file or the name of a model is wrong.
    """
    models = _hub_models(catalogue, model_ids)
    lock = lock_path(catalogue)
    pins = read_pins(lock)
    status = 0
    for model, source in models:
        try:
            found = _pin(model.id, source, hub=hub, revision=revision)
        except WeightsError as error:
            sys.stderr.write(f"{model.id}: {error}\n")
            status = 1
            continue
        sys.stdout.write(_line(found, earlier=pins.get(model.id)))
        if found != pins.get(model.id):
            pins = pins.including(found)
            write_pins(lock, pins)
    return status


def _quiet(settings: TelemetrySettings) -> TelemetrySettings:
    """Warnings alone, for a person: what is done is said on standard output."""
    return settings.model_copy(update={"log_level": "WARNING", "log_format": "console"})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gpu_worker.pin",
        description="Pin models to their present commits in the lock file beside the catalogue.",
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="which; by default all that come from a hub"
    )
    parser.add_argument("--revision", help="a branch, tag or commit of the one MODEL that is named")
    arguments = parser.parse_args()
    if arguments.revision and len(arguments.models) != 1:
        parser.error("--revision is for one MODEL")
    return arguments


def _hub_models(catalogue: Path, model_ids: Sequence[str]) -> list[tuple[ModelEntry, HubSource]]:
    chosen = load_catalogue(catalogue).choose(model_ids, named_by="MODEL").models
    found = [(model, model.source) for model in chosen if isinstance(model.source, HubSource)]
    if model_ids and len(found) < len(chosen):
        here = [model.id for model in chosen if not isinstance(model.source, HubSource)]
        raise ConfigurationError(f"nothing to pin: {', '.join(here)} comes from no hub")
    return found


def _pin(model_id: str, source: HubSource, *, hub: Hub, revision: str | None) -> Pin:
    commit = hub.commit_of(source.repository, revision or source.revision)
    if source.revision not in (None, commit):
        raise WeightsError(f"the catalogue says revision {source.revision}, which {revision} is not")
    files = hub.files_of(source.model_copy(update={"revision": commit}))
    return Pin(
        id=model_id,
        repository=source.repository,
        variant=source.variant,
        revision=commit,
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def _line(pin: Pin, *, earlier: Pin | None) -> str:
    size = sum(file.size for file in pin.files) / 1e9
    if pin == earlier:
        change = "unchanged"
    elif earlier is None:
        change = "new"
    else:
        change = f"was {earlier.revision}"
    return f"{pin.id}: {pin.repository}@{pin.revision}, {len(pin.files)} files, {size:.2f} GB, {change}\n"


if __name__ == "__main__":
    sys.exit(main())
