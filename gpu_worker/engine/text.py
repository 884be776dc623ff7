"""Prompts as the U-Net reads them: embedded in as many windows as they need, and kept for the next time."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
import torch

from core.telemetry import EMBEDDINGS
from gpu_worker.engine.recording import REFUSALS, Recorder

log = structlog.get_logger(__name__)

CACHE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Embedding:
    """One text.

    Attributes:
        tokens: shape (windows * window length, width).
        pooled: shape (width,), or none for models that do not read it.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None

    @property
    def size(self) -> int:
        """Bytes on the device."""
        return sum(part.nbytes for part in (self.tokens, self.pooled) if part is not None)

    @property
    def zeros(self) -> "Embedding":
        """Nothing at all, of the same shape."""
        pooled = None if self.pooled is None else torch.zeros_like(self.pooled)
        return Embedding(torch.zeros_like(self.tokens), pooled)

    def copy(self) -> "Embedding":
        """The same on tensors of its own."""
        return Embedding(self.tokens.clone(), None if self.pooled is None else self.pooled.clone())


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What steers one picture: a row of the U-Net's batch for each embedding.

    Attributes:
        rows: the prompt's alone, or where guidance is on the negative prompt's and then the prompt's.
        guidance: how far to go from the first row's answer towards and beyond the last one's.
    """

    rows: tuple[Embedding, ...]
    guidance: float

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that it holds on the device."""
        return [part for row in self.rows for part in (row.tokens, row.pooled) if part is not None]

    @property
    def tokens(self) -> int:
        """The length of the embedded prompts, the same for all rows."""
        return len(self.rows[0].tokens)


class TextEncoders:
    """The text encoders of one model. Not for two threads at once.

    A prompt longer than the encoder's window is cut into windows of its own, whose embeddings follow one
    another. The negative prompt is then filled up with empty windows to the same length, and the other way
    round. A prompt that fits is embedded exactly as diffusers does it.
    """

    def __init__(self, pipeline: Any, *, recorder: Recorder | None = None) -> None:  # noqa: ANN401 - diffusers is not typed
        self._pipeline = pipeline
        # Asked of the U-Net, it looks through its parameters, for longer than a text takes to be embedded.
        self._device, self._dtype = pipeline.unet.device, pipeline.unet.dtype
        self._recorder = recorder
        self._window: _Window | None = None
        pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
        if hasattr(pipeline, "text_encoder_2"):
            pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
        self._pairs: Sequence[tuple[Any, Any]] = pairs
        self._kept: OrderedDict[tuple[str, int], Embedding] = OrderedDict()
        self._kept_bytes = 0

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Record, where there is something to record with, how texts of one window are embedded."""
        if self._recorder is None:
            return
        ids = [_framed(tokenizer, "", 1).to(self._device) for tokenizer, _ in self._pairs]
        try:
            self._window = _Window(self._run, self._recorder, ids)
        except REFUSALS as error:
            log.warning("text.not_recorded", error=str(error))
            torch.cuda.empty_cache()

    def condition(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditioning:
        """The rows of a picture, one or two as guidance is off (at most 1) or on.

        Models distilled for guidance read its scale as an input instead and always have one row.
        """
        if guidance_scale <= 1 or self._pipeline.unet.config.time_cond_proj_dim is not None:
            return Conditioning((self._embed(prompt, self._windows(prompt)),), guidance_scale)
        windows = max(self._windows(prompt), self._windows(negative_prompt))
        wanted = self._embed(prompt, windows)
        if not negative_prompt and getattr(self._pipeline.config, "force_zeros_for_empty_prompt", False):
            # XL models have their own idea of nothing.
            return Conditioning((wanted.zeros, wanted), guidance_scale)
        return Conditioning((self._embed(negative_prompt, windows), wanted), guidance_scale)

    def _windows(self, text: str) -> int:
        tokenizer, _ = self._pairs[0]
        room = int(tokenizer.model_max_length) - 2
        return max(1, math.ceil(len(_ids(tokenizer, text)) / room))

    def _embed(self, text: str, windows: int) -> Embedding:
        key = (text, windows)
        if (found := self._kept.get(key)) is not None:
            self._kept.move_to_end(key)
            EMBEDDINGS.labels(source="cache").inc()
            return found
        EMBEDDINGS.labels(source="encoder").inc()
        made = self._encode(text, windows)
        self._kept[key] = made
        self._kept_bytes += made.size
        while self._kept_bytes > CACHE_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.size
        return made

    @torch.inference_mode()
    def _encode(self, text: str, windows: int) -> Embedding:
        ids = [_framed(tokenizer, text, windows) for tokenizer, _ in self._pairs]
        if windows == 1 and self._window is not None:
            return self._window(ids)
        return self._run([own.to(self._device) for own in ids])

    def _run(self, ids: Sequence[torch.Tensor]) -> Embedding:
        """The embedding of token ids, of each tokenizer of shape (windows, window length)."""
        if len(self._pairs) == 1:
            [(_, encoder)], [own] = self._pairs, ids
            return Embedding(encoder(own)[0].flatten(0, 1).to(self._dtype), None)
        parts = []
        for (_, encoder), own in zip(self._pairs, ids, strict=True):
            answer = encoder(own, output_hidden_states=True)
            parts.append(answer.hidden_states[-2])
        # What the second encoder says of the first window as a whole is the text's pooled embedding.
        return Embedding(torch.cat(parts, dim=-1).flatten(0, 1).to(self._dtype), answer[0][0].to(self._dtype))


class _Window:
    """How one window is embedded, recorded on tensors of its own."""

    def __init__(
        self,
        run: Callable[[Sequence[torch.Tensor]], Embedding],
        recorder: Recorder,
        ids: Sequence[torch.Tensor],
    ) -> None:
        self._ids = ids
        # Kernels are built and chosen, which cannot be recorded.
        run(ids)
        self._replay = recorder(partial(run, ids))

    def __call__(self, ids: Sequence[torch.Tensor]) -> Embedding:
        for own, wanted in zip(self._ids, ids, strict=True):
            own.copy_(wanted)
        return self._replay().copy()


def _ids(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 - transformers is not typed
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return ids


def _framed(tokenizer: Any, text: str, windows: int) -> torch.Tensor:  # noqa: ANN401 - as above
    """Token ids of ``text``, shape (windows, window length), each window with its marks of start and end."""
    ids, room = _ids(tokenizer, text), tokenizer.model_max_length - 2
    rows = []
    for start in range(0, windows * room, room):
        part = ids[start : start + room]
        row = [tokenizer.bos_token_id, *part, tokenizer.eos_token_id]
        rows.append([*row, *[tokenizer.pad_token_id] * (tokenizer.model_max_length - len(row))])
    return torch.tensor(rows)
