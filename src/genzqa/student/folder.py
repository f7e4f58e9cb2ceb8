"""Student folders: ``student.safetensors`` (half precision) and ``config.json``, read with every check, written whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from genzqa.errors import ModelCorruptError, ModelNotFoundError, OutputError
from genzqa.files import write_atomically
from genzqa.model.adapter import fill, read_weights
from genzqa.model.config import read_config_as
from genzqa.model.names import parse_name
from genzqa.model.registry import lookup
from genzqa.student.config import CONFIG, WEIGHTS, StudentConfig, is_student
from genzqa.student.network import StudentNetwork


@dataclass(frozen=True)
class LoadedStudent:
    """A student ready to score."""

    model: StudentNetwork
    config: StudentConfig
    name: str
    weights_sha256: str


def find_student(name: str) -> Path | None:
    """The folder of a student; None if the name is that of another model.

    Raises:
        ConfigError: If the name is malformed or unknown.
    """
    parsed = parse_name(name)
    if parsed.kind == "registry":
        model = lookup(parsed.value)
        return model.folder if model.kind == "student" else None
    if parsed.kind != "local-dir":
        return None
    folder = Path(parsed.value).expanduser()
    return folder if is_student(folder) else None


def load_student(folder: Path, name: str) -> LoadedStudent:
    """Read a student folder.

    Args:
        folder: Where it lies.
        name: By which it was asked for.

    Raises:
        ModelNotFoundError: If a file is missing.
        ModelCorruptError: If the weights are damaged, of another training, or do not fit the config.
        ConfigError: If the config is malformed.
    """
    if not folder.is_dir():
        raise ModelNotFoundError("no such folder", subject=name)
    config = read_config_as(folder / CONFIG, StudentConfig, f"a student folder holds {CONFIG} and {WEIGHTS}")
    weights, digest = read_weights(folder / WEIGHTS)
    if digest != config.weights_sha256:
        raise ModelCorruptError(f"{WEIGHTS} is not what its config was written for (sha256 {digest[:12]}, expected "
                                f"{config.weights_sha256[:12]})", subject=str(folder), hint="fetch or distill it again")  # fmt: skip
    network = StudentNetwork(config.network, config.blocks)
    fill(network.state_dict(), weights, "student")
    return LoadedStudent(as_scored(network), config, name, digest)


def as_scored(network: StudentNetwork) -> StudentNetwork:
    """Without gradients, in the memory format in which convolutions on a CPU are quickest."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations
    return network.eval().requires_grad_(False)


def packed(network: StudentNetwork) -> tuple[bytes, str]:
    """The weights file of a folded network and its digest: kernels in half precision, the few biases in single."""
    tensors: Mapping[str, Tensor] = network.state_dict()
    halved = {
        name: (value.half() if value.dim() > 1 else value.float()).contiguous() for name, value in tensors.items()
    }
    content = save(halved, metadata={"format": "pt"})
    return content, hashlib.sha256(content).hexdigest()


def save_student(folder: Path, weights: bytes, config: StudentConfig) -> None:
    """Write a student folder; each file appears whole or not at all, the config last.

    Raises:
        OutputError: If the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject=str(folder)) from None
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, (config.model_dump_json(indent=2) + "\n").encode())
