"""What the benchmarks reckon with; what they measure is not tested here."""

import asyncio
import json
import math
import statistics
from pathlib import Path

import pytest
import torch

from benchmarks.addresses import figures
from benchmarks.arrivals import percentile, poisson_arrivals
from benchmarks.customers import Service, serve
from benchmarks.likeness import psnr
from benchmarks.metrics import Histogram
from benchmarks.orders import DEMO, Orders
from benchmarks.report import Figure, Report, at_least, at_most
from benchmarks.stock import StockPipeline, batches
from benchmarks.studio import open_studio
from benchmarks.subscribers import Heard
from benchmarks.subscriptions import Plan, Told, measure
from core.catalogue import DirectorySource
from core.messages import Parameters
from gpu_worker.engine import Policy
from gpu_worker.pipeline import Placement
from tests.gpu_worker.tiny_model import build, build_xl


def test_arrivals_come_in_order_at_the_asked_rate_with_exponential_gaps() -> None:
    moments = poisson_arrivals(rate=4.0, count=20_000, seed=1)
    gaps = [after - before for before, after in zip([0.0, *moments], moments, strict=False)]
    assert min(gaps) >= 0
    assert statistics.mean(gaps) == pytest.approx(1 / 4, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 4, rel=0.03)


def test_the_same_seed_gives_the_same_arrivals_at_any_rate() -> None:
    slow, fast = (poisson_arrivals(rate=rate, count=5, seed=7) for rate in (1.0, 2.0))
    assert slow == pytest.approx([2 * moment for moment in fast])
    assert slow != poisson_arrivals(rate=1.0, count=5, seed=8)


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.01, 0.5, 0.95, 1)] == [1, 50, 95, 100]
    assert percentile([3.0], 0.95) == 3
    with pytest.raises(ValueError, match="no percentile"):
        percentile([], 0.5)


def test_orders_are_the_same_for_everyone_and_every_one_is_different() -> None:
    first, second = (Orders(3).parameters(20, steps=(10, 50)) for _ in range(2))
    assert first == second
    assert len({(one.prompt, one.seed) for one in first}) == 20
    assert all(10 <= one.steps <= 50 for one in first)


def test_batches_keep_the_order_and_lose_nobody() -> None:
    asked = Orders(1).parameters(7)
    found = batches(asked, 3)
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert [one for batch in found for one in batch] == asked


@pytest.mark.parametrize("negative_prompt", ["", "snow"])
def test_the_xl_pipeline_is_asked_for_what_ours_is_asked_for(negative_prompt: str, tmp_path: Path) -> None:
    build(tmp_path / "small")
    build_xl(tmp_path / "small", tmp_path / "xl")
    source = DirectorySource(kind="directory", path=tmp_path / "xl")
    entry = DEMO.model_copy(update={"id": "xl", "family": "sdxl", "source": source})
    placement = Placement(torch.device("cpu"), torch.float32)
    [asked] = Orders(1, entry).parameters(1, steps=(2, 2))
    asked = asked.model_copy(update={"negative_prompt": negative_prompt})
    [reference] = StockPipeline(source.path, family="sdxl", placement=placement).make([asked])
    with open_studio(
        entry, source.path, placement=placement, policy=Policy(capacity=1, fill=0, patience=1), buckets=()
    ) as studio:
        [ours], _ = studio.make([asked])
    assert psnr(ours, reference) > 50


def test_what_came_since_an_earlier_look_is_the_difference() -> None:
    before = Histogram(2.0, {0.1: 1, 1.0: 2, math.inf: 2})
    after = Histogram(3.0, {0.1: 1, 1.0: 12, math.inf: 12})
    since = after.since(before)
    assert (since.count, since.mean, since.percentile_bound(0.95)) == (10, 0.1, 1.0)
    assert after.since(Histogram(0.0, {})).count == 12


def test_a_report_passes_when_every_figure_is_on_the_right_side_of_its_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = Report(), Report()
    for report in (good, bad):
        report.add(
            "one", [Figure(name="a", value=0.97, bar=at_least(0.97)), Figure(name="b", value=5)], seconds=1
        )
    bad.add("two", [Figure(name="c", value=1.3, bar=at_most(1.25))], seconds=1)
    assert (good.passed, bad.passed) == (True, False)
    printed = capsys.readouterr().out
    assert (printed.count("PASS"), printed.count("FAIL")) == (2, 1)
    bad.write(tmp_path / "figures.json", setting={"cores": 2})
    written = json.loads((tmp_path / "figures.json").read_text())
    assert (written["passed"], written["parts"]["two"][0]["passed"]) == (False, False)


async def test_customers_with_a_backlog_keep_a_server_busy_and_the_others_are_timed() -> None:
    turn, most, at_once = asyncio.Semaphore(2), 0, 0

    async def ask(_: Parameters) -> None:
        nonlocal most, at_once
        async with turn:
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.02)
            at_once -= 1

    service = Service(one_by_one=ask, backlog=ask, pressure=2, at_once=2)
    served = await serve(service, Orders(1), [0.1, 0.2, 0.3])
    assert most == 2
    assert len(served.latencies.seconds) == 3
    assert min(served.latencies.seconds) >= 0.02
    alone = await serve(Service(one_by_one=ask, backlog=ask, pressure=0, at_once=2), Orders(1), [0.1, 0.2])
    assert alone.images_per_second < served.images_per_second <= 110


def test_a_step_that_was_merged_into_a_later_one_is_told_with_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told()
    for moment, step in ((1.0, 1), (2.0, 2), (3.0, 3), (4.0, 4)):
        monkeypatch.setattr("time.monotonic", lambda moment=moment: moment)
        told.note(7, step)
    heard = Heard()
    for step, moment in ((1, 1.5), (3, 3.25)):
        heard.numbers.append(7)
        heard.steps.append(step)
        heard.moments.append(moment)
    assert told.delays(heard) == ([0.5, 1.25, 0.25], 1)


async def test_the_benchmark_of_subscriptions_runs_in_a_small_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_WEBSOCKET_PATIENCE_SECONDS", "1")
    plan = Plan(subscriptions=60, busy=10, seconds=2, stalled=1)
    figures = {figure.name: figure for figure in await measure(tmp_path, plan)}
    assert figures["subscriptions"].value == 60
    for name in (
        "steps that never arrived",
        "subscriptions after all left",
        "interests at the broker after all left",
    ):
        assert figures[name].value == 0, figures[name]
    assert figures["until who does not read is cut off"].passed


def test_ways_are_compared_turn_by_turn_so_that_a_slow_moment_counts_for_both() -> None:
    unknown = [0.1, 0.1, 0.9, 0.1, 0.1]
    found = {
        figure.name: figure
        for figure in figures({"unknown": unknown, "known": [0.11, 0.11, 0.99, 0.11, 0.11]})
    }
    assert found["known"].value == pytest.approx(110)
    ratio = found["known ÷ unknown, or the inverse"]
    assert ratio.value == pytest.approx(1.1)
    assert not ratio.passed
    assert found["known slower than unknown"].value == pytest.approx(21 / 25)


def test_a_way_that_is_faster_tells_as_much_as_one_that_is_slower() -> None:
    ratios = [
        next(figure for figure in figures({"unknown": [1.0], "known": [known]}) if figure.bar)
        for known in (1.25, 0.8)
    ]
    assert [ratio.value for ratio in ratios] == pytest.approx([1.25, 1.25])
