"""Text that is embedded by a recording is what it is without one."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from gpu_worker.engine.text import Embedding, TextEncoders
from gpu_worker.pipeline import Placement, load_pipeline
from tests.gpu_worker.tiny_model import build_xl

CPU = Placement(torch.device("cpu"), torch.float32)
TEXTS = ("a", "a red lighthouse", "", "snow " * 40)

_Answer = TypeVar("_Answer")


class Recorder:
    """Records as CUDA graphs do: the answer of every replay is on the tensors of the recording."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, function: Callable[[], _Answer]) -> Callable[[], _Answer]:
        recorded = function()
        assert isinstance(recorded, Embedding)

        def replay() -> _Answer:
            answer = function()
            assert isinstance(answer, Embedding)
            recorded.tokens.copy_(answer.tokens)
            if recorded.pooled is not None and answer.pooled is not None:
                recorded.pooled.copy_(answer.pooled)
            self.replays += 1
            return recorded

        return replay


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_recorded_text_is_the_same_and_stays_so_when_others_follow(
    family: str, model_folder: Path, tmp_path: Path
) -> None:
    folder = model_folder
    if family == "sdxl":
        folder = tmp_path / "xl"
        build_xl(model_folder, folder)
    pipeline = load_pipeline(
        folder, family="sdxl" if family == "sdxl" else "sd1", variant=None, placement=CPU
    )
    plain, recorder = TextEncoders(pipeline), Recorder()
    recorded = TextEncoders(pipeline, recorder=recorder)
    recorded.warm_up()
    made = [recorded.condition(text, "", 7.5).rows for text in TEXTS]
    wanted = [plain.condition(text, "", 7.5).rows for text in TEXTS]
    for mine, theirs in zip(made, wanted, strict=True):
        for own, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(own.tokens, other.tokens)
            torch.testing.assert_close(own.pooled, other.pooled)
    # What has more windows than one, and what fills up its negative prompt, is embedded as it is.
    assert recorder.replays == 3
