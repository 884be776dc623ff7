"""Carries out a Dockerfile's steps in a folder, where no container engine is at hand.

Every stage has a folder for its root, and absolute paths of the image mean paths in there. Files are copied
as Docker would, by `.dockerignore`; commands run with the machine's Python and Node. What needs root of an
own system, such as users and system packages, is left to Docker.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from re import Pattern

_IMAGE_PATH = re.compile(r"(?<![\w./-])/(?=(?:opt|source|var/lib)\b)")
_SYSTEM = ("apt-get", "install", "rm", "useradd")


@dataclass
class Stage:
    """A stage as far as it was carried out."""

    root: Path
    base: str
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    healthcheck: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def here(self, text: str) -> str:
        """With the image's paths turned into those of this folder."""
        return _IMAGE_PATH.sub(f"{self.root}/", text)

    @property
    def variables(self) -> dict[str, str]:
        """What its processes are told, with this machine's programs behind those of the image."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            **{name: _expanded(self.here(value), os.environ) for name, value in self.environment.items()},
        }

    def path(self, name: str) -> Path:
        """A path of the image, relative to its working directory."""
        return self.root / str(PurePosixPath(self.folder) / name).lstrip("/")


class ImageBuild:
    """Builds targets of a Dockerfile from a repository into folders.

    Args:
        dockerfile: the Dockerfile.
        context: the repository.
        folder: where the stages' folders are made.
        left_out: what a command that is taken as done looks like.
    """

    def __init__(
        self,
        dockerfile: Path,
        *,
        context: Path,
        folder: Path,
        left_out: Pattern[str] = re.compile(r"(?!)"),
    ) -> None:
        self._context = context
        self._folder = folder
        self._left_out = left_out
        self._ignored = (context / ".dockerignore").read_text().splitlines()
        self.instructions = list(_stages(dockerfile.read_text()))
        self.built: dict[str, Stage] = {}

    def build(self, target: str) -> Stage:
        """Carry a stage out, and before it those that it is made from."""
        if target not in self.built:
            base, steps = next((base, steps) for name, base, steps in self.instructions if name == target)
            stage = self._start(target, base)
            for instruction, arguments in steps:
                getattr(self, f"_{instruction.lower()}")(stage, arguments)
            self.built[target] = stage
        return self.built[target]

    def _start(self, name: str, base: str) -> Stage:
        root = self._folder / name
        if any(base == other for other, _, _ in self.instructions):
            parent = self.build(base)
            shutil.copytree(parent.root, root, symlinks=True)
            return replace(parent, root=root, environment=dict(parent.environment))
        root.mkdir(parents=True)
        return Stage(root, base)

    def _arg(self, stage: Stage, arguments: str) -> None:
        name, _, value = arguments.partition("=")
        stage.environment[name] = value

    def _label(self, stage: Stage, arguments: str) -> None:
        stage.labels |= {name: _expanded(value, stage.environment) for name, value in _pairs(arguments)}

    def _env(self, stage: Stage, arguments: str) -> None:
        for name, value in _pairs(arguments):
            stage.environment[name] = _expanded(value, {"PATH": "$PATH", **stage.environment})

    def _workdir(self, stage: Stage, arguments: str) -> None:
        stage.folder = arguments
        stage.path(".").mkdir(parents=True, exist_ok=True)

    def _user(self, stage: Stage, arguments: str) -> None:
        stage.user = arguments

    def _expose(self, stage: Stage, arguments: str) -> None: ...

    def _volume(self, stage: Stage, arguments: str) -> None: ...

    def _healthcheck(self, stage: Stage, arguments: str) -> None:
        stage.healthcheck = json.loads(arguments.partition("CMD")[2])

    def _entrypoint(self, stage: Stage, arguments: str) -> None:
        stage.entrypoint = json.loads(arguments)

    def _copy(self, stage: Stage, arguments: str) -> None:
        words = arguments.split()
        source = self.build(words.pop(0).partition("=")[2]) if words[0].startswith("--from=") else None
        *names, target = words
        for name in names:
            to = stage.path(target)
            if source is not None:
                _copy_tree(source.path(name), to)
                continue
            files = list(self._files(name))
            assert files, f"COPY {name}: .dockerignore leaves nothing of it"
            for file in files:
                inside = Path(file).relative_to(name) if name.endswith("/") else Path(Path(file).name)
                there = to / inside if target.endswith("/") else to
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context / file, there)

    def _run(self, stage: Stage, arguments: str) -> None:
        for part in arguments.split("&&"):
            command = part.strip()
            if command.startswith(_SYSTEM) or self._left_out.search(command):
                continue
            subprocess.run(
                ["/bin/bash", "-euc", stage.here(command)],
                cwd=stage.path("."),
                env=stage.variables,
                check=True,
                stdout=subprocess.DEVNULL,
            )

    def _files(self, name: str) -> Iterator[str]:
        """The files of the repository that this is, without those that `.dockerignore` keeps away."""
        listed = subprocess.run(
            ["/usr/bin/env", "git", "ls-files", "--cached", "--others", "--exclude-standard", "--", name],
            cwd=self._context,
            check=True,
            capture_output=True,
            text=True,
        )
        return (file for file in listed.stdout.splitlines() if not self.ignores(file))

    def ignores(self, file: str) -> bool:
        """Whether a file is kept from the build: the last pattern that fits it or a folder of it decides."""
        path = PurePosixPath(file)
        names = [str(one) for one in (path, *path.parents[:-1])]
        ignored = False
        for line in self._ignored:
            pattern = line.removeprefix("!").rstrip("/")
            if pattern and not pattern.startswith("#") and any(_fits(name, pattern) for name in names):
                ignored = not line.startswith("!")
        return ignored


def _fits(name: str, pattern: str) -> bool:
    """As Docker has it: an asterisk ends at a slash, two stand for any number of folders."""
    if pattern.startswith("**/"):
        return fnmatchcase(PurePosixPath(name).name, pattern.removeprefix("**/"))
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _copy_tree(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.readlink())
    else:
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def _expanded(value: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known[found[1]], value)


def _pairs(arguments: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (word.partition("=") for word in shlex.split(arguments))]


def _stages(text: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Each stage's name, what it begins from, and its instructions."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    name, base, steps = "", "", list[tuple[str, str]]()
    for line in lines.replace("\\\n", " ").splitlines():
        instruction, _, arguments = line.strip().partition(" ")
        if instruction == "FROM":
            if name:
                yield name, base, steps
            base, _, name = arguments.split()
            steps = []
        elif instruction:
            steps.append((instruction, arguments.strip()))
    yield name, base, steps
