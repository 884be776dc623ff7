import shutil
from pathlib import Path

import pytest
import torch

from core.catalogue import ModelEntry, load_catalogue
from gpu_worker.demo_model.build import build
from gpu_worker.engine import Engine
from gpu_worker.pipeline import Placement
from tests.hub_server import hub_server

__all__ = ["hub_server"]


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "demo"
    build(folder)
    return folder


@pytest.fixture
def own_demo_folder(demo_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(demo_folder, tmp_path / "model"))


@pytest.fixture(scope="session")
def demo_entry() -> ModelEntry:
    return load_catalogue().default


@pytest.fixture(scope="session")
def engine(demo_entry: ModelEntry, demo_folder: Path) -> Engine:
    engine = Engine(placement=Placement(torch.device("cpu"), torch.float32))
    engine.load(demo_entry, demo_folder)
    return engine
