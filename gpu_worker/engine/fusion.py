"""A U-Net and a decoder with fewer passes over memory: the same sums, rounded less often.

Between its convolutions and matrix products diffusers' U-Net reads and writes its activations many times
over: to normalise, to activate, to add a bias, a residual, the time. On a large GPU that is a third of a
step. Here each such run of small operations is one kernel, the three projections of an attention are one
product, and tokens are pictures with their channels last, so that nothing is ever transposed. Only what is
exactly of the form of Stable Diffusion's blocks is replaced; anything else stays as it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

from gpu_worker.engine.fp8 import NARROWEST, Fp8Linear, Scaled
from gpu_worker.engine.operations import add, add_layer_norm, geglu, group_norm, interleave, layer_norm


class Norm(nn.Module):
    """Group normalisation and SiLU."""

    def __init__(self, norm: nn.GroupNorm, *, silu: bool) -> None:
        super().__init__()
        self.norm = norm
        self._silu = silu

    def forward(self, pixels: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        """See :func:`group_norm`."""
        norm = self.norm
        return group_norm(
            pixels,
            norm.weight,
            norm.bias,
            groups=norm.num_groups,
            eps=norm.eps,
            shift=shift,
            silu=self._silu,
        )


class Resnet(nn.Module):
    """A residual block. The biases of its convolutions are added where their results are read anyway."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(block.norm1, silu=True), Norm(block.norm2, silu=True)
        self.conv1, self.conv2 = block.conv1, block.conv2
        self.time_emb_proj, self.conv_shortcut = block.time_emb_proj, block.conv_shortcut
        self._activated = block.skip_time_act
        if self.time_emb_proj is not None:
            self.time_emb_proj.bias = _sum(self.time_emb_proj.bias, self.conv1.bias)
        if self.conv_shortcut is not None:
            self.conv_shortcut.bias = _sum(self.conv_shortcut.bias, self.conv2.bias)

    def forward(self, pixels: torch.Tensor, temb: torch.Tensor | None) -> torch.Tensor:
        """Pixels of shape (samples, channels, height, width), the embedded time of shape (samples, width)."""
        shift = self.conv1.bias[None]
        if self.time_emb_proj is not None and temb is not None:
            shift = self.time_emb_proj(temb if self._activated else functional.silu(temb))
        hidden = _convolved(self.norm1(pixels), self.conv1)
        hidden = _convolved(self.norm2(hidden, shift), self.conv2)
        if self.conv_shortcut is None:
            return add(hidden, pixels, self.conv2.bias)
        return add(hidden, _pixels(_projected(_tokens(pixels), self.conv_shortcut), pixels))


class Upsampling(nn.Module):
    """A picture made twice as high and wide, and the convolution after it, in 4/9 of its multiplications.

    Enlarged, a pixel is four equal ones, so that of a pixel's neighbours within a kernel of 3 x 3 only 2 x 2
    differ. What the kernel multiplies equal ones by is summed beforehand, for each of four places within the
    pixel; all four are the channels of one convolution (decision 48).
    """

    def __init__(self, layer: Upsample2D) -> None:
        super().__init__()
        weight, self.bias = layer.conv.weight, layer.conv.bias
        quarters = [quarter for half in _halves(weight.detach().float(), 2) for quarter in _halves(half, 3)]
        self.weight = _fixed(torch.cat(quarters).to(weight).contiguous(memory_format=torch.channels_last))

    def forward(self, pixels: torch.Tensor, output_size: Sequence[int] | None = None) -> torch.Tensor:
        """Pixels of shape (samples, channels, height, width), and the height and width to make of them."""
        if output_size is None or [*output_size] == [2 * size for size in pixels.shape[2:]]:
            return interleave(functional.conv2d(pixels, self.weight, padding=1), self.bias)
        enlarged = functional.interpolate(pixels, size=output_size, mode="nearest")
        even_even, even_odd, odd_even, odd_odd = self.weight.chunk(4)
        weight = _whole(_whole(even_even, odd_even, 2), _whole(even_odd, odd_odd, 2), 3)
        return functional.conv2d(enlarged, weight, self.bias, padding=1)


