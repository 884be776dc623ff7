import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.catalogue import HubSource, ModelEntry, offered_models
from core.errors import ConfigurationError, WeightsError
from core.pins import lock_path, read_pins
from core.settings import CatalogueSettings
from gpu_worker.hub import Hub
from gpu_worker.pin import pin_models
from gpu_worker.weights import WeightsStore
from tests.hub_server import REVISION, HubServer, git_hash

REPOSITORY = Path(__file__).resolve().parents[2]
UNET = "unet/diffusion_pytorch_model.safetensors"
LATER = "f" * 40
ENTRY = """
[[model]]
id = "{id}"
name = "M"
description = "d"
license = "MIT"
family = "sd1"
source = {{ kind = "hub", repository = "{repository}"{more} }}
defaults = {{ width = 64, height = 64, steps = 4, guidance_scale = 4.0, scheduler = "DDIM" }}
[model.limits]
min_size = 64
max_size = 64
max_steps = 4
max_guidance_scale = 4.0
max_count = 1
max_prompt_length = 9
"""


def entry(model_id: str = "mine", repository: str = "studio/model", more: str = "") -> str:
    return ENTRY.format(id=model_id, repository=repository, more=more)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A catalogue whose one model is on the hub and has no revision."""
    path = tmp_path / "models.toml"
    path.write_text(entry())
    return path


def hub_of(server: HubServer) -> Hub:
    return Hub(endpoint=server.address, attempts=2, first_delay=0.01)


def the_offered(catalogue: Path) -> ModelEntry:
    return offered_models(CatalogueSettings(catalogue=catalogue)).default


@pytest.fixture
def pinned(catalogue: Path, hub_server: HubServer) -> ModelEntry:
    """That model once it is pinned."""
    assert pin_models(catalogue, [], hub=hub_of(hub_server)) == 0
    hub_server.requests.clear()
    return the_offered(catalogue)


def test_a_pinned_model_is_downloaded_by_its_pin_alone(
    pinned: ModelEntry, hub_server: HubServer, tmp_path: Path
) -> None:
    folder = WeightsStore(tmp_path / "weights", hub=hub_of(hub_server)).ensure(pinned)
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert UNET in found
    assert "model_index.json" in found
    assert found == {name: hub_server.files[name] for name in found}
    assert isinstance(pinned.source, HubSource)
    assert {file.path for file in pinned.source.files} == set(found)
    assert sorted(hub_server.fetched) == sorted(found)
    assert not [path for path, _ in hub_server.requests if path.startswith("/api/")]


def test_pinning_again_leaves_the_lock_file_as_it_is(
    catalogue: Path, pinned: ModelEntry, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = lock_path(catalogue)
    before, written_at = lock.read_bytes(), lock.stat().st_mtime_ns
    hub_server.files = dict(reversed(hub_server.files.items()))
    assert pin_models(catalogue, [], hub=hub_of(hub_server)) == 0
    assert (lock.read_bytes(), lock.stat().st_mtime_ns) == (before, written_at)
    assert capsys.readouterr().out.splitlines()[-1].endswith("unchanged")


def test_pinning_again_follows_the_branch(
    catalogue: Path, pinned: ModelEntry, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.revision = LATER
    assert pin_models(catalogue, ["mine"], hub=hub_of(hub_server)) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"mine: studio/model@{LATER}")
    assert told.endswith(f"was {REVISION}")
    moved = the_offered(catalogue).source
    assert isinstance(moved, HubSource)
    assert moved.revision == LATER


def test_a_model_that_cannot_be_pinned_is_named_and_keeps_its_pin(
    catalogue: Path, pinned: ModelEntry, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_pins(lock_path(catalogue)).get("mine")
    catalogue.write_text(entry() + entry("yours", "studio/next"))
    hub_server.repository = "studio/next"
    assert pin_models(catalogue, [], hub=hub_of(hub_server)) == 1
    told = capsys.readouterr()
    assert told.err.startswith("mine: studio/model: 401")
    assert told.out.splitlines()[-1].startswith(f"yours: studio/next@{REVISION}")
    pins = read_pins(lock_path(catalogue))
    assert pins.get("mine") == before
    assert pins.get("yours") is not None


def test_a_hub_out_of_reach_leaves_no_lock_file(
    catalogue: Path, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Hub(endpoint="http://127.0.0.1:1", attempts=2, first_delay=0.01)
    assert pin_models(catalogue, [], hub=nowhere) == 1
    assert capsys.readouterr().err.startswith("mine: studio/model: given up after 2 attempts")
    assert not lock_path(catalogue).exists()


def test_something_else_than_a_hub_is_named_with_the_model(
    catalogue: Path, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = Hub(endpoint=f"{hub_server.address}/studio/model/resolve/{REVISION}/vae/config.json?")
    assert pin_models(catalogue, [], hub=elsewhere) == 1
    assert "does not answer as a hub does" in capsys.readouterr().err


def test_a_branch_may_be_named_and_has_to_exist(
    catalogue: Path, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pin_models(catalogue, ["mine"], hub=hub_of(hub_server), revision="main") == 0
    assert "/api/models/studio/model/revision/main" in {path for path, _ in hub_server.requests}
    assert pin_models(catalogue, ["mine"], hub=hub_of(hub_server), revision="gone") == 1
    assert capsys.readouterr().err.startswith("mine: studio/model@gone: 404")


def test_a_revision_in_the_catalogue_is_what_is_pinned(
    catalogue: Path, hub_server: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue.write_text(entry(more=f', revision = "{REVISION}"'))
    assert pin_models(catalogue, [], hub=hub_of(hub_server)) == 0
    assert f"/api/models/studio/model/revision/{REVISION}" in {path for path, _ in hub_server.requests}
    catalogue.write_text(entry(more=f', revision = "{LATER}"'))
    assert pin_models(catalogue, ["mine"], hub=hub_of(hub_server), revision="main") == 1
    assert f"mine: the catalogue says revision {LATER}, which main is not" in capsys.readouterr().err


def test_a_model_that_is_not_there_or_from_no_hub_is_refused(
    catalogue: Path, hub_server: HubServer, demo_entry: ModelEntry
) -> None:
    with pytest.raises(ConfigurationError, match="there is no model yours, only mine"):
        pin_models(catalogue, ["yours"], hub=hub_of(hub_server))
    catalogue.write_text(entry().replace('"hub", repository = "studio/model"', '"directory", path = "x"'))
    with pytest.raises(ConfigurationError, match="nothing to pin: mine"):
        pin_models(catalogue, ["mine"], hub=hub_of(hub_server))
    assert hub_server.requests == []


def test_a_file_that_the_hub_has_changed_since_is_refused_with_both_hashes(
    pinned: ModelEntry, hub_server: HubServer, tmp_path: Path
) -> None:
    name = "vae/config.json"
    expected = git_hash(hub_server.files[name])
    hub_server.files[name] += b"\n"
    found = git_hash(hub_server.files[name])
    with pytest.raises(
        WeightsError, match=rf"model mine: .*{name}: expected the hash {expected}, found {found}"
    ):
        WeightsStore(tmp_path / "weights", hub=hub_of(hub_server)).ensure(pinned)


def test_a_file_that_has_changed_on_this_machine_is_refused_with_both_hashes(
    pinned: ModelEntry, hub_server: HubServer, tmp_path: Path
) -> None:
    store = WeightsStore(tmp_path / "weights", hub=hub_of(hub_server))
    folder = store.ensure(pinned)
    hub_server.requests.clear()
    assert store.ensure(pinned) == folder
    assert hub_server.requests == []
    assert isinstance(pinned.source, HubSource)
    [file] = [file for file in pinned.source.files if file.path == UNET]
    content = bytearray((folder / UNET).read_bytes())
    content[-1] ^= 1
    (folder / UNET).write_bytes(content)
    with pytest.raises(WeightsError) as refused:
        store.ensure(pinned)
    assert f"{folder / UNET} has changed" in str(refused.value)
    assert f"expected the hash {file.digest}, found {file.digest_of(folder / UNET)}" in str(refused.value)
    (folder / UNET).unlink()
    with pytest.raises(WeightsError, match=rf"{UNET} is missing"):
        store.ensure(pinned)


def run(module: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def test_the_command_takes_hub_token_and_catalogue_from_the_environment(
    catalogue: Path, hub_server: HubServer
) -> None:
    done = run(
        "gpu_worker.pin",
        HF_ENDPOINT=hub_server.address,
        HF_TOKEN="hf_madeup",
        DARKROOM_CATALOGUE=str(catalogue),
    )
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    assert line.startswith(f"mine: studio/model@{REVISION}, ")
    assert line.endswith(", new")
    assert hub_server.tokens == {"Bearer hf_madeup"}
    assert read_pins(lock_path(catalogue)).get("mine") is not None


def test_the_command_ends_with_status_one_and_the_reason(catalogue: Path) -> None:
    done = run("gpu_worker.pin", "yours", DARKROOM_CATALOGUE=str(catalogue))
    assert (done.returncode, done.stderr) == (1, "pin: MODEL: there is no model yours, only mine\n")
    assert run("gpu_worker.pin", "--revision", "main").returncode == 2


def test_a_worker_does_not_start_with_a_model_that_is_not_pinned(catalogue: Path, tmp_path: Path) -> None:
    told = {
        "DARKROOM_CATALOGUE": str(catalogue),
        "DARKROOM_STORAGE_URL": f"file://{tmp_path}/objects",
        "DARKROOM_WEIGHTS_DIR": str(tmp_path / "weights"),
    }
    ended = run("gpu_worker", **told)
    assert ended.returncode == 1
    assert "gpu_worker: not pinned: mine." in ended.stderr
    assert "`python -m gpu_worker.pin mine`" in ended.stderr
    assert "Traceback" not in ended.stderr
