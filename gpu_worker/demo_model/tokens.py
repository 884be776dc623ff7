"""Captions as token ids, many at a time."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from gpu_worker.demo_model.architecture import WINDOW

_AT_ONCE: Final = 10_000


def token_ids(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids, shape (captions, window), cut or filled up to the window as the pipeline does.

    Straight from the tokenizer's backend: there are a million captions.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(WINDOW)
    backend.enable_padding(length=WINDOW, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    rows = [
        np.array(
            [one.ids for one in backend.encode_batch_fast(captions[start : start + _AT_ONCE])], dtype=np.int16
        )
        for start in range(0, len(captions), _AT_ONCE)
    ]
    return torch.from_numpy(np.concatenate(rows))
