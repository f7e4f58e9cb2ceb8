"""What runs a model: one contract, whatever the backend. Pixels in, readings out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genzqa.engine import batch_size
from genzqa.errors import ConfigError, ModelError
from genzqa.model.cross_attention import Block
from genzqa.model.genzvqa import FrameReadings

Backend = Literal["torch", "openvino", "onnx"]
Precision = Literal["fp32", "bf16"]
MANY = 16  # photos in one call; from there on it is worth finding out how many are fastest
FEW = 4  # per call of the network until then: bounds memory


@dataclass(frozen=True)
class EngineOptions:
    """How a model is run; changes speed and memory, and a score by no more than docs/performance.md says.

    Attributes:
        backend: ``torch``, ``openvino`` (extra of that name; CPUs) or ``onnx`` (extra ``onnx``).
        precision: Of the networks' weights and activations. What the score hangs on stays in single precision.
        device: ``auto`` (a CUDA GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``; for torch.

    Raises:
        ConfigError: An unknown backend or precision, or a device the backend cannot use.
    """

    backend: Backend = "torch"
    precision: Precision = "fp32"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, value, known in (("backend", self.backend, ("torch", "openvino", "onnx")),
                                   ("precision", self.precision, ("fp32", "bf16"))):  # fmt: skip
            if value not in known:
                raise ConfigError(f"the {name} {value!r} is not known", hint=f"use one of {', '.join(known)}")
        if self.backend != "torch" and self.device not in ("auto", "cpu"):
            raise ConfigError(f"the backend {self.backend} runs on the CPU, not on {self.device!r}",
                              hint="leave out the device, or use the backend torch")  # fmt: skip
        if self.backend == "onnx" and self.precision != "fp32":
            raise ConfigError("the backend onnx runs in fp32 only", hint="use openvino or torch for bf16")

    def torch_device(self) -> torch.device:
        """The device meant.

        Raises:
            ConfigError: If this machine has none such.
        """
        if self.backend != "torch" or self.device == "cpu":
            return torch.device("cpu")
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = (str(error).strip() or "unknown").splitlines()[0]
            raise ConfigError(f"the device {self.device!r} cannot be used: {reason}", hint="use cpu") from None
        return device


class Engine(ABC):
    """Reads square images of the model's own size. Use `read`; a backend supplies `run`.

    Args:
        blocks: The model's cross-attention layers, or their names.
        size: Side of the images in pixels.
        key: Names model, backend and precision, to remember what was found about them.
    """

    def __init__(self, blocks: Sequence[Block | str], size: int, key: str) -> None:
        self.blocks, self.size = tuple(blocks), size
        self._key = f"{key}/{torch.get_num_threads()} threads"
        self._at_once = batch_size.remembered(self._key)

    @abstractmethod
    def run(self, pixels: Tensor) -> FrameReadings:
        """One call of the network on images ``(B, 3, size, size)`` in [-1, 1].

        Raises:
            MemoryError: If there is too little for so many.
        """

    def read(self, pixels: Tensor) -> FrameReadings:
        """Read images ``(B, 3, size, size)`` in [-1, 1], any number of them, in calls of the size that is fastest.

        Where memory runs out, calls get half as large and it goes on.

        Raises:
            ModelError: If there is too little memory for a single image.
        """
        if self._at_once is None and len(pixels) >= MANY:
            with contextlib.suppress(MemoryError):  # too little for one: said below
                self._at_once = batch_size.fastest(lambda count: _discard(self.run(pixels[:count])), len(pixels))
                batch_size.remember(self._key, self._at_once)
        parts: list[FrameReadings] = []
        done, at_once = 0, self._at_once or FEW
        while done < len(pixels):
            try:
                parts.append(self.run(pixels[done : done + at_once]))
            except MemoryError:
                if at_once == 1:
                    raise ModelError("there is too little memory to score one photo",
                                     hint="use a smaller model, or --precision bf16") from None  # fmt: skip
                at_once = max(1, at_once // 2)
                self._at_once = at_once
                continue
            done += at_once
        return FrameReadings.joined(parts)


def _discard(_: FrameReadings) -> None:
    pass
