"""Pictures made alone, to compare with those that were made in company and through faults."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import torch
from PIL import Image

from core.catalogue import load_catalogue
from core.lifecycle import Delivery, Tier
from core.messages import Job, Parameters
from gpu_worker.engine import Engine, Picture, Policy, pictures_of
from gpu_worker.pipeline import Placement
from tests.faults.invariants import Pixels
from tests.faults.service import MODEL

_ALWAYS: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass
class _Ear:
    made: list[Image.Image | Exception] = field(default_factory=list)

    def joined(self, picture: Picture) -> None:
        pass

    def stepped(self, picture: Picture, step: int) -> None:
        pass

    def wants_preview(self, picture: Picture) -> bool:  # noqa: ARG002 - the engine's hook
        return False

    def previewed(self, picture: Picture, image: Image.Image) -> None:
        pass

    def ended(self, picture: Picture, made: Image.Image | Exception) -> None:  # noqa: ARG002 - the engine's hook
        self.made.append(made)


class Alone:
    """Makes each picture once, in an engine that holds no other."""

    def __init__(self, folder: Path) -> None:
        policy = Policy(capacity=1, fill=0, patience=1)
        self._engine = Engine(placement=Placement(torch.device("cpu"), torch.float32), policy=policy)
        entry = load_catalogue().default.model_copy(update={"id": MODEL})
        self._engine.offer(entry, folder)
        self._engine.warm_up()
        self._made: dict[Parameters, Pixels] = {}

    def __call__(self, parameters: Parameters) -> Pixels:
        """The picture, RGB, of shape (height, width, 3)."""
        if parameters.guidance_scale <= 1:
            # Without guidance nothing is made of it.
            parameters = parameters.model_copy(update={"negative_prompt": ""})
        if parameters not in self._made:
            self._made[parameters] = self._make(parameters)
        return self._made[parameters]

    def _make(self, parameters: Parameters) -> Pixels:
        job = Job(
            id=uuid4(),
            tier=Tier.PREMIUM,
            delivery=Delivery.DOWNLOAD,
            parameters=parameters,
            accepted_at=_ALWAYS,
        )
        ear = _Ear()
        [picture] = pictures_of(job)
        self._engine.submit(picture, ear)
        while not ear.made:
            self._engine.turn()
        [made] = ear.made
        assert isinstance(made, Image.Image), made
        return np.asarray(made)
