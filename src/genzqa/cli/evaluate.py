"""``genzqa evaluate``: a model on databases of human scores.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.cli.running import Backend, BackendOption, DeviceOption, Precision, PrecisionOption
from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.databases.splits import Split


class Part(StrEnum):
    """Which items of a database."""

    test = "test"
    validation = "validation"
    train = "train"
    all = "all"


_SPLITS: dict[Part, Split] = {Part.test: "test", Part.validation: "validation", Part.train: "train"}

Data = Annotated[
    list[str], typer.Option("--data", metavar="NAME=PATH", help="A database's folder, or a CSV file; repeat for more.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where predictions and tables are written.")]
Model = Annotated[str, typer.Option(help="mini, mini-student (faster), or local-dir:FOLDER for a model of your own.")]
WhichPart = Annotated[Part, typer.Option(help="Which items; databases without official splits are cut by --seed.")]
Seed = Annotated[int, typer.Option(help="Of the cut of databases without official splits, and of the bootstrap.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos scored together.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]


def evaluate_command(
    data: Data,
    out: Out,
    model: Model = "mini",
    split: WhichPart = Part.all,
    seed: Seed = 0,
    batch_size: BatchSize = 16,
    backend: BackendOption = Backend.torch,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = "auto",
    offline: Offline = False,
) -> None:
    """Score databases and say how well the scores agree with people: SRCC, PLCC, KRCC, RMSE, with 95 % intervals.

    Writes one Parquet file of predictions for each database, and figures.md, .csv, .tex and .json and groups.csv of all databases
    that DIR then holds. DIR may hold predictions of the same model on other databases, and of no other model.

    Exit status: 0 all scored, 1 some items failed, 2 usage, data, model or output error.
    """
    from genzqa.cli.output import progress
    from genzqa.databases.registry import open_database
    from genzqa.errors import DataError, OutputError

    read = [open_database(spec) for spec in data]  # all labels before anything slow
    names = [one.database.name for one in read]
    if len(set(names)) < len(names):
        raise DataError(
            "a database is named twice", subject=", ".join(names), hint="give tables of your own other names"
        )
    chosen = []
    for one in read:
        items = one.items if split is Part.all else one.part(_SPLITS[split], seed=seed)
        if not items:
            raise DataError(f"has no {split.value} part", subject=one.database.name)
        chosen.append(items)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror or error}", subject=str(out)) from error
    from genzqa.evaluation.evaluate import agreement, evaluate, model_facts
    from genzqa.evaluation.predictions import read_folder, refuse_another_model, write_predictions
    from genzqa.evaluation.tables import markdown, write_tables
    from genzqa.scoring.scorer import load

    scorer = load(model, offline=offline, backend=backend.value, precision=precision.value, device=device)
    refuse_another_model(out, model_facts(scorer))
    made = []
    with progress(sum(map(len, chosen)), bar=True) as shown:
        for one, items in zip(read, chosen, strict=True):
            found = evaluate(scorer, one, items, split.value, batch_size=batch_size, progress=shown.advance)
            write_predictions(found, out / f"{one.database.name}.parquet")
            made.append(found)
    rows = [(kept, agreement(kept, seed=seed, by_group=True)) for kept in read_folder(out)]
    write_tables(rows, out)
    typer.echo(markdown(rows), nl=False)
    failed = [(found.database, row) for found in made for row in found.rows if row.error]
    for name, row in failed[:10]:
        print(printable(f"{name}: {row.path}: {row.error}"), file=sys.stderr)
    if failed:
        print(f"{len(failed)} items could not be scored; their rows in the Parquet files say why", file=sys.stderr)
        raise typer.Exit(1)
