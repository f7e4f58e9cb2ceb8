"""The comparison: one HTML page about how well models agree with people on databases, that needs nothing but itself."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from genzqa.errors import DataError
from genzqa.evaluation.evaluate import Agreement, agreement
from genzqa.evaluation.predictions import Prediction, Predictions, same_items
from genzqa.evaluation.statistics import LEAST, Difference, compare, fit_logistic
from genzqa.evaluation.tables import domain_means
from genzqa.limits import DEFAULT_LIMITS
from genzqa.report.page import environment, page_part
from genzqa.report.pictures import Picture, read_picture

WORST = 6  # items shown with their pictures
MOST_POINTS = 1500  # of a plot; more would make the page heavy and the plot black
_PLOT = (420, 340)  # CSS pixels
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_FACTS = (
    "weights_sha256",
    "base",
    "base_sha256",
    "preprocessing",
    "timesteps",
    "seed",
    "backend",
    "precision",
    "version",
)


@dataclass(frozen=True)
class _Model:
    """One results folder: its figures by database."""

    name: str
    facts: tuple[tuple[str, str], ...]
    found: dict[str, Predictions]
    agreed: dict[str, Agreement | None]
    domains: dict[str, tuple[list[str], float]]


@dataclass(frozen=True)
class _Pair:
    one: str
    other: str
    database: str
    items: int
    difference: Difference


@dataclass(frozen=True)
class _Disagreement:
    path: str
    score: float
    quality: float
    expected: float
    picture: Picture | None


@dataclass(frozen=True)
class _Panel:
    """One model on one database."""

    model: str
    database: str
    split: str
    agreed: Agreement
    scatter: Any
    residual: Any
    thinned: int
    worst: tuple[_Disagreement, ...]


def published_figures(databases: Sequence[str]) -> list[dict[str, str]]:
    """Figures of other systems on these databases, each with its source, as ``evaluation/published.csv`` has them."""
    text = files("genzqa.evaluation").joinpath("published.csv").read_text("utf-8")
    return [row for row in csv.DictReader(text.splitlines()) if row["database"] in databases]


def comparison_page(results: Mapping[str, Sequence[Predictions]], *, seed: int = 0) -> str:
    """The page for some models, each with its predictions by database.

    Args:
        results: What to call each model, and what it predicted.
        seed: Of the bootstrap.

    Raises:
        ConfigError: If the libraries that make the page are not installed.
        DataError: If two predictions of one model are of one database.
    """
    from markupsafe import Markup

    made = environment()
    models = [_model(name, found, seed) for name, found in results.items()]
    databases = sorted({name for model in models for name in model.found})
    panels = [
        _panel(model, name, f"p{number}") for model in models for number, name in _numbered(models, model, databases)
    ]
    return made.from_string(page_part("comparison.html.j2")).render(
        policy=_POLICY,
        style=Markup(page_part("report.css")),
        models=[_blanks(model, databases) for model in models],
        databases=databases,
        domains=sorted({domain for model in models for domain in model.domains}),
        published=published_figures(databases),
        pairs=_pairs(models, databases, seed),
        panels=panels,
    )


def _numbered(models: Sequence[_Model], model: _Model, databases: Sequence[str]) -> list[tuple[int, str]]:
    first = models.index(model) * len(databases)
    return [(first + number, name) for number, name in enumerate(databases) if name in model.found]


def _model(name: str, found: Sequence[Predictions], seed: int) -> _Model:
    by_name = {one.database: one for one in found}
    if len(by_name) < len(found):
        raise DataError("two predictions are of one database", subject=name)
    agreed: dict[str, Agreement | None] = {one.database: agreement(one, seed=seed) for one in found}
    rows = [(one, kept) for one in found if (kept := agreed[one.database]) is not None]
    made = found[0].model
    facts = tuple((fact.replace("_", " "), str(made[fact])) for fact in _FACTS if fact in made)
    return _Model(name, facts, by_name, agreed, domain_means(rows))


def _blanks(model: _Model, databases: Sequence[str]) -> _Model:
    agreed = {name: model.agreed.get(name) for name in databases}
    return _Model(model.name, model.facts, model.found, agreed, model.domains)


def _pairs(models: Sequence[_Model], databases: Sequence[str], seed: int) -> list[_Pair]:
    pairs = []
    for one, other in combinations(models, 2):
        for name in databases:
            if name not in one.found or name not in other.found:
                continue
            mine, theirs = same_items(one.found[name], other.found[name])
            if len(mine) >= LEAST:
                groups = [row.group or row.path for row in mine]
                difference = compare(
                    _scores(mine), _scores(theirs), [row.quality for row in mine], groups=groups, seed=seed
                )
                pairs.append(_Pair(one.name, other.name, name, len(mine), difference))
    return pairs


def _scores(rows: Sequence[Prediction]) -> list[float]:
    return [row.score for row in rows if row.score is not None]


def _panel(model: _Model, name: str, ids: str) -> _Panel:
    from markupsafe import Markup

    from genzqa.report.plots import residual_plot, scatter_plot

    found, agreed = model.found[name], model.agreed[name]
    assert agreed is not None
    if not agreed.figures:
        return _Panel(model.name, name, found.split, agreed, "", "", 0, ())
    score, quality = found.column("score"), found.column("quality")
    fitted = fit_logistic(score, quality)
    expected = fitted(score)
    step = -(-len(score) // MOST_POINTS)
    line = np.linspace(score.min(), score.max(), 60)
    label = f"{name}: MOS over score of {len(score)} items, SRCC {agreed.figures['srcc']}"
    width, height = _PLOT
    scatter = scatter_plot(score[::step].tolist(), quality[::step].tolist(), (line.tolist(), fitted(line).tolist()), width=width,
                           height=height, ids=f"{ids}-scatter-", label=label)  # fmt: skip
    residual = residual_plot(score[::step].tolist(), (quality - expected)[::step].tolist(), width=width, height=height,
                             ids=f"{ids}-residual-", label=f"{name}: residuals of the fit")  # fmt: skip
    order = np.argsort(-np.abs(quality - expected), kind="stable")[:WORST]
    worst = tuple(
        _Disagreement(
            found.scored[i].path, float(score[i]), float(quality[i]), float(expected[i]), _thumbnail(found, int(i))
        )
        for i in order
    )
    return _Panel(
        model.name, name, found.split, agreed, Markup(scatter), Markup(residual), step if step > 1 else 0, worst
    )


def _thumbnail(found: Predictions, index: int) -> Picture | None:
    """Of the file where it was scored, if it is still there; of a video, its first frame."""
    path = Path(found.root) / found.scored[index].path
    return read_picture(path, None, DEFAULT_LIMITS) if path.is_file() else None
