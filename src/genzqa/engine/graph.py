"""A scoring pass as a graph that other runtimes execute: its inputs and outputs, and how it is made.

Input ``pixels`` (B, 3, size, size) in [-1, 1]; outputs ``raw`` (B,), ``blocks`` (B, P), ``query_0`` .. (B, 2, C). The number
of images is free. For OpenVINO there are two graphs, the encoder and what reads its latents: ``latents`` (B, C, h, w) are the
output of one and the input of the other.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genzqa.errors import ConfigError

if TYPE_CHECKING:
    from genzqa.engine.scoring_pass import ScoringPass
    from genzqa.model.readout import LearnedReadout

INPUT, LATENTS = "pixels", "latents"
RAW, BLOCKS = "raw", "blocks"


def query_name(block: int) -> str:
    """Output with the queries of a block."""
    return f"query_{block}"


def output_names(blocks: int) -> list[str]:
    """Of a model with so many cross-attention layers, in order."""
    return [RAW, BLOCKS, *(query_name(number) for number in range(blocks))]


class _Flat(nn.Module):
    """A pass, or its part from the latents on, with one tuple of outputs."""

    def __init__(self, plan: ScoringPass, *, from_latents: bool = False) -> None:
        super().__init__()
        self.plan, self.from_latents = plan, from_latents

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        raw, blocks, queries = self.plan.read(pixels) if self.from_latents else self.plan(pixels)
        return raw, blocks, *queries


class _Elementwise(nn.Module):
    """A small linear layer as products and a sum. OpenVINO runs matrix products in bf16 where that is asked for, and all that
    lies between two of them; what comes after the last one stays in single precision. That is where the readout has to be."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, values: Tensor) -> Tensor:
        return (values.unsqueeze(-2) * self.weight).sum(-1) + self.bias


@contextlib.contextmanager
def _elementwise(readout: LearnedReadout | None) -> Iterator[None]:
    """The readout's linear layers as `_Elementwise` for as long as the block lasts."""
    if readout is None:
        yield
        return
    hidden, score = readout.hidden[0], readout.score
    readout.hidden[0], readout.score = _Elementwise(hidden), _Elementwise(score)  # type: ignore[assignment, arg-type]
    try:
        yield
    finally:
        readout.hidden[0], readout.score = hidden, score


class _Encoder(nn.Module):
    def __init__(self, plan: ScoringPass) -> None:
        super().__init__()
        self.plan = plan

    def forward(self, pixels: Tensor) -> Tensor:
        return self.plan.encode(pixels)


def to_openvino(plan: ScoringPass) -> tuple[Any, Any]:
    """Two of `openvino.Model`: from pixels to latents, and from latents to the readings.

    The reader of torch modules is called by itself: `openvino.convert_model` would report its use over the network.

    Raises:
        ConfigError: If the extra is not installed.
    """
    require("openvino", "openvino")
    size = plan.model.config.preprocessing.size
    encoder = _converted(_Encoder(plan), INPUT, torch.zeros(2, 3, size, size), [LATENTS])
    outputs = output_names(len(plan.unet.blocks))
    with _elementwise(plan.model.readout):
        reader = _converted(_Flat(plan, from_latents=True), LATENTS, plan.noise[:1].repeat(2, 1, 1, 1), outputs)
    return encoder, reader


def _converted(module: nn.Module, input_name: str, example: Tensor, outputs: Sequence[str]) -> Any:
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with _quiet(), torch.no_grad():
        # a trace is not traced and run again to compare: at full size that is minutes, and exports are compared with the model itself
        decoder = TorchScriptPythonDecoder(module.eval(), example_input=(example,), trace_kwargs={"check_trace": False})
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    parameter = model.inputs[0].get_node()
    parameter.set_element_type(ov.Type.f32)
    parameter.set_partial_shape(ov.PartialShape([-1, *example.shape[1:]]))
    model.validate_nodes_and_infer_types()
    model.inputs[0].get_tensor().set_names({input_name})
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return model


def to_onnx(plan: ScoringPass, path: Path) -> None:
    """Write the pass as ONNX; weights beyond what one file may hold lie beside it.

    Raises:
        ConfigError: If the extra is not installed.
    """
    require("onnx", "onnx")
    require("onnxscript", "onnx")
    size = plan.model.config.preprocessing.size
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            _Flat(plan).eval(),
            (torch.zeros(2, 3, size, size),),
            path,
            input_names=[INPUT],
            output_names=output_names(len(plan.unet.blocks)),
            dynamic_shapes={INPUT: {0: "batch"}},
            dynamo=True,
            external_data=_bytes(plan) > 2**30,
        )


def _bytes(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in [*module.parameters(), *module.buffers()])


def require(module: str, extra: str) -> Any:
    """Import an optional library.

    Raises:
        ConfigError: If it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"this needs {module}, which is not installed",
                          hint=f"pip install 'genzqa[{extra}]'") from None  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every shape that becomes a constant, which is what is meant."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryFile("w+") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
