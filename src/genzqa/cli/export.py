"""``genzqa export``: a model as a graph that other runtimes execute."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genzqa.cli.inputs import find_inputs
from genzqa.text import printable


class Target(StrEnum):
    """What for."""

    onnx = "onnx"
    openvino = "openvino"


class Precision(StrEnum):
    """Of the graph."""

    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; new, or empty.")],
    to: Annotated[Target, typer.Option(help="The runtime.")],
    model: Annotated[str, typer.Option(help="mini, or local-dir:FOLDER for an adapter of your own.")] = "mini",
    precision: Annotated[Precision, typer.Option(help="bf16 and int8 for openvino alone.")] = Precision.fp32,
    photos: Annotated[
        list[str] | None,
        typer.Option(
            "--photos", metavar="PATH", help="For int8: eight or more photos like those to be scored; repeat for more."
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a network connection.")] = False,
) -> None:
    """Write a trained model as a graph for ONNX Runtime or OpenVINO, checked against torch, and print the folder.

    Score with it by --model local-dir:DIR. A graph that is off by more than 0.001 raw units (fp32), 0.1 score points (bf16)
    or 0.2 (int8) is refused, and nothing is written.
    """
    from genzqa.media.image import SUPPORTED_SUFFIXES
    from genzqa.scoring.export import export_model

    files = find_inputs(photos, SUPPORTED_SUFFIXES).files if photos else []
    found = export_model(model, to.value, folder, precision=precision.value, photos=files, offline=offline)
    points = f", {found['score']:g} score points" if "score" in found else ""
    typer.echo(f"largest difference from torch: {found['raw']:g} raw units{points}", err=True)
    typer.echo(printable(str(folder)))
