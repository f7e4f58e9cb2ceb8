"""Exported models: a folder with a graph, and all else that scoring needs, written by `genzqa export`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genzqa.engine.engine import Engine, EngineOptions, Precision
from genzqa.engine.onnx_engine import MODEL, OnnxEngine
from genzqa.engine.open import OpenModel, other_pass_for_frames
from genzqa.engine.openvino_engine import ENCODER, READER, OpenVINOEngine, require_integers
from genzqa.errors import ConfigError, ModelCorruptError
from genzqa.model.adapter import CONFIG, WEIGHTS, build_temporal, locate_adapter, read_weights
from genzqa.model.config import ScorerConfig, read_config
from genzqa.model.cross_attention import Block
from genzqa.model.folder import file_digests
from genzqa.model.names import parse_name

CARD, PARITY = "export.json", "parity.json"
FRAMES = "frames"  # subfolder: the graph for frames of videos, where it is another


class Layer(BaseModel):
    """A cross-attention layer; see `Block`."""

    model_config = ConfigDict(extra="forbid")
    name: str
    path: str
    heads: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]


class ExportCard(BaseModel):
    """``export.json``: what was exported, how, and the digests of its files; ``integers`` names the graphs that compute in them."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[1] = 1
    backend: Literal["openvino", "onnx"]
    precision: Precision
    model: str
    weights_sha256: str
    base_sha256: str
    genzqa: str
    blocks: list[Layer]
    integers: list[str] = []
    files: dict[str, str]

    @property
    def identity(self) -> str:
        """SHA-256 that names the weights: the model's own, or, where they are rounded to integers by photos, that of the graphs."""
        if not self.integers:
            return self.weights_sha256
        return hashlib.sha256(
            "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items())).encode()
        ).hexdigest()


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / CARD).is_file()


def open_export(name: str, options: EngineOptions) -> OpenModel:
    """Open an exported model; it is run by what it was exported for, in the precision it was checked in.

    Raises:
        ModelCorruptError: If a file is missing, damaged or changed.
        ConfigError: If its runtime is not installed, another one, another precision or a GPU is asked for, or this processor cannot
            run it as it was checked.
    """
    folder = locate_adapter(parse_name(name))
    card, config = _read_card(folder), read_config(folder / CONFIG)
    if digests(folder) != card.files:
        raise ModelCorruptError("its files are not those that were exported", subject=name, hint="export it again")
    usual = EngineOptions()
    asked = [value for value, known in ((options.backend, (usual.backend, card.backend)), (options.device, (usual.device, "cpu")),
                                        (options.precision, (usual.precision, card.precision))) if value not in known]  # fmt: skip
    if asked:
        raise ConfigError(f"this graph runs by {card.backend} in {card.precision} on the CPU, not by {', '.join(asked)}",
                          subject=name, hint="leave that out, or export the model again")  # fmt: skip
    blocks = [Block(**layer.model_dump()) for layer in card.blocks]
    weights, _ = read_weights(folder / WEIGHTS)
    modulator, motion = build_temporal(blocks, config, weights)
    photos, made = engine_of(folder, card, config), list[Engine]()

    def frames() -> Engine:
        if not other_pass_for_frames(config):
            return photos
        if not made:
            made.append(engine_of(folder / FRAMES, card, config))
        return made[0]

    return OpenModel(
        config=config, name=card.model, weights_sha256=card.identity, base_sha256=card.base_sha256, blocks=blocks,
        photos=photos, frames=frames, modulator=modulator, motion=motion,
        options=EngineOptions(backend=card.backend, precision=card.precision),
    )  # fmt: skip


def engine_of(folder: Path, card: ExportCard, config: ScorerConfig) -> Engine:
    """Runs the graph in a folder, with that folder's weights alone.

    Raises:
        ConfigError: If its runtime is not installed, or this processor would give other scores in its precision.
    """
    blocks = [Block(**layer.model_dump()) for layer in card.blocks]
    size, key = config.preprocessing.size, f"{card.backend}/{card.precision}/{card.identity}/{folder.name}"
    if card.backend == "onnx":
        return OnnxEngine(folder / MODEL, blocks, size, key)
    if card.precision == "int8":
        require_integers()
    return OpenVINOEngine(folder / ENCODER, folder / READER, blocks, size, key, precision=card.precision)


def _read_card(folder: Path) -> ExportCard:
    try:
        return ExportCard.model_validate_json((folder / CARD).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelCorruptError(f"cannot be read: {str(error).splitlines()[0]}", subject=str(folder / CARD),
                                hint="export it again") from None  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the two that say so."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CARD, PARITY))
    return file_digests(folder, [path.relative_to(folder).as_posix() for path in files])
