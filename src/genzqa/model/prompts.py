"""The two learned quality prompts (paper Section 3.1): "[v1]..[v16] Good Photo." and "[v1]..[v16] Bad Photo."."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

GOOD, BAD = "Good Photo.", "Bad Photo."
_PLACEHOLDER = "X"
LONGEST_CONTEXT = 72  # vectors; of 77 places the words take three, begin and end one each


class QualityPrompts(nn.Module):
    """Sixteen context vectors shared by both prompts, put in front of the class words, seen by a frozen text encoder.

    The vectors enter by a hook on the token-embedding layer, so the text encoder stays the library's own.

    Args:
        text_encoder: CLIP text encoder of the base.
        tokenizer: CLIP tokenizer of the base; its own padding token is used.
        length: Number of context vectors.
        padding_mask: Whether the text encoder sees the tokenizer's padding mask besides its causal mask.
    """

    def __init__(self, text_encoder: Any, tokenizer: Any, *, length: int = 16, padding_mask: bool = True) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.padding_mask = padding_mask
        words = " ".join([_PLACEHOLDER] * length)
        tokens = tokenizer(
            [f"{words} {GOOD}", f"{words} {BAD}"],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        self.register_buffer("input_ids", tokens.input_ids, persistent=False)
        self.register_buffer("attention_mask", tokens.attention_mask, persistent=False)
        width = text_encoder.get_input_embeddings().embedding_dim
        self.context = nn.Parameter(torch.zeros(length, width))
        nn.init.normal_(self.context, std=0.02)

    input_ids: Tensor
    attention_mask: Tensor

    def forward(self) -> Tensor:
        """Embeddings ``(2, 77, width)`` of the good and the bad prompt, in this order."""
        length = len(self.context)

        def put_context(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
            context = self.context.to(embedded.dtype).expand(len(embedded), -1, -1)
            return torch.cat([embedded[:, :1], context, embedded[:, 1 + length :]], 1)

        hook = self.text_encoder.get_input_embeddings().register_forward_hook(put_context)
        try:
            mask = self.attention_mask if self.padding_mask else None
            encoded: Tensor = self.text_encoder(input_ids=self.input_ids, attention_mask=mask)[0]
        finally:
            hook.remove()
        return encoded


class StoredPrompts(nn.Module):
    """The prompts' embeddings as they were when the adapter was written: all that scoring needs of them.

    Args:
        context: ``(length, width)``, the learned vectors they were made with.
        embeds: ``(2, 77, width)``.
    """

    def __init__(self, context: Tensor, embeds: Tensor) -> None:
        super().__init__()
        self.context = nn.Parameter(context.clone())
        self.register_buffer("embeds", embeds.clone(), persistent=False)

    embeds: Tensor

    def forward(self) -> Tensor:
        """Embeddings ``(2, 77, width)`` of the good and the bad prompt, in this order."""
        return self.embeds
