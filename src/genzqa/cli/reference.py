"""``genzqa import-reference``: an adapter folder from trained parts in the formats of the method's research release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genzqa.text import printable


def import_reference_command(
    base: Annotated[str, typer.Option(help="The base they were trained on, such as sd21 or local-dir:FOLDER.")],
    unet_lora: Annotated[Path, typer.Option(help="LoRA of the UNet: pytorch_model.bin.")],
    context: Annotated[Path, typer.Option(help="Prompt context: coop_Model_state_dict.pth.")],
    out: Annotated[Path, typer.Option(help="Adapter folder to write.")],
    slow: Annotated[Path | None, typer.Option(help="For video: slowAttn.pth.")] = None,
    fast: Annotated[Path | None, typer.Option(help="For video: fastAttn.pth.")] = None,
    linear: Annotated[Path | None, typer.Option(help="For video: linearBlocks.pth.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never open a network connection.")] = False,
) -> None:
    """Convert trained parts of the research release into an adapter folder, and print the folder."""
    from genzqa.model.reference import import_reference

    import_reference(base=base, unet_lora=unet_lora, context=context, out=out, slow=slow, fast=fast, linear=linear,
                     offline=offline)  # fmt: skip
    typer.echo(printable(str(out)))