class Transformer(nn.Module):
    """Blocks of attention over the pixels."""

    def __init__(self, model: Transformer2DModel, *, fp8: bool) -> None:
        super().__init__()
        self.norm = Norm(model.norm, silu=False)
        self.proj_in, self.proj_out = model.proj_in, model.proj_out
        self.transformer_blocks = nn.ModuleList(Block(block, fp8=fp8) for block in model.transformer_blocks)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        **_: Any,  # noqa: ANN401 - what Stable Diffusion leaves empty
    ) -> tuple[torch.Tensor]:
        """Pixels and text, (samples, tokens, width), given as to :class:`Transformer2DModel`."""
        tokens, pending = _projected(_tokens(self.norm(hidden_states)), self.proj_in), None
        for block in self.transformer_blocks:
            tokens, pending = block(tokens, pending, encoder_hidden_states)
        last = _projected(tokens if pending is None else tokens + pending, self.proj_out)
        return (add(_pixels(last, hidden_states), hidden_states),)


class Block(nn.Module):
    """Attention to each other, attention to the text, and a feed-forward layer."""

    def __init__(self, block: BasicTransformerBlock, *, fp8: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attention = Attending(block.attn1, joined=("to_q", "to_k", "to_v"), fp8=fp8)
        self.cross_attention = Attending(block.attn2, joined=("to_k", "to_v"), fp8=fp8)
        self.query = _linear(block.attn2.to_q, fp8=fp8)
        self.widen = _linear(block.ff.net[0].proj, fp8=fp8)
        self.narrow = _linear(block.ff.net[2], fp8=fp8)

    def forward(
        self, tokens: torch.Tensor, pending: torch.Tensor | None, text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens, and what is still to be added to them, of shape (samples, tokens, channels); both again."""
        if pending is None:
            scaled, norm = _is_scaled(self.attention.projection), self.norm1
            normal = layer_norm(tokens, norm.weight, norm.bias, eps=norm.eps, scaled=scaled)
        else:
            tokens, normal = _add_norm(tokens, pending, self.norm1, self.attention.projection)
        query, key, value = self.attention.projections(normal)
        tokens, normal = _add_norm(tokens, self.attention(query, key, value), self.norm2, self.query)
        query = self.cross_attention.heads(self.query(normal))
        key, value = self.cross_attention.projections(text)
        tokens, normal = _add_norm(tokens, self.cross_attention(query, key, value), self.norm3, self.widen)
        return tokens, self.narrow(geglu(self.widen(normal), scaled=_is_scaled(self.narrow)))


class Attending(nn.Module):
    """Attention, with what it projects of the same tokens projected in one product."""

    def __init__(self, attention: Attention, *, joined: Sequence[str], fp8: bool) -> None:
        super().__init__()
        projection = _joined([getattr(attention, name) for name in joined])
        # Text has few tokens, and little to gain.
        self.projection = _linear(projection, fp8=fp8 and not attention.is_cross_attention)
        self.out = _linear(attention.to_out[0], fp8=fp8)
        self._joined, self._heads, self._scale = len(joined), attention.heads, attention.scale

    def projections(self, tokens: torch.Tensor | Scaled) -> tuple[torch.Tensor, ...]:
        """Each projection of ``tokens``, in heads."""
        return tuple(self.heads(one) for one in self.projection(tokens).chunk(self._joined, dim=-1))

    def heads(self, projection: torch.Tensor) -> torch.Tensor:
        """Shape (samples, tokens, channels) to (samples, heads, tokens, channels of a head), a view."""
        return projection.view(*projection.shape[:2], self._heads, -1).transpose(1, 2)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """What the heads find, joined: shape (samples, tokens, channels)."""
        found = functional.scaled_dot_product_attention(query, key, value, scale=self._scale)
        joined: torch.Tensor = self.out(found.transpose(1, 2).flatten(2))
        return joined


def fuse(model: nn.Module, *, fp8: bool = False) -> None:
    """Replace in ``model``, a U-Net or an autoencoder for inference, what is of the known form.

    Pictures then have to have their channels last.

    Args:
        model: changed in place.
        fp8: whether products of matrices that are faster for it are done in eight bits.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch forgot to annotate it
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResnetBlock2D) and _is_plain_resnet(child):
                setattr(parent, name, Resnet(child))
            elif isinstance(child, Transformer2DModel) and _is_plain_transformer(child):
                setattr(parent, name, Transformer(child, fp8=fp8))
            elif isinstance(child, Upsample2D) and _is_plain_upsampling(child):
                setattr(parent, name, Upsampling(child))
        norm, activation = getattr(parent, "conv_norm_out", None), getattr(parent, "conv_act", None)
        if isinstance(norm, nn.GroupNorm) and isinstance(activation, nn.SiLU):
            parent.conv_norm_out, parent.conv_act = Norm(norm, silu=True), nn.Identity()


def _is_plain_resnet(block: ResnetBlock2D) -> bool:
    return (
        (block.time_embedding_norm == "default" or block.time_emb_proj is None)
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
        and (block.conv_shortcut is None or block.conv_shortcut.bias is not None)
    )


def _is_plain_upsampling(layer: Upsample2D) -> bool:
    convolution = getattr(layer, "conv", None)
    return (
        isinstance(convolution, nn.Conv2d)
        and convolution.kernel_size == (3, 3)
        and convolution.padding == (1, 1)
        and convolution.bias is not None
        and layer.norm is None
        and layer.interpolate
    )


def _is_plain_transformer(model: Transformer2DModel) -> bool:
    return bool(model.is_input_continuous) and all(_is_plain_block(one) for one in model.transformer_blocks)


def _is_plain_block(block: BasicTransformerBlock) -> bool:
    return (
        block.norm_type == "layer_norm"
        and block.pos_embed is None
        and not block.only_cross_attention
        and block.attn2 is not None
        and all(_is_plain_attention(attention) for attention in (block.attn1, block.attn2))
        and isinstance(block.ff, FeedForward)
        and isinstance(block.ff.net[0], GEGLU)
    )


def _is_plain_attention(attention: Attention) -> bool:
    return (
        attention.to_q.bias is None
        and attention.norm_q is None
        and attention.group_norm is None
        and attention.spatial_norm is None
        and not attention.upcast_attention
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
    )


def _joined(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer without a bias, whose answers are those of ``layers`` behind one another."""
    weight = torch.cat([layer.weight for layer in layers])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    joined.weight = _fixed(weight)
    return joined


def _linear(layer: nn.Linear, *, fp8: bool) -> nn.Linear | Fp8Linear:
    if fp8 and layer.in_features >= NARROWEST:
        return Fp8Linear(layer.weight, layer.bias)
    return layer


def _is_scaled(layer: nn.Module) -> bool:
    return isinstance(layer, Fp8Linear)


def _halves(weight: torch.Tensor, dimension: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a kernel's three weights along a dimension, two for each half of an enlarged pixel."""
    first, middle, last = weight.chunk(3, dimension)
    return torch.cat([first, middle + last], dimension), torch.cat([first + middle, last], dimension)


def _whole(even: torch.Tensor, odd: torch.Tensor, dimension: int) -> torch.Tensor:
    """The three weights of which :func:`_halves` made these."""
    (first, rest), (_, last) = even.chunk(2, dimension), odd.chunk(2, dimension)
    return torch.cat([first, rest - last, last], dimension)


def _fixed(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _sum(first: torch.Tensor, second: torch.Tensor) -> nn.Parameter:
    return _fixed((first.detach().float() + second.detach().float()).to(first.dtype))


def _convolved(pixels: torch.Tensor, convolution: nn.Conv2d) -> torch.Tensor:
    """Without its bias."""
    return functional.conv2d(pixels, convolution.weight, None, convolution.stride, convolution.padding)


def _projected(tokens: torch.Tensor, layer: nn.Conv2d | nn.Linear) -> torch.Tensor:
    """Through a linear layer, which a convolution of single pixels is too."""
    return functional.linear(tokens, layer.weight.flatten(1), layer.bias)


def _tokens(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as tokens: (samples, channels, height, width) to (samples, height * width, channels), a view."""
    return pixels.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2)


def _pixels(tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The reverse of :func:`_tokens`."""
    return tokens.view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _add_norm(
    tokens: torch.Tensor, other: torch.Tensor, norm: nn.LayerNorm, reader: nn.Module
) -> tuple[torch.Tensor, torch.Tensor | Scaled]:
    """The sum, and its normalisation in the form in which ``reader`` takes it."""
    return add_layer_norm(tokens, other, norm.weight, norm.bias, eps=norm.eps, scaled=_is_scaled(reader))
