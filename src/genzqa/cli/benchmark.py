"""``genzqa benchmark``: results folders of ``genzqa evaluate`` side by side.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folders = Annotated[
    list[Path], typer.Argument(metavar="DIR", help="Folders that genzqa evaluate wrote, one for each model.")
]
Html = Annotated[Path, typer.Option(metavar="FILE", help="Where the page is written.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap.")]


def benchmark_command(folders: Folders, html: Html, seed: Seed = 0) -> None:
    """Compare models on databases: tables, significance, scatter plots, and where they disagree most with people.

    Writes one HTML page that needs nothing but itself. A model is called by its name, and by its folder too where two share one.
    """
    from genzqa.evaluation.predictions import read_folder
    from genzqa.files import write_atomically
    from genzqa.report.comparison import comparison_page

    found = [(folder, read_folder(folder)) for folder in folders]
    names = [str(predictions[0].model["model"]) for _, predictions in found]
    results = {}
    for name, (folder, predictions) in zip(names, found, strict=True):
        results[name if names.count(name) == 1 else f"{name} ({folder})"] = predictions
    write_atomically(html, comparison_page(results, seed=seed).encode())
    databases = {one.database for _, predictions in found for one in predictions}
    typer.echo(f"{html}: models {len(results)}, databases {len(databases)}", err=True)
