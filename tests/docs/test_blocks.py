"""What can be said of every code block of the documents without running it."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import dotenv
import pytest
import typer
import yaml
from graphql import build_schema, parse, validate

from api.settings import ApiSettings
from batcher.settings import BatcherSettings
from console.__main__ import program
from core.settings import SettingsGroup, read
from gpu_worker.settings import GpuWorkerSettings
from infra.local.settings import StackSettings
from tests.docs.blocks import BLOCKS, REPOSITORY, Block

GROUPS: set[type[SettingsGroup]] = {
    StackSettings,
    *(
        group.type
        for process in (ApiSettings, BatcherSettings, GpuWorkerSettings)
        for group in fields(process)
        if isinstance(group.type, type)
    ),
}
VARIABLES = {f"DARKROOM_{name.upper()}" for group in GROUPS for name in group.model_fields}
OF_CUSTOMERS = {"DARKROOM_URL", "DARKROOM_EMAIL", "DARKROOM_PASSWORD"}
SCHEMA = build_schema((REPOSITORY / "schema" / "schema.graphql").read_text())


def _shell(text: str) -> None:
    checked = subprocess.run(["/bin/bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    commands = re.sub(r"\\\n", " ", text)
    for words in re.findall(r"(?:^|\| |&& |bin/)darkroom ((?:[a-z-]+ ?)+)", commands, re.MULTILINE):
        _known_command(words.split())
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|' |\] |&& )make ([a-z]+)", commands, re.MULTILINE):
        assert target in targets, target
    for module in re.findall(r"python3? -m ([a-z_.]+)", commands):
        path = REPOSITORY.joinpath(*module.split("."))
        assert module == "venv" or path.is_dir() or path.with_suffix(".py").exists(), module


def _known_command(words: list[str]) -> None:
    command: Any = typer.main.get_group(program([]))
    for word in words:
        if not hasattr(command, "commands"):
            return
        assert word in command.commands, f"darkroom {' '.join(words)}"
        command = command.commands[word]


def _graphql(text: str) -> None:
    assert validate(SCHEMA, parse(text)) == []


def _javascript(text: str) -> None:
    node = shutil.which("node", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin")
    if node is None:
        pytest.skip("no node")
    checked = subprocess.run(
        [node, "--input-type=module", "--check"], input=text, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def _settings(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    for name, value in values.items():
        assert name in VARIABLES, name
        assert value, name
        monkeypatch.setenv(name, value)
    for group in GROUPS:
        named = [name for name in group.model_fields if f"DARKROOM_{name.upper()}" in values]
        missing = [name for name, field in group.model_fields.items() if field.is_required()]
        if named and set(missing) <= set(named):
            read(group)


CHECKS: dict[str, Callable[[str], object]] = {
    "sh": _shell,
    "python": ast.parse,
    "graphql": _graphql,
    "js": _javascript,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "mermaid": bool,  # drawn by the site's build
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_language_that_is_checked_and_passes(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(re.findall(r"DARKROOM_[A-Z0-9_]*[A-Z0-9]", block.text)) <= VARIABLES | OF_CUSTOMERS
    if block.language == "dotenv":
        _settings(block.text, monkeypatch)
        return
    check = CHECKS.get(block.language)
    assert check or block.not_run, f"{block}: no check for {block.language!r}, and no reason given"
    if check:
        check(block.text)


def test_there_are_blocks_of_many_documents() -> None:
    assert len({block.document for block in BLOCKS}) > 8
