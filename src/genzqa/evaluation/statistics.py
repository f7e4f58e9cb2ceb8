"""The field's measures of agreement between scores and MOS, with intervals, and whether two models differ.

SRCC and KRCC are of the scores as they are; PLCC and RMSE after the monotonic four-parameter logistic of VQEG, fitted on the same
items (ITU-T P.1401; VQEG, Final report from the Video Quality Experts Group, 2000). Nothing is ever fitted for SRCC: a curve that is
not monotonic can turn its sign.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]
Measure = Callable[[Floats, Floats], float]

LEAST = 5  # items; a logistic of four parameters fits fewer exactly
RESAMPLES = 1000


def srcc(scores: Floats, mos: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where either side is constant."""
    return _correlation(stats.rankdata(scores), stats.rankdata(mos))


def krcc(scores: Floats, mos: Floats) -> float:
    """Kendall's tau-b; NaN where either side is constant."""
    return float(stats.kendalltau(scores, mos).statistic)


def plcc(scores: Floats, mos: Floats) -> float:
    """Pearson's correlation after the logistic fit."""
    return _correlation(fit_logistic(scores, mos)(scores), mos)


def rmse(scores: Floats, mos: Floats) -> float:
    """Root mean square error after the logistic fit, in units of the MOS."""
    return float(np.sqrt(np.mean((fit_logistic(scores, mos)(scores) - mos) ** 2)))


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale > 0 else float("nan")


@dataclass(frozen=True)
class Logistic:
    """``(top - bottom) / (1 + exp(-(x - centre) / |width|)) + bottom``."""

    top: float
    bottom: float
    centre: float
    width: float

    def __call__(self, scores: npt.ArrayLike) -> Floats:
        """The MOS it predicts for these scores."""
        reach = np.clip((np.asarray(scores, np.float64) - self.centre) / max(abs(self.width), 1e-12), -500, 500)
        return np.asarray((self.top - self.bottom) / (1 + np.exp(-reach)) + self.bottom)


def fit_logistic(scores: Floats, mos: Floats) -> Logistic:
    """Least squares, from where VQEG starts: the range of the MOS, the mean and spread of the scores. Scores that are constant,
    or a fit that does not settle, give the logistic it started from; `top` may come out below `bottom` for a falling relation."""
    spread = float(np.std(scores))
    start = (float(mos.max()), float(mos.min()), float(np.mean(scores)), spread / 2 or 1.0)
    if spread == 0 or len(scores) < LEAST:
        return Logistic(*start)
    if _correlation(scores, mos) < 0:
        start = (start[1], start[0], *start[2:])

    def curve(x: Floats, top: float, bottom: float, centre: float, width: float) -> Floats:
        return Logistic(top, bottom, centre, width)(x)

    try:
        with warnings.catch_warnings():  # of the covariance, which nobody asks for; few items often have none
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            found, _ = optimize.curve_fit(curve, scores, mos, p0=start, maxfev=20_000)
    except RuntimeError:
        return Logistic(*start)
    return Logistic(*(float(value) for value in found))


