"""A UNet as scoring runs it: the library's own layers, without the work that changes no score.

Next to `UNet2DConditionModel.forward` with a recording processor (`genzqa.model.cross_attention`), which training uses and
which this must equal, it saves

- the first layers for one of the two prompts: up to the first cross-attention both see the same;
- keys and values of the cross-attention, which depend on the prompts alone;
- all that comes after the last cross-attention, where the predicted noise is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genzqa.errors import ConfigError
from genzqa.model.cross_attention import Block, find_blocks

_KNOWN_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D", "UpBlock2D"}
_UNSET = ("class_embed_type", "addition_embed_type", "encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim",
          "time_embedding_act_fn", "dual_cross_attention", "only_cross_attention", "center_input_sample",
          "num_class_embeds", "mid_block_only_cross_attention")  # fmt: skip


@dataclass
class UNetReading:
    """What one run over R noisy latents leaves behind, for both prompts.

    lse: per block ``(R, 2, heads, 77)``; queries: per block ``(R, 2, C)``; positions: latent positions per block; prediction:
    the UNet's output ``(R, 2, 4, h, w)``, or None where it was not asked for.
    """

    lse: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    prediction: Tensor | None = None


class UNetPass(nn.Module):
    """Runs a UNet for scoring; its layers are shared with the UNet given, which stays as it is.

    Args:
        unet: Of Stable Diffusion's topology, LoRA merged.
        prompt_embeds: ``(2, 77, width)``, the good and the bad prompt.
        temperature: lambda of the log-sum-exp.
        predicts: Whether the predicted noise is wanted.

    Raises:
        ConfigError: If the UNet has parts that Stable Diffusion's has not.
    """

    def __init__(self, unet: Any, prompt_embeds: Tensor, temperature: float, *, predicts: bool) -> None:
        super().__init__()
        require_topology(unet)
        self.unet, self.temperature, self.predicts = unet, temperature, predicts
        self.blocks = find_blocks(unet)
        for number, block in enumerate(self.blocks):
            key, value = keys_and_values(unet.get_submodule(block.path), block, prompt_embeds)
            self.register_buffer(f"key_{number}", key, persistent=False)
            self.register_buffer(f"value_{number}", value, persistent=False)

    def forward(self, noisy: Tensor, times: Tensor) -> UNetReading:
        """Read R noisy latents ``(R, 4, h, w)`` with their time embeddings ``(R, width)``."""
        run = _Run(self, times)
        hidden = run.up(run.middle(run.down(self.unet.conv_in(noisy.to(times.dtype)))))
        if hidden is not None:
            hidden = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(hidden)))
            run.reading.prediction = hidden.float().unflatten(0, (-1, 2))
        return run.reading


class _Run:
    """One pass; ``paired`` once rows stand for an image and a prompt, the good and the bad one in turn."""

    def __init__(self, plan: UNetPass, times: Tensor) -> None:
        self.plan, self.unet = plan, plan.unet
        self.times, self.both_times = times, times.repeat_interleave(2, 0)
        self.paired = False
        self.skips: list[tuple[Tensor, bool]] = []
        self.reading = UNetReading()

    def keep(self, hidden: Tensor) -> Tensor:
        self.skips.append((hidden, self.paired))
        return hidden

    def with_skip(self, hidden: Tensor) -> Tensor:
        """Joined with what the way down left at this place."""
        skip, paired = self.skips.pop()
        return torch.cat([hidden, skip if paired else skip.repeat_interleave(2, 0)], 1)

    def resnet(self, layer: Any, hidden: Tensor) -> Tensor:
        out: Tensor = layer(hidden, self.both_times if self.paired else self.times)
        return out

    def down(self, hidden: Tensor) -> Tensor:
        self.keep(hidden)
        for block in self.unet.down_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            for resnet, attention in zip(block.resnets, attentions, strict=True):
                hidden = self.resnet(resnet, hidden)
                if attention is not None:
                    hidden = self.transformer(attention, hidden)
                self.keep(hidden)
            for sampler in block.downsamplers or ():
                hidden = self.keep(sampler(hidden))
        return hidden

    def middle(self, hidden: Tensor) -> Tensor:
        block = self.unet.mid_block
        hidden = self.resnet(block.resnets[0], hidden)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            hidden = self.resnet(resnet, self.transformer(attention, hidden))
        return hidden

    def up(self, hidden: Tensor) -> Tensor | None:
        """None if it could end at the last cross-attention."""
        for block in self.unet.up_blocks:
            attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)
            for resnet, attention in zip(block.resnets, attentions, strict=True):
                hidden = self.resnet(resnet, self.with_skip(hidden))
                if attention is not None:
                    hidden = self.transformer(attention, hidden)
                    if self.complete:
                        return None
            for sampler in block.upsamplers or ():
                hidden = sampler(hidden, self.skips[-1][0].shape[2:])
        return hidden

    @property
    def complete(self) -> bool:
        return not self.plan.predicts and len(self.reading.lse) == len(self.plan.blocks)

    def transformer(self, layer: Any, hidden: Tensor) -> Tensor:
        """One `Transformer2DModel` ``(rows, C, h, w)``; as the library's, with the prompts entering at cross-attention."""
        height, width = hidden.shape[2:]
        tokens = layer.norm(hidden)
        if layer.use_linear_projection:
            tokens = layer.proj_in(tokens.flatten(2).transpose(1, 2))
        else:
            tokens = layer.proj_in(tokens).flatten(2).transpose(1, 2)
        for block in layer.transformer_blocks:
            tokens = block.attn1(block.norm1(tokens)) + tokens
            if not self.paired:  # here the two prompts part
                tokens, hidden, self.paired = tokens.repeat_interleave(2, 0), hidden.repeat_interleave(2, 0), True
            attended = self.cross_attention(block.attn2, block.norm2(tokens))
            if attended is None:
                return hidden
            tokens = attended + tokens
            tokens = block.ff(block.norm3(tokens)) + tokens
        if layer.use_linear_projection:
            out = layer.proj_out(tokens).transpose(1, 2).unflatten(2, (height, width))
        else:
            out = layer.proj_out(tokens.transpose(1, 2).unflatten(2, (height, width)))
        joined: Tensor = out + hidden
        return joined

    def cross_attention(self, layer: Any, tokens: Tensor) -> Tensor | None:
        """Attention to the prompts, read on the way; None for the last one if nothing after it counts."""
        number, plan = len(self.reading.lse), self.plan
        query = layer.to_q(tokens)
        by_head = query.unflatten(2, (layer.heads, -1)).unflatten(0, (-1, 2)).transpose(2, 3)  # (R, 2, heads, N, d)
        # in single precision whatever the rest is in: the score hangs on these, and they are few
        logits = by_head.float() @ getattr(plan, f"key_{number}")
        self.reading.lse.append((logits * plan.temperature).logsumexp(3) / plan.temperature)
        self.reading.queries.append(query.float().mean(1).unflatten(0, (-1, 2)))
        self.reading.positions.append(tokens.shape[1])
        if self.complete:
            return None
        attended = logits.softmax(4).to(query.dtype) @ getattr(plan, f"value_{number}")
        out: Tensor = layer.to_out[0](attended.transpose(2, 3).flatten(3).flatten(0, 1))
        return out / float(layer.rescale_output_factor)


