"""``genzqa export``: a model as a graph that other runtimes execute."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genzqa.cli.running import Precision
from genzqa.text import printable


class Target(StrEnum):
    """What for."""

    onnx = "onnx"
    openvino = "openvino"


def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; new, or empty.")],
    to: Annotated[Target, typer.Option(help="The runtime.")],
    model: Annotated[str, typer.Option(help="mini, or local-dir:FOLDER for an adapter of your own.")] = "mini",
    precision: Annotated[Precision, typer.Option(help="bf16 for openvino alone.")] = Precision.fp32,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a network connection.")] = False,
) -> None:
    """Write a trained model as a graph for ONNX Runtime or OpenVINO, checked against torch, and print the folder.

    Score with it by --model local-dir:DIR. A graph that is off by more than 0.001 (fp32, raw units) or 0.1 score points (bf16)
    is refused, and nothing is written.
    """
    from genzqa.scoring.export import export_model

    found = export_model(model, to.value, folder, precision=precision.value, offline=offline)
    typer.echo(f"largest difference from torch: {found['raw']:g} raw units", err=True)
    typer.echo(printable(str(folder)))
