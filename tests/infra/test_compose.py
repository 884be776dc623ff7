"""The containers of one host, as far as they can be seen without a container engine."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from api.settings import ApiSettings
from batcher.settings import BatcherSettings
from core.settings import ProcessSettings
from gpu_worker.settings import GpuWorkerSettings
from infra.local import nats
from tests.conftest import free_port, run_server

pytestmark = pytest.mark.infra

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "docker"
FILES = ("compose.yaml", "compose.gpu.yaml")
SETTINGS: dict[str, type[ProcessSettings]] = {
    "api": ApiSettings,
    "batcher": BatcherSettings,
    "gpu_worker": GpuWorkerSettings,
}

# A default may hold a variable with a default.
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>(?:\$\{[^}]*\}|[^}])*)|:\?[^}]*)\}")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What env.sh makes up."""
    folder = tmp_path_factory.mktemp("compose")
    script = folder / "env.sh"
    script.write_text((FOLDER / "env.sh").read_text())
    for _ in range(2):
        subprocess.run(["/bin/sh", script], check=True, capture_output=True)
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=") for line in lines)


def interpolated(node: Any, variables: dict[str, str]) -> Any:
    """As Compose reads it: variables, their defaults, and those that have to be there."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, default = found["name"], found["default"]
        if name in variables:
            return variables[name]
        assert default is not None, f"{name} is not made up"
        return str(interpolated(default, variables))

    if isinstance(node, dict):
        return {name: interpolated(item, variables) for name, item in node.items()}
    if isinstance(node, list):
        return [interpolated(item, variables) for item in node]
    if isinstance(node, str):
        return _VARIABLE.sub(value, node)
    return node


@pytest.fixture(scope="module")
def compose(secrets: dict[str, str]) -> Any:
    return interpolated(yaml.safe_load((FOLDER / "compose.yaml").read_text()), secrets)


@pytest.mark.parametrize("file", FILES)
def test_it_is_a_compose_file_without_a_word_that_compose_does_not_know(
    file: str, secrets: dict[str, str]
) -> None:
    document = interpolated(yaml.safe_load((FOLDER / file).read_text()), secrets)
    PyCompose.from_yaml(yaml.safe_dump(document)).validate()


@pytest.mark.parametrize("process", SETTINGS)
def test_each_process_is_told_what_it_needs_and_nothing_else(
    process: str, compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = compose["services"][process]["environment"]
    for name, value in environment.items():
        # One without a value is that of .env, and not there if that has none.
        if value is not None:
            monkeypatch.setenv(name, str(value))
    settings = SETTINGS[process].from_environment()
    groups = [getattr(settings, name) for name in type(settings).__dataclass_fields__]
    known = {f"DARKROOM_{name.upper()}" for group in groups for name in type(group).model_fields}
    assert set(environment) <= known


def test_whatever_the_documents_say_of_env_is_handed_on() -> None:
    document = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    text = (FOLDER.parents[1] / "docs" / "containers.md").read_text()
    [listed] = re.findall(
        r"^`infra/docker/.env` holds the secrets, and takes (.+?)\. ", text, re.DOTALL | re.MULTILINE
    )
    names = re.findall(r"`([A-Z_]+)`", listed)
    documented = {name if name.startswith("DARKROOM") else f"DARKROOM_SMTP{name}" for name in names}
    bare = {
        name
        for service in document["services"].values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    taken = set(re.findall(r"\$\{(DARKROOM_\w+)", json.dumps(document))) | bare
    assert taken == documented


def test_another_port_is_in_the_links(secrets: dict[str, str]) -> None:
    document = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    api = interpolated(document, {**secrets, "DARKROOM_PORT": "9000"})["services"]["api"]
    assert api["ports"] == ["127.0.0.1:9000:8000"]
    assert api["environment"]["DARKROOM_PUBLIC_URL"] == "http://127.0.0.1:9000"


@pytest.mark.parametrize("service", ["migrate", "api", "batcher", "gpu_worker"])
def test_what_is_ours_runs_with_a_root_that_nobody_can_write(service: str, compose: dict[str, Any]) -> None:
    declared = compose["services"][service]
    assert declared["read_only"] is True
    assert declared["cap_drop"] == ["ALL"]
    assert declared["tmpfs"] == ["/tmp"]  # noqa: S108 - the container's


def test_health_is_asked_for_with_get(compose: dict[str, Any]) -> None:
    """Which is what the servers' pages are for; with `--spider` it depends on the wget."""
    checks = [service.get("healthcheck", {}).get("test", []) for service in compose["services"].values()]
    asked = [words for words in checks if "wget" in words]
    assert len(asked) == 2
    assert not any("--spider" in words for words in asked)


def test_nothing_is_reached_from_elsewhere(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_broker_starts_with_its_configuration(
    compose: dict[str, Any], secrets: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    text = compose["configs"]["nats"]["content"]
    text = text.replace("0.0.0.0:4222", f"127.0.0.1:{port}").replace(":8222", f":{free_port()}")
    config = tmp_path / "nats.conf"
    config.write_text(text.replace("/data", str(tmp_path / "data")))
    monkeypatch.setenv("NATS_PASSWORD", secrets["NATS_PASSWORD"])
    for process in run_server(nats.command(config), port, tmp_path / "log"):
        assert process.poll() is None
    assert "Server is ready" in (tmp_path / "log").read_text()


def test_a_gpu_is_asked_for_where_it_is_said(compose: dict[str, Any]) -> None:
    assert "deploy" not in compose["services"]["gpu_worker"]
    override = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text())
    [device] = override["services"]["gpu_worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert json.dumps(override).count("gpu_worker") == 1
