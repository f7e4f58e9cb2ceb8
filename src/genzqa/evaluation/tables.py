"""Figures of an evaluation as tables: Markdown, CSV and LaTeX, and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genzqa.evaluation.evaluate import Agreement
from genzqa.evaluation.predictions import Predictions
from genzqa.evaluation.statistics import LEAST, MEASURES, Figure
from genzqa.files import write_atomically
from genzqa.text import printable, spreadsheet_cell

Rows = Sequence[tuple[Predictions, Agreement]]

NAMES = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "rmse": "RMSE"}
MOST_GROUPS = 50  # of a database in the table for people; groups.csv and figures.json have them all
READING = (
    "MOS on 0..100, higher is better. SRCC and KRCC of the scores as they are; PLCC and RMSE after the four-parameter logistic "
    "of VQEG, fitted on the same items. Intervals: 95 %, bootstrap of the items, whole groups where the database has groups."
)
_RUN = ("backend", "precision", "version")  # may differ among the databases of a folder; the model does not
_LATEX = {letter: rf"\{letter}" for letter in "_&%#${}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "[": "{[}",  # at the start of a row it would be an argument of the line break before it
}  # fmt: skip


def domain_means(rows: Rows) -> dict[str, tuple[list[str], float]]:
    """For each domain the databases that have it, and the mean of their SRCC."""
    found: dict[str, list[tuple[str, float]]] = {}
    for predictions, agreed in rows:
        if agreed.figures and math.isfinite(agreed.figures["srcc"].value):
            for domain in predictions.domains:
                found.setdefault(domain, []).append((predictions.database, agreed.figures["srcc"].value))
    return {
        domain: ([name for name, _ in of], float(np.mean([value for _, value in of])))
        for domain, of in sorted(found.items())
    }


def write_tables(rows: Rows, folder: Path) -> list[Path]:
    """Write ``figures.md``, ``figures.csv``, ``figures.tex``, ``figures.json`` and ``groups.csv``.

    The last is written also when there are no groups: one of an earlier run must not be taken for this one's.

    Raises:
        OutputError: If one cannot be written.
    """
    made = {
        "figures.md": markdown(rows),
        "figures.csv": as_csv(rows),
        "figures.tex": latex(rows),
        "figures.json": json.dumps(as_record(rows), indent=2, allow_nan=False) + "\n",
        "groups.csv": groups_csv(rows),
    }
    paths = []
    for name, content in made.items():
        path = folder / name
        write_atomically(path, content.encode())
        paths.append(path)
    return paths


def markdown(rows: Rows) -> str:
    """A table by database, one by domain, one of each database's groups, and what the figures are."""
    lines = [
        f"# {cell(rows[0][0].model['model'])} on {len(rows)} {'database' if len(rows) == 1 else 'databases'}",
        "",
        "| database | split | items | " + " | ".join(NAMES.values()) + " | inside groups | 95 % interval covers |",
        "|" + "---|" * (5 + len(NAMES)),
    ]
    for predictions, agreed in rows:
        cells = [shown_figure(agreed, name) for name in MEASURES]
        within = f"{agreed.within[0]:.3f} ({agreed.within[1]} groups)" if agreed.within else "-"
        covers = "-" if agreed.coverage is None else f"{100 * agreed.coverage:.1f} %"
        lines.append(
            f"| {cell(predictions.database)} | {predictions.split} | {shown_items(agreed)} | {' | '.join(cells)} | {within} "
            f"| {covers} |"
        )
    domains = domain_means(rows)
    if domains:
        lines += ["", "| domain | databases | mean SRCC |", "|---|---|---|"]
        lines += [f"| {domain} | {', '.join(names)} | {value:.3f} |" for domain, (names, value) in domains.items()]
    for predictions, agreed in rows:
        lines += _group_lines(predictions.database, agreed)
    lines += ["", READING, "", made_by([predictions.model for predictions, _ in rows])]
    return "\n".join(lines) + "\n"


def _group_lines(database: str, agreed: Agreement) -> list[str]:
    if not agreed.by_group:
        return []
    count = len(agreed.by_group)
    of = f"the {MOST_GROUPS} largest of {count}" if count > MOST_GROUPS else f"{count}"
    lines = ["", f"Groups of {cell(database)} ({of}, of at least {LEAST} items):", "",
             "| group | items | " + " | ".join(NAMES.values()) + " |", "|---|---|" + "---|" * len(NAMES)]  # fmt: skip
    lines += [f"| {cell(one.group)} | {one.items} | {_number(one.srcc)} | {_number(one.plcc)} | {_number(one.krcc)} "
              f"| {_number(one.rmse, 2)} |" for one in agreed.by_group[:MOST_GROUPS]]  # fmt: skip
    return lines


def made_by(models: Sequence[Mapping[str, Any]]) -> str:
    """What the scores of one model depend on, in a sentence; models that were run with several versions name them all."""
    one = models[0]
    versions = ", ".join(sorted({str(model["version"]) for model in models}))
    return (
        f"Weights {one['weights_sha256'][:12]}, base {one['base']} {one['base_sha256'][:12]}, preprocessing "
        f"{one['preprocessing']}, timesteps {one['timesteps']}, seed {one['seed']}, genzqa {versions}."
    )


