"""Options of every command that runs a model: by what, in which precision, where."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Backend(StrEnum):
    """What runs the model; an exported one is run by what it was exported for."""

    torch = "torch"
    openvino = "openvino"


class Precision(StrEnum):
    """Of the networks."""

    fp32 = "fp32"
    bf16 = "bf16"


BackendOption = Annotated[Backend, typer.Option(help="What runs the model; openvino is an extra.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="bf16 where the processor is faster in it; mini stays in fp32.")
]
DeviceOption = Annotated[str, typer.Option(help="For torch: cpu, cuda, mps, or auto: cuda if there is one, else cpu.")]