def keys_and_values(layer: Any, block: Block, prompt_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled keys ``(1, 2, heads, d, 77)`` in single precision and values ``(1, 2, heads, 77, d)`` of both prompts.

    Both are computed in single precision: what is rounded here moves every score the same way.
    """

    def told(to: nn.Linear) -> Tensor:
        bias = None if to.bias is None else to.bias.float()
        both = F.linear(prompt_embeds.float(), to.weight.float(), bias)
        return both.view(2, -1, block.heads, to.out_features // block.heads).transpose(1, 2)[None]

    with torch.no_grad():
        key, value = told(layer.to_k), told(layer.to_v)
    return (key * float(layer.scale)).transpose(3, 4).contiguous(), value.to(layer.to_v.weight.dtype).contiguous()


def require_topology(unet: Any) -> None:
    """Stable Diffusion's UNet, of any size.

    Raises:
        ConfigError: If it has parts that this pass does not run.
    """
    config = unet.config
    odd = [name for name in _UNSET if config.get(name)]
    kinds = {type(block).__name__ for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks)}
    odd += sorted(kinds - _KNOWN_BLOCKS)
    if config.get("attention_type", "default") != "default":
        odd.append("attention_type")
    if odd:
        raise ConfigError(f"a UNet with {odd[0]} is not of Stable Diffusion's topology",
                          hint="score it with the plain pass")  # fmt: skip
