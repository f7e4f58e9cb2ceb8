"""Scoring by ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from genzqa.engine import graph
from genzqa.engine.engine import Engine
from genzqa.model.cross_attention import Block
from genzqa.model.genzvqa import FrameReadings

MODEL = "model.onnx"


class OnnxEngine(Engine):
    """Runs an exported graph.

    Args:
        path: Of the ONNX file.
        blocks, size, key: See `Engine`.
    """

    def __init__(self, path: Path, blocks: Sequence[Block], size: int, key: str) -> None:
        super().__init__(blocks, size, key)
        runtime = graph.require("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, pixels: Tensor) -> FrameReadings:
        """See `Engine.run`."""
        names = graph.output_names(len(self.blocks))
        try:
            found = self._session.run(names, {graph.INPUT: pixels.float().contiguous().numpy()})
        except Exception as error:  # its own classes of errors, all alike; no other says what went wrong
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)) from None
            raise
        raw, blocks, *queries = (torch.from_numpy(value) for value in found)
        return FrameReadings(raw, blocks, queries)
