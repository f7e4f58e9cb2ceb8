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
from genzqa.engine.batch_size import Way
from genzqa.errors import ConfigError, ModelError
from genzqa.model.cross_attention import Block
from genzqa.model.genzvqa import FrameReadings

Backend = Literal["torch", "openvino", "onnx"]
Precision = Literal["fp32", "bf16", "int8"]
INT8 = "`genzqa export --to openvino --precision int8 --photos PHOTOS DIR`, then score with --model local-dir:DIR"
MANY = 16  # photos in one call; from there on it is worth finding out how many are fastest
FEW = 4  # under way together until then: bounds memory
WAVE = 8  # calls in turn that are handed over at once: a core that is done with its own takes the next without waiting


@dataclass(frozen=True)
class EngineOptions:
    """How a model is run; changes speed and memory, and a score by no more than docs/performance.md says.

    Attributes:
        backend: ``torch``, ``openvino`` (extra of that name; CPUs) or ``onnx`` (extra ``onnx``).
        precision: Of the networks' weights and activations. What the score hangs on stays in single precision, and so does a
            model too narrow to keep its scores otherwise, as `mini`; results name the precision a model was run in. ``int8`` is
            for models that were exported in it.
        device: ``auto`` (a CUDA GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``; for torch.

    Raises:
        ConfigError: An unknown backend or precision, or a device the backend cannot use.
    """

    backend: Backend = "torch"
    precision: Precision = "fp32"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, value, known in (("backend", self.backend, ("torch", "openvino", "onnx")),
                                   ("precision", self.precision, ("fp32", "bf16", "int8"))):  # fmt: skip
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
        self._way = batch_size.remembered(self._key)

    @abstractmethod
    def run(self, pixels: Tensor) -> FrameReadings:
        """One call of the network on images ``(B, 3, size, size)`` in [-1, 1].

        Raises:
            MemoryError: If there is too little for so many.
        """

    def read(self, pixels: Tensor) -> FrameReadings:
        """Read images ``(B, 3, size, size)`` in [-1, 1], any number of them, in calls of the size that is fastest.

        Where memory runs out, fewer are under way at the same time, and it goes on.

        Raises:
            ModelError: If there is too little memory for a single image.
        """
        if self._way is None and len(pixels) >= MANY:
            with contextlib.suppress(MemoryError):  # too little for one: said below
                self._way = batch_size.fastest(
                    lambda way: _discard(self.run_all(torch.split(pixels[: way.together], way.photos), way.calls)),
                    min(len(pixels), batch_size.LARGEST), self.calls_at_once,
                )  # fmt: skip
                batch_size.remember(self._key, self._way)
        parts: list[FrameReadings] = []
        done, way = 0, self._way or self.first_way
        while done < len(pixels):
            rest = pixels[done : done + WAVE * way.together]
            photos = min(way.photos, -(-len(rest) // way.calls))  # a few are shared out as well
            try:
                parts += self.run_all(torch.split(rest, photos), way.calls)
            except MemoryError:
                if way.together == 1:
                    raise ModelError("there is too little memory to score one photo",
                                     hint="use a smaller model, or --precision bf16") from None  # fmt: skip
                way = self._way = Way(max(1, way.together // 2))
                continue
            done += len(rest)
        return FrameReadings.joined(parts)

    @property
    def first_way(self) -> Way:
        """How few images are read, as long as nothing has been measured."""
        return Way(FEW)

    @property
    def calls_at_once(self) -> Sequence[int]:
        """How many calls at the same time are worth trying."""
        return (1,)

    def run_all(self, parts: Sequence[Tensor], calls: int) -> list[FrameReadings]:
        """`run` for each, ``calls`` at the same time.

        Raises:
            MemoryError: As `run`.
        """
        return [self.run(part) for part in parts]


def _discard(_: Sequence[FrameReadings]) -> None:
    pass
