"""A student as an engine: scoring sees no difference from other models."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from genzqa import __version__
from genzqa.engine.engine import Engine, EngineOptions
from genzqa.engine.open import OpenModel
from genzqa.engine.torch_engine import memory_errors, single_precision_kept
from genzqa.errors import ConfigError
from genzqa.model.genzvqa import FrameReadings
from genzqa.student.folder import LoadedStudent, load_student


class StudentEngine(Engine):
    """Runs a student by torch in single precision.

    Args:
        loaded: The student.
        device: To run it on.
    """

    def __init__(self, loaded: LoadedStudent, device: torch.device) -> None:
        key = f"{__version__}/{loaded.weights_sha256}/{device}"
        super().__init__(loaded.config.blocks, loaded.config.preprocessing.size, key)
        self._network, self._device = loaded.model.to(device), device

    def run(self, pixels: Tensor) -> FrameReadings:
        """See `Engine.run`."""
        with memory_errors(), single_precision_kept():
            found = self._network.read(pixels.to(self._device))
        return FrameReadings(found.raw.cpu(), found.block_scores.cpu(), [])


def open_student(folder: Path, name: str, options: EngineOptions) -> OpenModel:
    """Open a student folder for scoring; it has neither quality maps nor a temporal part.

    Raises:
        ConfigError: If it is to be run otherwise than by torch in single precision, or its config is malformed.
        ModelError: As `load_student`.
    """
    if (options.backend, options.precision) != ("torch", "fp32"):
        raise ConfigError(f"a student runs by torch in fp32, not by {options.backend} in {options.precision}", subject=name,
                          hint="leave out backend and precision; other runtimes take its student.onnx")  # fmt: skip
    loaded = load_student(folder, name)
    engine = StudentEngine(loaded, options.torch_device())
    return OpenModel(
        config=loaded.config, name=loaded.config.name, weights_sha256=loaded.weights_sha256,
        base_sha256=loaded.config.teacher.weights_sha256, blocks=loaded.config.blocks, photos=engine,
        frames=lambda: engine, options=options,
    )  # fmt: skip