def as_csv(rows: Rows) -> str:
    """One line for each database; every measure with its bounds."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    bounds = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    writer.writerow(["model", "database", "split", "items", "failed", *bounds, "within_groups", "coverage"])
    for predictions, agreed in rows:
        figures = [agreed.figures.get(name, Figure(*[float("nan")] * 3)) for name in MEASURES]
        values = [decimal(value) for one in figures for value in (one.value, one.low, one.high)]
        within = decimal(agreed.within[0]) if agreed.within else ""
        covers = "" if agreed.coverage is None else decimal(agreed.coverage)
        name, database = spreadsheet_cell(predictions.model["model"]), spreadsheet_cell(predictions.database)
        writer.writerow([name, database, predictions.split, agreed.items, agreed.failed, *values,
                         within, covers])  # fmt: skip
    return buffer.getvalue()


def groups_csv(rows: Rows) -> str:
    """One line for each group of each database."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["model", "database", "split", "group", "items", "srcc", "srcc_low", "srcc_high", "plcc", "krcc", "rmse"]
    )
    for predictions, agreed in rows:
        for one in agreed.by_group:
            names = [spreadsheet_cell(name) for name in (predictions.model["model"], predictions.database)]
            values = (one.srcc.value, one.srcc.low, one.srcc.high, one.plcc, one.krcc, one.rmse)
            writer.writerow([*names, predictions.split, spreadsheet_cell(one.group), one.items, *map(decimal, values)])
    return buffer.getvalue()


def latex(rows: Rows) -> str:
    """A ``tabular`` of SRCC and PLCC with their bounds as sub- and superscript."""
    lines = [r"\begin{tabular}{lrcc}", r"\hline", r"Database & Items & SRCC & PLCC \\", r"\hline"]
    for predictions, agreed in rows:
        cells = [scripted(agreed.figures.get(name)) for name in ("srcc", "plcc")]
        lines.append(rf"{escaped(predictions.database)} & {agreed.items} & {' & '.join(cells)} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_record(rows: Rows) -> dict[str, Any]:
    """Everything, for programs; a figure that is not defined, such as SRCC of constant scores, is None."""
    databases = []
    for predictions, agreed in rows:
        figures = {name: _bounded(one) for name, one in agreed.figures.items()}
        groups = [{"group": one.group, "items": one.items, "srcc": _bounded(one.srcc), "plcc": _finite(one.plcc),
                   "krcc": _finite(one.krcc), "rmse": _finite(one.rmse)} for one in agreed.by_group]  # fmt: skip
        run = {name: predictions.model.get(name) for name in _RUN}
        within = {"srcc": agreed.within[0], "groups": agreed.within[1]} if agreed.within else None
        databases.append({"database": predictions.database, "split": predictions.split, "kind": predictions.kind,
                          "domains": predictions.domains, "items": agreed.items, "failed": agreed.failed, "figures": figures,
                          "within_groups": within, "groups": groups, "coverage": agreed.coverage, **run})  # fmt: skip
    domains = {
        domain: {"databases": names, "mean_srcc": value} for domain, (names, value) in domain_means(rows).items()
    }
    first = rows[0][0].model
    shared = {
        name: value
        for name, value in first.items()
        if name not in _RUN or all(predictions.model.get(name) == value for predictions, _ in rows)
    }
    return {"model": shared, "databases": databases, "domains": domains}


def shown_items(agreed: Agreement) -> str:
    """How many items were scored, and how many could not be."""
    return f"{agreed.items}" + (f", {agreed.failed} failed" if agreed.failed else "")


def shown_figure(agreed: Agreement, name: str) -> str:
    """A measure with its interval, for people."""
    found = agreed.figures.get(name)
    return "too few" if found is None else _number(found, 2 if name == "rmse" else 3)


def _number(value: Figure | float, digits: int = 3) -> str:
    if isinstance(value, Figure):
        bounds = f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
        return f"{value.value:.{digits}f}{bounds}" if math.isfinite(value.value) else "-"
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def decimal(value: float) -> str:
    """A number in a CSV file; empty where it is not defined."""
    return f"{value:.6f}" if math.isfinite(value) else ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounded(figure: Figure) -> dict[str, float | None]:
    return {"value": _finite(figure.value), "low": _finite(figure.low), "high": _finite(figure.high)}


def cell(name: str) -> str:
    """A name in a Markdown table: nothing in it ends the cell or the line."""
    return printable(name).replace("|", "\\|")


def scripted(figure: Figure | None, digits: int = 3) -> str:
    """A measure in LaTeX, its bounds as sub- and superscript."""
    if figure is None or not math.isfinite(figure.value):
        return "--"
    return f"${figure.value:.{digits}f}_{{{figure.low:.{digits}f}}}^{{{figure.high:.{digits}f}}}$"


def escaped(name: str) -> str:
    """A name in LaTeX text."""
    return "".join(_LATEX.get(letter, letter) for letter in printable(name))
