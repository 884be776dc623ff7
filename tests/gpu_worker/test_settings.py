import pytest

from core.errors import ConfigurationError
from core.settings import read
from gpu_worker.settings import WorkerSettings


@pytest.mark.parametrize(
    ("slots", "buckets"),
    [(1, (1, 2)), (2, (1, 2, 4)), (8, (1, 2, 4, 6, 8, 10, 12, 14, 16))],
)
def test_every_size_of_guided_pictures_has_a_bucket_and_one_row_has(
    slots: int, buckets: tuple[int, ...]
) -> None:
    assert WorkerSettings(worker_slots=slots).buckets == buckets


def test_buckets_that_are_asked_for_are_sorted_and_said_once() -> None:
    assert WorkerSettings(worker_buckets=(16, 2, 16)).buckets == (2, 16)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DARKROOM_WORKER_BUCKETS", "[0]"),
        ("DARKROOM_WORKER_PRECISION", "int8"),
        ("DARKROOM_WORKER_TIERS", "[]"),
        ("DARKROOM_WORKER_TIERS", '["BATCH"]'),
        ("DARKROOM_WORKER_MODEL_MEMORY", "-1"),
        ("DARKROOM_WORKER_MODEL_MEMORY", "much"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        read(WorkerSettings)


def test_the_models_memory_is_said_in_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WORKER_MODEL_MEMORY", "20GiB")
    assert WorkerSettings().worker_model_memory == 20 * 2**30
