"""Low-rank updates of attention projections, by peft, and their plain names in an adapter file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genzqa.errors import ModelCorruptError

_ADAPTER = "genzqa"
_PREFIX = "lora."
_PARTS = {"down": "lora_A", "up": "lora_B"}
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def cross_attention_targets(paths: Iterable[str]) -> list[str]:
    """The modules METHOD trains: q, k, v and out of every cross-attention layer."""
    return [f"{path}.{projection}" for path in paths for projection in PROJECTIONS]


def add_lora(unet: nn.Module, targets: Iterable[str], rank: int) -> None:
    """Put rank-``rank`` LoRA (W + up @ down, no further scale) on the named modules; starts at no change.

    Raises:
        ModelCorruptError: If the UNet lacks a module.
    """
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, and a base trained whole has no LoRA

    names = sorted(set(targets))
    for name in names:
        _require_projection(unet, name)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, lora_dropout=0.0, bias="none")
    inject_adapter_in_model(config, unet, adapter_name=_ADAPTER)


def lora_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """``lora.<module path>.down`` (rank, in) and ``.up`` (out, rank) -> the live parameter."""
    found: dict[str, nn.Parameter] = {}
    for name, module in unet.named_modules():
        if hasattr(module, "lora_A") and _ADAPTER in module.lora_A:
            for part, attribute in _PARTS.items():
                holder: Any = getattr(module, attribute)
                found[f"{_PREFIX}{name}.{part}"] = holder[_ADAPTER].weight
    return found


def merge_lora(unet: nn.Module, weights: dict[str, Tensor], rank: int) -> None:
    """Add every ``lora.*`` entry of an adapter file to the weights it belongs to: the same function, nothing left to train.

    Raises:
        ModelCorruptError: If an entry is missing, has another shape, or fits no layer.
    """
    wanted = _entries(weights, rank)
    for name in sorted({name.removeprefix(_PREFIX).rpartition(".")[0] for name in wanted}):
        parts = []
        _require_projection(unet, name)
        linear: Any = unet.get_submodule(name)
        out, into = linear.weight.shape
        for part, shape in zip(_PARTS, ((rank, into), (out, rank)), strict=True):
            entry = f"{_PREFIX}{name}.{part}"
            if entry not in wanted:
                raise ModelCorruptError(f"the adapter's LoRA is incomplete at {entry!r}")
            _require_shape(entry, wanted[entry], shape)
            parts.append(wanted.pop(entry))
        down, up = parts
        linear.weight.data = (linear.weight.float() + up.float() @ down.float()).to(linear.weight.dtype)
    if wanted:
        raise ModelCorruptError(f"the adapter's LoRA is incomplete at {sorted(wanted)[0]!r}")


def load_lora(unet: nn.Module, weights: dict[str, Tensor], rank: int) -> None:
    """Add LoRA for every ``lora.*`` entry of an adapter file and fill it.

    Raises:
        ModelCorruptError: If an entry is missing, has another shape, or fits no layer.
    """
    wanted = _entries(weights, rank)
    if not wanted:
        return
    add_lora(unet, {name.removeprefix(_PREFIX).rpartition(".")[0] for name in wanted}, rank)
    parameters = lora_parameters(unet)
    if set(parameters) != set(wanted):
        odd = sorted(set(parameters) ^ set(wanted))[0]
        raise ModelCorruptError(f"the adapter's LoRA is incomplete at {odd!r}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            _require_shape(name, wanted[name], parameter.shape)
            parameter.copy_(wanted[name])


def _entries(weights: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The ``lora.*`` entries, which must be there if and only if the rank says so."""
    wanted = {name: value for name, value in weights.items() if name.startswith(_PREFIX)}
    if bool(wanted) != bool(rank):
        there = "holds no LoRA" if rank else "holds a LoRA"
        raise ModelCorruptError(f"the adapter {there}, but its lora_rank is {rank}",
                                hint="its config and weights do not belong together")  # fmt: skip
    return wanted


def _require_projection(unet: nn.Module, name: str) -> None:
    try:
        layer = unet.get_submodule(name)
    except AttributeError:
        raise ModelCorruptError(f"the adapter belongs to another base: no layer {name!r}",
                                hint="load it with the base it was trained on") from None  # fmt: skip
    if not isinstance(layer, nn.Linear):
        raise ModelCorruptError(f"the adapter's LoRA is on {name!r}, which is no projection")


def _require_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    if tuple(value.shape) != tuple(shape):
        raise ModelCorruptError(f"{name!r} has shape {tuple(value.shape)}, the base needs {tuple(shape)}",
                                hint="load the adapter with the base it was trained on")  # fmt: skip
