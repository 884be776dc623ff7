"""Virtual environments that hold what an extra of Darkroom asks for, and nothing else of this one."""

import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def link_environment(folder: Path, *, extra: str) -> Path:
    """Make one in ``folder``, its packages linked from the present one; its Python.

    Darkroom itself is left out.
    """
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for found in _required("darkroom", (extra,)):
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            there = packages / name
            # Several may share the folder of a namespace.
            if not there.is_symlink():
                there.symlink_to(Path(str(found.locate_file(name))))
    return folder / "bin" / "python"


def _required(name: str, extras: tuple[str, ...]) -> Iterator[Distribution]:
    """All that a distribution with some of its extras needs, in turn, but not itself."""
    waiting, seen = [(name, extras)], {(name, extras)}
    while waiting:
        asked, wanted = waiting.pop()
        found = distribution(asked)
        if asked != name:
            yield found
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": one}) for one in ("", *wanted)
            ):
                continue
            key = canonicalize_name(requirement.name), tuple(sorted(requirement.extras))
            if key not in seen:
                seen.add(key)
                waiting.append(key)
