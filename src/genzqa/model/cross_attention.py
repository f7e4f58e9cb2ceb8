"""The cross-attention layers of a UNet, read while it runs (paper Section 3.1; the heart of GenzIQA).

A processor on the ``attn2`` layers alone computes the attention from explicit logits and records three things of each:
the log-sum-exp over positions, the mean query, and, when a quality map is wanted, the logits themselves.
Self-attention layers keep the library's own processor (scaled dot product attention).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from genzqa.errors import ModelCorruptError


@dataclass(frozen=True)
class Block:
    """One cross-attention layer **p**: its short name, module path, number of heads and query width."""

    name: str
    path: str
    heads: int
    width: int


def find_blocks(unet: nn.Module) -> list[Block]:
    """All cross-attention layers in METHOD's order: down blocks, mid block, up blocks (16 in Stable Diffusion).

    Raises:
        ModelCorruptError: If the UNet has no cross-attention.
    """
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    paths = [path for path, _ in unet.named_modules() if path.endswith(".attn2")]
    paths.sort(key=lambda path: (order[path.split(".")[0]], [int(part) for part in path.split(".") if part.isdigit()]))
    if not paths:
        raise ModelCorruptError("this UNet has no cross-attention layers to read", hint="use a text-conditioned base")
    blocks = []
    for path in paths:
        layer: Any = unet.get_submodule(path)
        blocks.append(Block(_short_name(path), path, int(layer.heads), int(layer.to_q.out_features)))
    return blocks


def _short_name(path: str) -> str:
    """``down_blocks.0.attentions.1.transformer_blocks.0.attn2`` -> ``down_block_0_attn_1``."""
    parts = path.split(".")
    numbers = [part for part in parts if part.isdigit()]
    stage = "mid_block" if parts[0] == "mid_block" else f"{parts[0].removesuffix('s')}_{numbers.pop(0)}"
    inner = "" if numbers[-1] == "0" else f"_{numbers[-1]}"
    return f"{stage}_attn_{numbers[0]}{inner}"


@dataclass
class Recording:
    """What one UNet call over N = 2B rows (good and bad prompt) leaves behind, a list entry per block in order.

    lse: ``(N, heads, 77)``; queries: ``(N, C)``; positions: number of latent positions; and with ``keep_logits``
    logits ``(N, heads, positions, 77)`` and position_queries ``(N, positions, C)``.
    """

    temperature: float
    keep_logits: bool = False
    lse: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    position_queries: list[Tensor] = field(default_factory=list)


class RecordingProcessor:
    """Attention processor for ``attn2``: the layer's plain attention, with its logits read on the way."""

    def __init__(self) -> None:
        self.recording: Recording | None = None

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, temb: Tensor | None = None, **_: Any) -> Tensor:  # fmt: skip
        """``hidden_states`` (N, positions, C), ``encoder_hidden_states`` (N, 77, width) -> (N, positions, C)."""
        query, key, value = (
            attn.to_q(hidden_states),
            attn.to_k(encoder_hidden_states),
            attn.to_v(encoder_hidden_states),
        )
        by_head = [part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value)]
        logits = by_head[0] @ by_head[1].transpose(-1, -2) * attn.scale  # S, (N, heads, positions, 77)
        if self.recording is not None:
            _record(self.recording, query, logits)
        attended = (logits.softmax(-1) @ by_head[2]).transpose(1, 2).flatten(2)
        projected: Tensor = attn.to_out[1](attn.to_out[0](attended))
        return projected / float(attn.rescale_output_factor)


def _record(recording: Recording, query: Tensor, logits: Tensor) -> None:
    logits = logits.float()
    recording.lse.append((logits * recording.temperature).logsumexp(2) / recording.temperature)
    recording.queries.append(query.float().mean(1))
    recording.positions.append(query.shape[1])
    if recording.keep_logits:
        recording.logits.append(logits)
        recording.position_queries.append(query.float())


def install(unet: Any) -> list[RecordingProcessor]:
    """Put a recording processor on every cross-attention layer and the SDPA processor stays everywhere else."""
    processors = []
    for block in find_blocks(unet):
        processor = RecordingProcessor()
        unet.get_submodule(block.path).set_processor(processor)
        processors.append(processor)
    return processors


@contextmanager
def recording(
    processors: list[RecordingProcessor], temperature: float, *, keep_logits: bool = False, recomputed: bool = False
) -> Iterator[Recording]:
    """Record one UNet call: ``with recording(processors, 0.14) as seen: unet(...)``.

    With ``recomputed``, layers go on recording after the block, into what nobody reads: when the backward pass computes their
    activations a second time, they must do the same again.
    """
    seen = Recording(temperature, keep_logits)
    for processor in processors:
        processor.recording = seen
    try:
        yield seen
    finally:
        for processor in processors:
            processor.recording = Recording(temperature, keep_logits) if recomputed else None
