"""``genzqa benchmark``: results folders of ``genzqa evaluate`` side by side.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genzqa.text import printable

Folders = Annotated[
    list[Path], typer.Argument(metavar="DIR", help="Folders that genzqa evaluate wrote, one for each model.")
]
Html = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A page with plots, and where scores and people disagree most.")
]
Markdown = Annotated[Path | None, typer.Option(metavar="FILE", help="The table as Markdown.")]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="The table as CSV.")]
Latex = Annotated[Path | None, typer.Option(metavar="FILE", help="The table as LaTeX.")]
Seed = Annotated[int, typer.Option(help="Of the bootstrap.")]


def benchmark_command(
    folders: Folders,
    html: Html = None,
    markdown: Markdown = None,
    csv: Csv = None,
    latex: Latex = None,
    seed: Seed = 0,
) -> None:
    """Compare models on databases: all measures with intervals, whether they differ from the first, and what others have published.

    Writes the files that are asked for; without any, prints the table. A model is called by its name, and by its folder too where
    two share one.
    """
    from genzqa.errors import ConfigError, DataError
    from genzqa.evaluation.predictions import read_folder

    files = [path.resolve() for path in (html, markdown, csv, latex) if path]
    if len(set(files)) < len(files):
        raise ConfigError("one file cannot hold two of the outputs", hint="give each output a file of its own")
    if html:
        from genzqa.report.page import need_libraries

        need_libraries()
    found = [(folder, read_folder(folder)) for folder in folders]
    names = [str(predictions[0].model["model"]) for _, predictions in found]
    results = {}
    for name, (folder, predictions) in zip(names, found, strict=True):
        label = name if names.count(name) == 1 else f"{name} ({folder})"
        if label in results:
            raise DataError("is named twice", subject=str(folder))
        results[label] = predictions

    from genzqa.evaluation.comparison import compare_models
    from genzqa.evaluation.comparison_tables import comparison_csv, comparison_latex, comparison_markdown
    from genzqa.files import write_atomically

    compared = compare_models(results, seed=seed)
    if not files:
        typer.echo(comparison_markdown(compared), nl=False)
        return
    made: list[tuple[Path, str]] = []  # all of them, before the first is written
    if html:
        from genzqa.report.comparison import comparison_page

        made.append((html, comparison_page(compared)))
    for path, table in ((markdown, comparison_markdown), (csv, comparison_csv), (latex, comparison_latex)):
        if path:
            made.append((path, table(compared)))
    databases = {block.database for block in compared.blocks}
    for path, content in made:
        write_atomically(path, content.encode())
        typer.echo(f"{printable(str(path))}: models {len(results)}, databases {len(databases)}", err=True)
