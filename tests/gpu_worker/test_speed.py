import pytest

from gpu_worker.engine.speed import Speedometer


def test_before_any_work_nothing_is_known() -> None:
    meter = Speedometer()
    assert meter.images_per_second == 0
    assert list(meter.speeds) == []


def test_work_over_its_time_is_the_speed_of_each_model() -> None:
    meter = Speedometer()
    for _ in range(10):
        meter.note("small", seconds=0.1, megapixels=0.5, finished=1)
        meter.note("large", seconds=0.4, megapixels=1.0, finished=0)
    small, large = meter.speeds
    assert (small.model, large.model) == ("small", "large")
    assert small.megapixel_steps_per_second == pytest.approx(5)
    assert small.seconds_per_step == pytest.approx(0.1)
    assert large.megapixel_steps_per_second == pytest.approx(2.5)
    assert meter.images_per_second == pytest.approx(2, rel=0.05)


def test_the_recent_counts_more() -> None:
    meter = Speedometer()
    for _ in range(600):
        meter.note("model", seconds=1, megapixels=1, finished=1)
    for _ in range(600):
        meter.note("model", seconds=1, megapixels=2, finished=2)
    assert meter.images_per_second == pytest.approx(2, rel=0.01)
    assert meter.speeds[0].megapixel_steps_per_second == pytest.approx(2, rel=0.01)
