"""A student as ONNX: one file that any runtime scores with, and how close it comes to torch."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genzqa.errors import ConfigError, ModelCorruptError
from genzqa.student.config import StudentConfig
from genzqa.student.network import StudentNetwork

TOLERANCE = 1e-3  # raw units, and units of the blocks' quantities
_OPSET = 18
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxFile:
    """The file's content, and what ``parity.json`` says of it."""

    content: bytes
    parity: dict[str, Any]


def require_onnx() -> None:
    """Find out before a long training, not after it.

    Raises:
        ConfigError: If the extra is not installed.
    """
    from importlib.util import find_spec

    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"writing ONNX needs {', '.join(missing)}", subject="distill",
                          hint="pip install 'genzqa[onnx]'")  # fmt: skip


def export_onnx(network: StudentNetwork, config: StudentConfig, photos: Tensor) -> OnnxFile:
    """Export a folded network and compare it with itself in torch, alone and in batches.

    Args:
        network: As scored with.
        config: Goes into the file, so that it can be scored with alone.
        photos: ``(N, 3, size, size)`` in [-1, 1], to compare on.

    Raises:
        ModelCorruptError: If the two differ by more than `TOLERANCE`.
    """
    model = _exported(network, photos[:1].repeat(2, 1, 1, 1))
    entry = model.metadata_props.add()
    entry.key, entry.value = "genzqa", config.model_dump_json()
    content: bytes = model.SerializeToString()
    largest = _difference(network, content, photos)
    parity = {
        "photos": len(photos),
        "largest_difference_raw": largest[0],
        "largest_difference_block_scores": largest[1],
        "tolerance": TOLERANCE,
        "opset": _OPSET,
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "weights_sha256": config.weights_sha256,
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
    }
    if not max(largest) <= TOLERANCE:
        raise ModelCorruptError(f"as ONNX it differs from torch by {max(largest):.2g}, more than {TOLERANCE:g}",
                                subject=config.name, hint="nothing was written; please report it")  # fmt: skip
    return OnnxFile(content, parity)


class _Outputs(nn.Module):
    """ONNX knows tensors, not results."""

    def __init__(self, network: StudentNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        read = self.network(pixels)
        return read.raw, read.block_scores


def _exported(network: StudentNetwork, example: Tensor) -> Any:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            _Outputs(network).eval(), (example,), dynamo=True, opset_version=_OPSET, verbose=False,
            input_names=["pixels"], output_names=["raw", "block_scores"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("photos")}},
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info):  # where in which file each line stood
        del part.metadata_props[:]
    _halve(model.graph)
    onnx.checker.check_model(model)
    return model


def _halve(graph: Any) -> None:
    """Kernels in half precision, as a student keeps them, each widened by a node of its own: half as large, the same numbers."""
    from onnx import TensorProto, helper, numpy_helper

    for kernel in graph.initializer:
        values = numpy_helper.to_array(kernel)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves.astype(np.float32), values):
            name = kernel.name
            kernel.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            graph.node.insert(
                0, helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.widen", to=TensorProto.FLOAT)
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter remarks on packages that nobody needs here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _difference(network: StudentNetwork, content: bytes, photos: Tensor) -> tuple[float, float]:
    """Largest of the raw scores and of the blocks' quantities, each photo alone and all together."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest = np.zeros(2)
    for batch in (*torch.split(photos, 1), photos):
        read = network.read(batch)
        other = session.run(["raw", "block_scores"], {"pixels": batch.contiguous().numpy()})
        for place, (ours, theirs) in enumerate(zip((read.raw, read.block_scores), other, strict=True)):
            largest[place] = np.maximum(largest[place], np.abs(ours.numpy() - theirs).max())  # keeps NaN
    return float(largest[0]), float(largest[1])


def parity_json(file: OnnxFile) -> bytes:
    """What is written beside the model."""
    return (json.dumps(file.parity, indent=2) + "\n").encode()
