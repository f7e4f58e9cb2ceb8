"""A model on a database it was not trained on: scores of every item, and how well they agree with people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genzqa.databases.database import Sample, Samples
from genzqa.evaluation.predictions import Prediction, Predictions
from genzqa.evaluation.statistics import LEAST, Figure, krcc, measure, measure_rank, plcc, rmse, srcc
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
    return Predictions(
        facts.name,
        split,
        facts.kind,
        facts.domains,
        str(samples.root.absolute()),
        facts.range_known,
        model_facts(scorer),
        tuple(rows),
    )


def model_facts(scorer: Scorer) -> dict[str, Any]:
    """The provenance of a scorer's scores as it stands in `Predictions.model`, in types that JSON has."""
    return {**dataclasses.asdict(scorer.provenance), "timesteps": list(scorer.provenance.timesteps)}


@dataclass(frozen=True)
class GroupFigures:
    """How well scores agree with MOS inside one group, such as the versions of one reference.

    Attributes:
        group: Its name.
        items: How many of it have a score.
        srcc: With its interval.
        plcc, krcc, rmse: Of the group alone, the logistic too.
    """

    group: str
    items: int
    srcc: Figure
    plcc: float
    krcc: float
    rmse: float


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
        by_group: The groups of at least `LEAST` items, largest first; empty unless it was asked for.
    """

    items: int
    failed: int
    figures: dict[str, Figure]
    within: tuple[float, int] | None
    coverage: float | None
    by_group: tuple[GroupFigures, ...] = ()


def agreement(predictions: Predictions, *, seed: int = 0, by_group: bool = False) -> Agreement:
    """The figures of one database. Bootstrap draws take whole groups where the database has groups.

    Args:
        predictions: Of the database.
        seed: Of the draws.
        by_group: Whether to measure each group by itself too.
    """
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
        len(scored),
        failed,
        measure(score, quality, groups=groups, seed=seed),
        _within(score, quality, groups),
        covered,
        _by_group(predictions, seed) if by_group else (),
    )


def _by_group(predictions: Predictions, seed: int) -> tuple[GroupFigures, ...]:
    members: dict[str, list[int]] = {}
    for number, row in enumerate(predictions.scored):
        if row.group:
            members.setdefault(row.group, []).append(number)
    score, quality = predictions.column("score"), predictions.column("quality")
    found = []
    for name, numbers in sorted(members.items(), key=lambda one: (-len(one[1]), one[0])):
        if len(numbers) >= LEAST:
            mine, theirs = score[numbers], quality[numbers]
            ranks = measure_rank(mine, theirs, seed=seed)
            found.append(
                GroupFigures(name, len(numbers), ranks, plcc(mine, theirs), krcc(mine, theirs), rmse(mine, theirs))
            )
    return tuple(found)


def _within(score: np.ndarray, quality: np.ndarray, groups: np.ndarray) -> tuple[float, int] | None:
    found = [srcc(score[groups == name], quality[groups == name])
             for name, count in zip(*np.unique(groups, return_counts=True), strict=True) if count >= LEAST]  # fmt: skip
    found = [value for value in found if np.isfinite(value)]
    return (float(np.mean(found)), len(found)) if found else None
