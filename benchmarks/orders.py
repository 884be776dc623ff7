"""What customers ask for: the same orders for ours and for what it is compared with."""

import numpy as np

from core.catalogue import ModelEntry, load_catalogue
from core.messages import MAX_SEED, Parameters
from gpu_worker.demo_model.captions import caption
from gpu_worker.demo_model.scenes import random_scene

DEMO = load_catalogue().default
"""The bundled model."""


class Orders:
    """Asks for one picture after the other, each with a prompt and a seed of its own.

    Args:
        seed: decides all of them.
        model: what they are made with.
    """

    def __init__(self, seed: int, model: ModelEntry = DEMO) -> None:
        self._model = model
        self._random = np.random.default_rng(seed)

    def parameters(self, count: int, *, steps: tuple[int, int] | None = None) -> list[Parameters]:
        """The next ``count`` pictures, with the model's defaults.

        Args:
            count: how many.
            steps: the fewest and the most of them, drawn evenly; the model's default unless given.
        """
        defaults = self._model.defaults
        fewest, most = steps or (defaults.steps, defaults.steps)
        return [
            Parameters(
                prompt=caption(random_scene(self._random), self._random),
                model=self._model.id,
                width=defaults.width,
                height=defaults.height,
                steps=int(self._random.integers(fewest, most, endpoint=True)),
                guidance_scale=defaults.guidance_scale,
                seed=int(self._random.integers(MAX_SEED)),
                scheduler=defaults.scheduler,
            )
            for _ in range(count)
        ]
