"""The documents say what the code does, where that can be checked."""

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import prometheus_client
import pytest

from core import telemetry
from core.catalogue import Catalogue
from core.settings import SettingsGroup

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
SETTINGS = (
    "core.settings",
    "api.settings",
    "gpu_worker.settings",
    "batcher.settings",
    "infra.local.settings",
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    fields = {
        f"DARKROOM_{field.upper()}"
        for module in SETTINGS
        for _, group in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if issubclass(group, SettingsGroup)
        for field in group.model_fields
    }
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    assert set(re.findall(r"^\| `(DARKROOM_\w+)` ", text, re.MULTILINE)) == fields


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
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    example = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    assert Catalogue.model_validate(tomllib.loads(example[1])).default.id == "my-model"
