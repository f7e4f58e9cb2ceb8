"""Figures of an evaluation as tables: Markdown, CSV and LaTeX, and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genzqa.evaluation.evaluate import Agreement
from genzqa.evaluation.predictions import Predictions
from genzqa.evaluation.statistics import MEASURES, Figure
from genzqa.files import write_atomically

Rows = Sequence[tuple[Predictions, Agreement]]

_NAMES = {"srcc": "SRCC", "plcc": "PLCC", "krcc": "KRCC", "rmse": "RMSE"}


def domain_means(rows: Rows) -> dict[str, tuple[list[str], float]]:
    """For each domain the databases that have it, and the mean of their SRCC."""
    found: dict[str, list[tuple[str, float]]] = {}
    for predictions, agreed in rows:
        if agreed.figures:
            for domain in predictions.domains:
                found.setdefault(domain, []).append((predictions.database, agreed.figures["srcc"].value))
    return {
        domain: ([name for name, _ in of], float(np.mean([value for _, value in of])))
        for domain, of in sorted(found.items())
    }


def write_tables(rows: Rows, folder: Path) -> list[Path]:
    """Write ``figures.md``, ``figures.csv``, ``figures.tex`` and ``figures.json``.

    Raises:
        OutputError: If one cannot be written.
    """
    made = {
        "md": markdown(rows),
        "csv": as_csv(rows),
        "tex": latex(rows),
        "json": json.dumps(as_record(rows), indent=2) + "\n",
    }
    paths = []
    for suffix, content in made.items():
        path = folder / f"figures.{suffix}"
        write_atomically(path, content.encode())
        paths.append(path)
    return paths


def markdown(rows: Rows) -> str:
    """A table by database, one by domain, and what the figures are."""
    model = rows[0][0].model
    lines = [
        f"# {model['model']} on {len(rows)} {'database' if len(rows) == 1 else 'databases'}",
        "",
        "| database | split | items | " + " | ".join(_NAMES.values()) + " | inside groups | 95 % interval covers |",
        "|" + "---|" * (5 + len(_NAMES)),
    ]
    for predictions, agreed in rows:
        cells = [_figure(agreed, name) for name in MEASURES]
        within = f"{agreed.within[0]:.3f} ({agreed.within[1]} groups)" if agreed.within else "-"
        covers = "-" if agreed.coverage is None else f"{100 * agreed.coverage:.1f} %"
        items = f"{agreed.items}" + (f", {agreed.failed} failed" if agreed.failed else "")
        lines.append(
            f"| {predictions.database} | {predictions.split} | {items} | {' | '.join(cells)} | {within} | {covers} |"
        )
    domains = domain_means(rows)
    if domains:
        lines += ["", "| domain | databases | mean SRCC |", "|---|---|---|"]
        lines += [f"| {domain} | {', '.join(names)} | {value:.3f} |" for domain, (names, value) in domains.items()]
    lines += [
        "",
        "MOS on 0..100, higher is better. SRCC and KRCC of the scores as they are; PLCC and RMSE after the four-parameter logistic "
        "of VQEG, fitted on the same items. Intervals: 95 %, bootstrap of the items, whole groups where the database has groups.",
        "",
        f"Weights {model['weights_sha256'][:12]}, base {model['base']} {model['base_sha256'][:12]}, preprocessing "
        f"{model['preprocessing']}, timesteps {model['timesteps']}, seed {model['seed']}, genzqa {model['version']}.",
    ]
    return "\n".join(lines) + "\n"


def as_csv(rows: Rows) -> str:
    """One line for each database; every measure with its bounds."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    bounds = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    writer.writerow(["model", "database", "split", "items", "failed", *bounds, "within_groups", "coverage"])
    for predictions, agreed in rows:
        figures = [agreed.figures.get(name, Figure(*[float("nan")] * 3)) for name in MEASURES]
        values = [f"{value:.6f}" for one in figures for value in (one.value, one.low, one.high)]
        within = f"{agreed.within[0]:.6f}" if agreed.within else ""
        covers = "" if agreed.coverage is None else f"{agreed.coverage:.6f}"
        writer.writerow([predictions.model["model"], predictions.database, predictions.split, agreed.items, agreed.failed, *values,
                         within, covers])  # fmt: skip
    return buffer.getvalue()


def latex(rows: Rows) -> str:
    """A ``tabular`` of SRCC and PLCC with their bounds as sub- and superscript."""
    lines = [r"\begin{tabular}{lrcc}", r"\hline", r"Database & Items & SRCC & PLCC \\", r"\hline"]
    for predictions, agreed in rows:
        cells = [_scripted(agreed.figures.get(name)) for name in ("srcc", "plcc")]
        lines.append(rf"{_escaped(predictions.database)} & {agreed.items} & {' & '.join(cells)} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def as_record(rows: Rows) -> dict[str, Any]:
    """Everything, for programs."""
    databases = []
    for predictions, agreed in rows:
        figures = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in agreed.figures.items()}
        within = {"srcc": agreed.within[0], "groups": agreed.within[1]} if agreed.within else None
        databases.append({"database": predictions.database, "split": predictions.split, "kind": predictions.kind,
                          "domains": predictions.domains, "items": agreed.items, "failed": agreed.failed, "figures": figures,
                          "within_groups": within, "coverage": agreed.coverage})  # fmt: skip
    domains = {
        domain: {"databases": names, "mean_srcc": value} for domain, (names, value) in domain_means(rows).items()
    }
    return {"model": rows[0][0].model, "databases": databases, "domains": domains}


def _figure(agreed: Agreement, name: str) -> str:
    found = agreed.figures.get(name)
    if found is None:
        return "too few"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]" if name == "rmse" else str(found)


def _scripted(figure: Figure | None) -> str:
    return "--" if figure is None else f"${figure.value:.3f}_{{{figure.low:.3f}}}^{{{figure.high:.3f}}}$"


def _escaped(name: str) -> str:
    return "".join(rf"\{letter}" if letter in "_&%#$" else letter for letter in name)
