"""Trains the text encoder to tell captions apart, before any picture.

Trained together with the U-Net, it forgot the words for left and right at once: what they say shows only
where the U-Net has a use for it, and the U-Net had none for what it was not told. So it is first taught to
say what scene a caption speaks of, and stays as it is from then on, as Stable Diffusion's text encoder does.
"""

from pathlib import Path
from typing import Final

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from gpu_worker.demo_model.dataset import ATTRIBUTES, CAPTIONS_PER_SCENE, Dataset
from gpu_worker.demo_model.tokens import token_ids
from gpu_worker.demo_model.training import Run, Schedule, mixed_precision

_CAPTIONS: Final = 400_000


def train_text(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    dataset: Dataset,
    schedule: Schedule,
    folder: Path,
) -> None:
    """Train ``text_encoder`` in place and leave its averaged weights in it.

    From the mean of the tokens from the end mark on, a linear layer must tell each attribute of the scene:
    they are most of what the U-Net reads. What a caption leaves out cannot be told, and teaches nothing.

    Args:
        text_encoder: untrained; says on which device to compute.
        tokenizer: learned already.
        dataset: captions and what they speak of.
        schedule: how long and how fast.
        folder: for the state.
    """
    device = text_encoder.device
    captions = [text for texts in dataset.captions for text in texts][:_CAPTIONS]
    tokens = token_ids(tokenizer, captions).to(device)
    attributes = (
        torch.from_numpy(dataset.attributes).long().repeat_interleave(CAPTIONS_PER_SCENE, 0).to(device)
    )
    heads = nn.ModuleList(nn.Linear(text_encoder.config.hidden_size, len(kind)) for kind in ATTRIBUTES).to(
        device
    )
    random = torch.Generator(device).manual_seed(schedule.steps)

    def loss_of() -> torch.Tensor:
        chosen = torch.randint(len(tokens), (schedule.batch,), generator=random, device=device)
        ids = tokens[chosen].long()
        with mixed_precision(device):
            said = text_encoder(ids).last_hidden_state
        ended = ((ids == tokenizer.eos_token_id).cumsum(1) > 0).unsqueeze(2)
        summary = (said.float() * ended).sum(1) / ended.sum(1)
        losses = [
            functional.cross_entropy(head(summary), attributes[chosen, number])
            for number, head in enumerate(heads)
        ]
        return torch.stack(losses).sum()

    run = Run([text_encoder, heads], schedule, folder / "text.pt")
    run.train("text encoder", loss_of, lambda _step: None)
