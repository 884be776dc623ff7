import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.catalogue import ModelEntry, load_catalogue
from gpu_worker.engine import Engine, Policy
from gpu_worker.pipeline import Placement
from tests.gpu_worker.tiny_model import build
from tests.hub_server import hub_server

__all__ = ["hub_server"]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build(folder)
    return folder


@pytest.fixture
def own_model_folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """What only the garbage collector would find stays where it is."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def demo_entry() -> ModelEntry:
    return load_catalogue().default


@pytest.fixture(scope="session")
def engine(demo_entry: ModelEntry, model_folder: Path) -> Engine:
    policy = Policy(capacity=8, fill=0, patience=100)
    placement = Placement(torch.device("cpu"), torch.float32)
    engine = Engine(placement=placement, policy=policy, buckets=(2,))
    engine.offer(demo_entry, model_folder)
    engine.warm_up()
    return engine
