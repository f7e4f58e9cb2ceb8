"""A model on a database it was not trained on: scores of every item, and how well they agree with people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genzqa.databases.database import Sample, Samples
from genzqa.evaluation.predictions import Prediction, Predictions
from genzqa.evaluation.statistics import LEAST, Figure, measure, srcc
from genzqa.result import FailedResult
from genzqa.scoring.scorer import Scorer


def evaluate(scorer: Scorer, samples: Samples, items: Sequence[Sample], split: str, *, batch_size: int = 4,
             progress: Callable[[], object] = lambda: None) -> Predictions:  # fmt: skip
    """Score items of a database; one that cannot be scored keeps its row, with the error.

    Args:
        scorer: The model.
        samples: The database.
        items: Which of its items, usually `Samples.part`.
        split: What they are called.
        batch_size: Photos scored together; changes no score.
        progress: Called after each item.
    """
    rows = []
    scored = scorer.score_many([item.path for item in items], batch_size=batch_size)
    for item, quality, result in zip(items, samples.quality(items), scored, strict=True):
        path = (
            item.path.relative_to(samples.root).as_posix() if item.path.is_relative_to(samples.root) else str(item.path)
        )
        if isinstance(result, FailedResult):
            error = f"{result.error.code}: {result.error.reason}"
            rows.append(Prediction(path, item.group, item.mos, float(quality), None, None, None, None, error))
        else:
            low, high = result.interval
            rows.append(Prediction(path, item.group, item.mos, float(quality), result.score, low, high, result.raw))
        progress()
    facts = samples.database
    model = {**dataclasses.asdict(scorer.provenance), "timesteps": list(scorer.provenance.timesteps)}
    return Predictions(
        facts.name,
        split,
        facts.kind,
        facts.domains,
        str(samples.root.absolute()),
        facts.range_known,
        model,
        tuple(rows),
    )


@dataclass(frozen=True)
class Agreement:
    """How well scores agree with MOS.

    Attributes:
        items: Scored items that the figures are of.
        failed: Items that could not be scored, and are in no figure.
        figures: Of `statistics.MEASURES`, with intervals; empty for fewer than `LEAST` items.
        within: Mean SRCC inside the groups of at least `LEAST` items, and how many those are; None without such groups.
        coverage: Share of the items whose MOS, on 0..100, lies in the model's 95 % interval; None where
            the range of the MOS is not known.
    """

    items: int
    failed: int
    figures: dict[str, Figure]
    within: tuple[float, int] | None
    coverage: float | None


def agreement(predictions: Predictions, *, seed: int = 0) -> Agreement:
    """The figures of one database. Bootstrap draws take whole groups where the database has groups."""
    scored = predictions.scored
    failed = len(predictions.rows) - len(scored)
    if len(scored) < LEAST:
        return Agreement(len(scored), failed, {}, None, None)
    score, quality, groups = predictions.column("score"), predictions.column("quality"), predictions.groups()
    covered = None
    if predictions.range_known:
        low, high = predictions.column("low"), predictions.column("high")
        covered = float(np.mean((low <= quality) & (quality <= high)))
    return Agreement(
        len(scored), failed, measure(score, quality, groups=groups, seed=seed), _within(score, quality, groups), covered
    )


def _within(score: np.ndarray, quality: np.ndarray, groups: np.ndarray) -> tuple[float, int] | None:
    found = [srcc(score[groups == name], quality[groups == name])
             for name, count in zip(*np.unique(groups, return_counts=True), strict=True) if count >= LEAST]  # fmt: skip
    found = [value for value in found if np.isfinite(value)]
    return (float(np.mean(found)), len(found)) if found else None
