"""``genzqa distill``: a small, fast student of a scorer, from photos without human scores.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.allocator import keep_freed_memory
from genzqa.cli.inputs import find_inputs
from genzqa.cli.output import PIPED_WIDTH
from genzqa.cli.said import saying
from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.student.make import Made

Photos = Annotated[
    list[str],
    typer.Option("--photos", metavar="DIR", help="Photos to learn from, searched to the bottom; repeat for more."),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the student is written; its name is the student's.")]
Teacher = Annotated[str, typer.Option("--teacher", help="Whom to imitate: mini, or local-dir:FOLDER.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the photos.")]
Size = Annotated[int, typer.Option(min=64, max=1024, help="Side of the student's square, pixels; a multiple of 32.")]
Copies = Annotated[int, typer.Option(min=0, max=16, help="Degraded copies of every photo.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16: quicker where the processor has it.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.")]
Cache = Annotated[Path | None, typer.Option(metavar="DIR", help="Where readings are kept [default: OUT/readings].")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]


def distill_command(
    photos: Photos,
    out: Out,
    teacher: Teacher = "mini",
    epochs: Epochs = 30,
    size: Size = 320,
    copies: Copies = 1,
    precision: Precision = "fp32",
    seed: Seed = 0,
    cache: Cache = None,
    offline: Offline = False,
) -> None:
    """Train a small convolutional student on what a scorer says of photos. Started again, it goes on where it stopped.

    What is left in DIR is a model: genzqa score --model local-dir:DIR, and student.onnx for any runtime. A tenth of the
    photos is held out to measure how well it agrees with its teacher.
    """
    from pydantic import ValidationError

    from genzqa.errors import ConfigError
    from genzqa.media.image import SUPPORTED_SUFFIXES
    from genzqa.student.plan import DistillPlan

    try:
        plan = DistillPlan.model_validate(
            {"epochs": epochs, "size": size, "copies": copies, "precision": precision, "seed": seed}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(first["msg"], subject=f"--{first['loc'][0]} {first['input']}") from None
    keep_freed_memory(training=True)
    found = find_inputs(photos, SUPPORTED_SUFFIXES, skip_folder=str(out))
    from genzqa.model.adapter import load_scorer
    from genzqa.student.make import Told, make_student

    with saying(("readings", "photo", "read")) as said:
        for warning in found.warnings:
            said.line(f"warning: {printable(warning)}")
        loaded = load_scorer(teacher, offline=offline, trainable=False)
        told = Told(
            said.encoded,
            lambda path, reason: said.line(f"warning: {printable(str(path))}: left out: {printable(reason)}"),
            lambda train, held, steps: said.line(f"photos: {train} to train on, {held} held out; {steps} steps"),
            said.step,
        )
        folders = ", ".join(Path(one).name or one for one in photos)
        made = make_student(loaded, [Path(file) for file in found.files], plan, out, cache or out / "readings", told,
                            source=f"{len(found.files)} photos of {folders}")  # fmt: skip
    _print_agreement(made)
    typer.echo(f"score with it: genzqa score --model local-dir:{out} PHOTO", err=True)


def _print_agreement(made: Made) -> None:
    """How well the student agrees with its teacher, on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    recorded = made.config.agreement
    assert recorded is not None
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPED_WIDTH)
    table = Table(f"agreement with {made.config.teacher.name}", "n", "SRCC", "PLCC", "RMSE, points", box=box.SIMPLE)
    for name, count, figures in (("held-out photos", recorded.photos, made.photos),
                                 ("with their copies", recorded.readings, made.readings)):  # fmt: skip
        if figures is not None:
            table.add_row(name, str(count), *(str(figures[one]) for one in ("srcc", "plcc", "rmse")))
    console.print(table)
