"""The comparison: one HTML page about how well models agree with people on databases, that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genzqa.evaluation.comparison import Comparison, Measured
from genzqa.evaluation.evaluate import Agreement
from genzqa.evaluation.predictions import Predictions
from genzqa.evaluation.statistics import MEASURES, fit_logistic
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


def comparison_page(compared: Comparison) -> str:
    """The page about some models and their predictions.

    Raises:
        ConfigError: If the libraries that make the page are not installed.
    """
    from markupsafe import Markup

    made = environment()
    order = list(compared.results)  # all of one model, then all of the next
    ours = sorted((one for block in compared.blocks for one in block.measured), key=lambda one: order.index(one.model))
    return made.from_string(page_part("comparison.html.j2")).render(
        policy=_POLICY,
        style=Markup(page_part("report.css")),
        compared=compared,
        measures=list(MEASURES),
        databases=sorted({block.database for block in compared.blocks}),
        domains=sorted({domain for found in compared.domains.values() for domain in found}),
        panels=[_panel(one, f"p{number}") for number, one in enumerate(ours)],
        facts={name: _facts(found) for name, found in compared.results.items()},
    )


def _facts(found: Sequence[Predictions]) -> list[tuple[str, str]]:
    """What a model's scores depend on; its databases may have been run differently, and then every way is named."""
    named = {fact: sorted({str(one.model[fact]) for one in found if fact in one.model}) for fact in _FACTS}
    return [(fact.replace("_", " "), ", ".join(values)) for fact, values in named.items() if values]


def _panel(one: Measured, ids: str) -> _Panel:
    from markupsafe import Markup

    from genzqa.report.plots import residual_plot, scatter_plot

    found, agreed, name = one.predictions, one.agreed, one.predictions.database
    if not agreed.figures:
        return _Panel(one.model, name, found.split, agreed, "", "", 0, ())
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
        one.model, name, found.split, agreed, Markup(scatter), Markup(residual), step if step > 1 else 0, worst
    )


def _thumbnail(found: Predictions, index: int) -> Picture | None:
    """Of the file where it was scored, if it is still there; of a video, its first frame."""
    path = Path(found.root) / found.scored[index].path
    return read_picture(path, None, DEFAULT_LIMITS) if path.is_file() else None
