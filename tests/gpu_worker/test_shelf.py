"""Several models on one device that has not room for all of them."""

import itertools
import json
import time
import weakref
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import torch
from PIL import Image

from core.catalogue import ModelEntry
from core.errors import ConfigurationError, WeightsError
from core.lifecycle import Tier
from gpu_worker.engine import Engine, Policy
from gpu_worker.engine.model import Model
from gpu_worker.engine.pace import Graph
from gpu_worker.engine.shelf import Shelf
from gpu_worker.engine.slots import Slot
from gpu_worker.pipeline import Placement
from tests.gpu_worker.test_engine import BUNDLED, Ears, make, picture, psnr

CPU = Placement(torch.device("cpu"), torch.float32)
PATIENCE = 12
TINY, BUNDLED_ID = "tiny", "darkroom-demo"


def of_both(engine: Engine, demo_entry: ModelEntry, model_folder: Path) -> Engine:
    engine.offer(demo_entry, BUNDLED)
    engine.offer(demo_entry.model_copy(update={"id": TINY}), model_folder)
    return engine


@pytest.fixture
def cramped(demo_entry: ModelEntry, model_folder: Path) -> Engine:
    """An engine of two models with room for one."""
    policy = Policy(capacity=4, fill=0, patience=PATIENCE)
    engine = Engine(placement=CPU, policy=policy, model_memory=48_000_000)
    return of_both(engine, demo_entry, model_folder)


def loaded(engine: Engine) -> list[str]:
    return [model for model in engine.models if engine._shelf.get(model)]


def run(engine: Engine, ears: Ears, count: int) -> None:
    while len(ears.made) < count:
        engine.turn()


def test_the_least_recently_used_model_leaves_and_comes_back_the_same(cramped: Engine) -> None:
    asked = picture(model=TINY)
    [before] = make(cramped, asked)
    assert loaded(cramped) == [TINY]
    make(cramped, picture())
    assert loaded(cramped) == [BUNDLED_ID]
    [after] = make(cramped, replace(asked, job=uuid4()))
    assert psnr(before, after) >= 50


def test_of_a_model_that_leaves_no_graph_is_kept(cramped: Engine) -> None:
    make(cramped, picture(model=TINY))
    graph = Graph(lambda: None)
    cramped._pace._graph = graph
    gone = weakref.ref(graph)
    del graph
    make(cramped, picture())
    assert gone() is None


def test_what_loading_a_model_takes_for_the_first_time_is_not_its_speed(
    demo_entry: ModelEntry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_slowly(shelf: Shelf, model: str) -> Model:
        time.sleep(2)
        return load(shelf, model)

    load = Shelf.load
    monkeypatch.setattr(Shelf, "load", load_slowly)
    engine = Engine(placement=CPU, policy=Policy(capacity=4, fill=0, patience=PATIENCE))
    engine.offer(demo_entry, model_folder)
    engine.warm_up()
    [speed] = engine.speeds
    assert speed.seconds_per_step < 1


def test_where_there_is_room_for_both_both_stay(demo_entry: ModelEntry, model_folder: Path) -> None:
    policy = Policy(capacity=4, fill=0, patience=PATIENCE)
    engine = of_both(Engine(placement=CPU, policy=policy), demo_entry, model_folder)
    make(engine, picture(), picture(model=TINY))
    assert loaded(engine) == [BUNDLED_ID, TINY]


def test_premium_gets_its_model_at_once_and_batch_goes_on_where_it_was(cramped: Engine) -> None:
    ears = Ears()
    batch = [picture(model=TINY, tier=Tier.NORMAL, steps=40, seed=n) for n in range(2)]
    for one in batch:
        cramped.submit(one, ears)
    while not ears.heard:
        cramped.turn()
    premium = picture(steps=3)
    cramped.submit(premium, ears)
    run(cramped, ears, 3)
    assert next(iter(ears.made)) == premium.job
    assert [ears.steps(one) for one in batch] == [list(range(1, 41))] * 2
    [alone] = make(cramped, replace(batch[0], job=uuid4()))
    got = ears.made[batch[0].job]
    assert isinstance(got, Image.Image)
    assert psnr(got, alone) >= 50


@pytest.mark.parametrize("tier", Tier)
def test_pictures_of_two_models_take_turns_and_none_starves(cramped: Engine, tier: Tier) -> None:
    ears, models = Ears(), {}
    for number in range(6):
        one = picture(model=(TINY, BUNDLED_ID)[number % 2], tier=tier, steps=30, seed=number)
        models[one.job] = one.model
        cramped.submit(one, ears)
    run(cramped, ears, 6)
    assert all(isinstance(one, Image.Image) for one in ears.made.values())
    # One model worked for its time and a little more, not to its end, before the other's turn came.
    assert longest_run(ears, models) <= 3 * (PATIENCE + 12)
    assert turns(ears, models) <= 12


def longest_run(ears: Ears, models: dict[UUID, str]) -> int:
    longest = current = 0
    last = ""
    for job, _ in ears.heard:
        current = current + 1 if models[job] == last else 1
        last, longest = models[job], max(longest, current)
    return longest


def turns(ears: Ears, models: dict[UUID, str]) -> int:
    heard = [models[job] for job, _ in ears.heard]
    return sum(one != other for one, other in itertools.pairwise(heard))


def test_a_model_that_does_not_load_fails_its_own_pictures_and_no_others(
    demo_entry: ModelEntry, own_model_folder: Path, model_folder: Path
) -> None:
    engine = Engine(placement=CPU, policy=Policy(capacity=4, fill=0, patience=PATIENCE))
    engine.offer(demo_entry, model_folder)
    engine.offer(demo_entry.model_copy(update={"id": "broken"}), own_model_folder)
    config = own_model_folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 5}))
    ears = Ears()
    good, bad = picture(), picture(model="broken")
    for one in (bad, good):
        engine.submit(one, ears)
    run(engine, ears, 2)
    assert isinstance(ears.made[good.job], Image.Image)
    assert isinstance(ears.made[bad.job], WeightsError)
    with pytest.raises(WeightsError):
        engine.warm_up()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("canceled", [False, True])
def test_of_a_model_that_fails_to_warm_up_nothing_is_kept(
    demo_entry: ModelEntry, model_folder: Path, monkeypatch: pytest.MonkeyPatch, canceled: bool
) -> None:
    engine = Engine(placement=CPU, policy=Policy(capacity=4, fill=0, patience=PATIENCE))
    engine.offer(demo_entry, model_folder)
    ears, asked, load = Ears(), picture(), Shelf.load
    weights: list[weakref.ref[torch.Tensor]] = []

    def load_meanwhile(shelf: Shelf, model: str) -> Model:
        if canceled:
            engine.cancel(asked.job, ears)
        return load(shelf, model)

    def fail(model: Model, _: Slot) -> None:
        weights.append(weakref.ref(next(model._unet.parameters())))
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(Shelf, "load", load_meanwhile)
    monkeypatch.setattr(Model, "warm_up", fail)
    engine.submit(asked, ears)
    while not weights:
        engine.turn()
    assert list(ears.made) == ([] if canceled else [asked.job])
    assert weights[0]() is None


def test_a_model_larger_than_the_memory_is_refused_with_both_figures(
    demo_entry: ModelEntry, model_folder: Path
) -> None:
    engine = Engine(placement=CPU, policy=Policy(capacity=4, fill=0, patience=PATIENCE), model_memory=1000)
    with pytest.raises(ConfigurationError, match=r"takes 0\.04 GiB.* allows 0\.00 GiB"):
        engine.offer(demo_entry, BUNDLED)
