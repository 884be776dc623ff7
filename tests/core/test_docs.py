"""The documents say what the code does, where that can be checked."""

import inspect
import re
import tomllib
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from api.settings import ApiSettings
from batcher.settings import BatcherSettings
from core import cli, telemetry
from core import settings as core_settings
from core.catalogue import Catalogue, load_catalogue
from core.failpoints import Failpoint
from core.settings import SettingsGroup
from gpu_worker.settings import GpuWorkerSettings
from infra.local.settings import StackSettings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
CONFIGURATION = (REPOSITORY / "docs" / "configuration.md").read_text()
PROCESSES = {"api": ApiSettings, "gpu_worker": GpuWorkerSettings, "batcher": BatcherSettings}
ROW = re.compile(r"^\| `(DARKROOM_\w+)` \| ([^|]*) \|[^|]*\| ([^|]*) \|", re.MULTILINE)
"""Variable, default and readers; the unit in between may be empty."""


def _groups_by_reader() -> dict[str, list[type[SettingsGroup]]]:
    readers = {
        name: [group.type for group in fields(process) if isinstance(group.type, type)]
        for name, process in PROCESSES.items()
    }
    commands = re.findall(r"\bread\((\w+)\)", inspect.getsource(cli))
    readers["darkroom"] = [getattr(core_settings, name) for name in commands]
    readers["make up"] = [StackSettings]
    return readers


def _default(value: Any) -> str:
    return "none" if value is None else str(value).replace(str(Path.home()), "~")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        linked = document.parent / name if name else document
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in slugs, target


def test_every_setting_is_documented_with_its_readers_and_no_other() -> None:
    readers = defaultdict(set)
    for reader, groups in _groups_by_reader().items():
        for group in groups:
            for name in group.model_fields:
                readers[f"DARKROOM_{name.upper()}"].add(reader)
    # The command finds the stack's settings there without a group of its own.
    readers["DARKROOM_HOME"].add("darkroom")
    assert {variable: set(cell.split(", ")) for variable, _, cell in ROW.findall(CONFIGURATION)} == readers


def test_the_documented_defaults_are_those_of_the_code() -> None:
    documented = {variable: cell.strip("`") for variable, cell, _ in ROW.findall(CONFIGURATION)}
    expected = {}
    # A process's own default comes before the stack's, which the text below the tables names.
    for groups in reversed(_groups_by_reader().values()):
        for group in groups:
            for name, field in group.model_fields.items():
                expected[f"DARKROOM_{name.upper()}"] = (
                    "required"
                    if field.is_required()
                    else _default(field.get_default(call_default_factory=True))
                )
    expected["DARKROOM_WORKER_NAME"] = "host name and process id"
    expected["DARKROOM_MODELS"] = expected["DARKROOM_WORKER_MODELS"] = "[]"
    expected["DARKROOM_WORKER_BUCKETS"] = expected["DARKROOM_OFFERS"] = "[]"
    expected["DARKROOM_ALLOWED_ORIGINS"] = expected["DARKROOM_TRUSTED_PROXIES"] = "[]"
    for name in ("JWT_OTHER_SECRETS", "PASSWORD_OTHER_PEPPERS", "DOWNLOAD_OTHER_SECRETS"):
        expected[f"DARKROOM_{name}"] = "[]"
    expected["DARKROOM_WORKER_FP8"] = "false"
    expected["DARKROOM_WORKER_FUSION"] = "true"
    expected["DARKROOM_WORKER_TIERS"] = '["PREMIUM", "NORMAL"]'
    assert documented == expected


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    kinds = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
    names = {
        f"{metric._name}_total" if isinstance(metric, prometheus_client.Counter) else metric._name
        for metric in vars(telemetry).values()
        if isinstance(metric, kinds)
    }
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    assert set(re.findall(r"`(darkroom_\w+)`", text)) == names


def test_the_example_catalogue_is_a_good_one() -> None:
    example = re.search(r"```toml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert example is not None
    assert Catalogue.model_validate(tomllib.loads(example[1])).default.id == "my-model"


def test_the_documented_models_are_those_of_the_shipped_catalogue() -> None:
    table = CONFIGURATION.partition("| model | hub repository | licence |\n")[2].partition("\n\n")[0]
    documented = [re.sub("[`|]", "", row).split("  ") for row in table.splitlines()[1:]]
    assert [[cell.strip() for cell in row] for row in documented] == [
        [model.id, getattr(model.source, "repository", "none: bundled"), model.license]
        for model in load_catalogue().models
    ]


def test_every_failpoint_is_documented_and_every_documented_one_exists() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| [a-z_, ]+ \| `([a-z_.]+)` \|", text, re.MULTILINE)
    assert rows == list(Failpoint)