@dataclass(frozen=True)
class Figure:
    """A measure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


MEASURES: dict[str, Measure] = {"srcc": srcc, "plcc": plcc, "krcc": krcc, "rmse": rmse}


def measure(
    scores: npt.ArrayLike, mos: npt.ArrayLike, *, groups: npt.ArrayLike | None = None, seed: int = 0
) -> dict[str, Figure]:
    """All `MEASURES` with 95 % percentile intervals over `RESAMPLES` bootstrap draws of the items.

    Args:
        scores: ``(N,)``, N of at least `LEAST`.
        mos: ``(N,)``, higher is better.
        groups: ``(N,)``; items of one group, such as a reference image, are drawn together, for they are not independent.
        seed: Of the draws.

    In the draws the logistic of the whole is kept for PLCC and RMSE: what is resampled is the items, not the fit.

    Raises:
        ValueError: For fewer than `LEAST` items, lengths that differ, or values that are not finite.
    """
    scores, mos = _checked(scores, mos)
    fitted = fit_logistic(scores, mos)(scores)
    found = {name: one(scores, mos) for name, one in MEASURES.items()}
    draws = _draws(len(scores), groups, seed)
    spread: dict[str, list[float]] = {name: [] for name in found}
    for index in draws:
        spread["srcc"].append(srcc(scores[index], mos[index]))
        spread["krcc"].append(krcc(scores[index], mos[index]))
        spread["plcc"].append(_correlation(fitted[index], mos[index]))
        spread["rmse"].append(float(np.sqrt(np.mean((fitted[index] - mos[index]) ** 2))))
    return {name: Figure(value, *_bounds(spread[name])) for name, value in found.items()}


def measure_rank(scores: npt.ArrayLike, mos: npt.ArrayLike, *, seed: int = 0) -> Figure:
    """SRCC alone with its interval, as `measure` gives it of items without groups, in a fraction of the time.

    Raises:
        ValueError: As `measure`.
    """
    scores, mos = _checked(scores, mos)
    return Figure(
        srcc(scores, mos), *_bounds([srcc(scores[index], mos[index]) for index in _draws(len(scores), None, seed)])
    )


def agreement(
    scores: npt.ArrayLike, others: npt.ArrayLike, *, groups: npt.ArrayLike | None = None, seed: int = 0
) -> dict[str, Figure]:
    """SRCC, PLCC and RMSE of two models' scores of the same items, with intervals as in `measure`.

    Both are on one scale, so nothing is fitted: a constant difference counts.

    Args:
        scores: ``(N,)``, N of at least `LEAST`.
        others: ``(N,)``.
        groups: ``(N,)``; items of one group, such as a photo and its copies, are drawn together.
        seed: Of the draws.

    Raises:
        ValueError: As `measure`.
    """
    left, right = _checked(scores, others)
    plain: dict[str, Measure] = {
        "srcc": srcc,
        "plcc": _correlation,
        "rmse": lambda one, other: float(np.sqrt(np.mean((one - other) ** 2))),
    }
    draws = _draws(len(left), groups, seed)
    return {name: Figure(one(left, right), *_bounds([one(left[index], right[index]) for index in draws]))
            for name, one in plain.items()}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """SRCC of one model less that of another on the same items, its 95 % interval, and a two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def compare(one: npt.ArrayLike, other: npt.ArrayLike, mos: npt.ArrayLike, *, groups: npt.ArrayLike | None = None,
            seed: int = 0) -> Difference:  # fmt: skip
    """Whether two models' SRCC differ, by a paired bootstrap of the items (or of their groups).

    The p-value is twice the share of draws on the rarer side of no difference, at least one draw.
    """
    first, truth = _checked(one, mos)
    second, _ = _checked(other, mos)
    draws = _draws(len(truth), groups, seed)
    spread = [srcc(first[index], truth[index]) - srcc(second[index], truth[index]) for index in draws]
    known = [value for value in spread if np.isfinite(value)]  # a draw of items that are all alike is on neither side
    below = float(np.mean(np.less_equal(known, 0))) if known else 1.0
    above = float(np.mean(np.greater_equal(known, 0))) if known else 1.0
    p = min(1.0, 2 * max(min(below, above), 1 / len(spread)))
    return Difference(srcc(first, truth) - srcc(second, truth), *_bounds(spread), p)


def _bounds(spread: list[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(spread, [2.5, 97.5]) if np.isfinite(spread).any() else (np.nan, np.nan)
    return float(low), float(high)


def _checked(scores: npt.ArrayLike, mos: npt.ArrayLike) -> tuple[Floats, Floats]:
    left, right = np.asarray(scores, np.float64), np.asarray(mos, np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(f"scores and MOS must be two lists of one length, not {left.shape} and {right.shape}")
    if len(left) < LEAST:
        raise ValueError(f"{len(left)} items are too few to measure anything; at least {LEAST}")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("scores and MOS must be finite")
    return left, right


def _draws(count: int, groups: npt.ArrayLike | None, seed: int) -> list[npt.NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    if groups is None:
        return [rng.integers(0, count, count) for _ in range(RESAMPLES)]
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    members = [np.flatnonzero(number == one) for one in range(number.max() + 1)]
    return [
        np.concatenate([members[one] for one in rng.integers(0, len(members), len(members))]) for _ in range(RESAMPLES)
    ]
