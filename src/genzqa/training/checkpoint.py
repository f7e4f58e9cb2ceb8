"""A training's state in one file, so that it is whole or not there: trained weights, AdamW's moments, and where training stood."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import AdamW

from genzqa.errors import ModelCorruptError
from genzqa.files import write_atomically

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: The epoch to go on in, from 0.
        batch: The batch of it to go on with, from 0.
        step: Steps made so far.
        best_srcc: Of the validation part, and after which epoch; None before the first.
        best_epoch: Likewise.
        plan: Digest of the plan and the data; another training's checkpoint is never gone on from.
    """

    epoch: int
    batch: int
    step: int
    best_srcc: float | None
    best_epoch: int | None
    plan: str


def save_checkpoint(path: Path, parameters: Mapping[str, Tensor], optimizer: AdamW, position: Position) -> None:
    """Write one file.

    Raises:
        OutputError: If it cannot be written.
    """
    tensors = {f"weight.{name}": value.detach().cpu().contiguous() for name, value in parameters.items()}
    for name, value in parameters.items():
        for moment, kept in optimizer.state.get(value, {}).items():
            tensors[f"{moment}.{name}"] = kept.detach().cpu().contiguous()
    write_atomically(path, save(tensors, metadata={"position": json.dumps(asdict(position))}))


def load_checkpoint(path: Path, parameters: Mapping[str, Tensor], optimizer: AdamW) -> Position:
    """Put weights and moments back, and tell where training stood.

    Raises:
        ModelCorruptError: If the file is damaged or of another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = Position(**json.loads((file.metadata() or {})["position"]))
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelCorruptError(
            f"is no checkpoint: {error}", subject=str(path), hint="delete it to start over"
        ) from None
    shapes = {name.removeprefix("weight."): value.shape for name, value in stored.items() if name.startswith("weight.")}
    if shapes != {name: value.shape for name, value in parameters.items()}:
        raise ModelCorruptError("is the checkpoint of another model", subject=str(path), hint="delete it to start over")
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(stored[f"weight.{name}"])
            moments = {moment: stored[f"{moment}.{name}"] for moment in _MOMENTS if f"{moment}.{name}" in stored}
            if moments:
                optimizer.state[value] = {
                    moment: kept if moment == "step" else kept.to(value.device) for moment, kept in moments.items()
                }
    return position
