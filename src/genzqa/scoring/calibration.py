"""From the raw score to a number with a meaning: 0..100, a 95 % interval, a percentile (docs/score.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genzqa.model.config import Calibration

Floats = npt.NDArray[np.float64]


def calibrate(raw: float, calibration: Calibration) -> tuple[float, tuple[float, float], float]:
    """Calibrated score 0..100, 95 % interval (low, high) within 0..100, percentile 0..100."""
    score = float(np.interp(raw, calibration.raw_knots, calibration.score_knots))
    low = score + float(np.interp(score, calibration.interval_knots, calibration.interval_low))
    high = score + float(np.interp(score, calibration.interval_knots, calibration.interval_high))
    reference = np.asarray(calibration.reference_quantiles)
    percentile = float(np.interp(score, reference, np.linspace(0, 100, len(reference))))
    return score, (max(0.0, low), min(100.0, high)), percentile


def fit_calibration(raw: Floats, mos: Floats, *, source: str, knots: int = 6, coverage: float = 0.95) -> Calibration:
    """Fit on held-out photos: monotone map by isotonic and linear regression, interval by split-conformal residual quantiles.

    The photos are split in two by position: one half fits the map, the residuals of the other half, never seen by the
    map, set the interval (Lei et al. 2018), so that coverage holds for new photos of the same kind.

    Args:
        raw: Raw scores ``(N,)``.
        mos: Their MOS on the 0..100 scale ``(N,)``.
        source: What the photos are, for the record.
        knots: Number of knots of the monotone map; fewer where there are few photos.
        coverage: Nominal coverage of the interval.
    """
    first, second = slice(0, None, 2), slice(1, None, 2)
    raw_knots, score_knots = _monotone_map(raw[first], mos[first], min(knots, max(2, len(raw) // 4)))
    score = np.interp(raw[second], raw_knots, score_knots)
    residual = mos[second] - score
    centres, lows, highs = _residual_quantiles(score, residual, coverage)
    every = np.interp(raw, raw_knots, score_knots)
    quantiles = np.maximum.accumulate(np.quantile(every, np.linspace(0, 1, 101)))
    return Calibration(
        raw_knots=_rounded(raw_knots),
        score_knots=_rounded(score_knots),
        interval_knots=_rounded(centres),
        interval_low=_rounded(lows),
        interval_high=_rounded(highs),
        reference_quantiles=_rounded(_strictly_increasing(quantiles)),
        source=source,
    )


def measured_coverage(raw: Floats, mos: Floats, *, folds: int = 5) -> float:
    """Share 0..1 of photos whose MOS lies in the interval of a calibration that was fitted on the other folds.

    Args:
        raw: Raw scores ``(N,)``, N at least twice ``folds``.
        mos: Their MOS on the 0..100 scale ``(N,)``.
        folds: Into how many parts the photos are dealt.
    """
    inside = 0
    for fold in range(folds):
        held = np.arange(len(raw)) % folds == fold
        fitted = fit_calibration(raw[~held], mos[~held], source="all other folds")
        for value, truth in zip(raw[held], mos[held], strict=True):
            _, (low, high), _ = calibrate(float(value), fitted)
            inside += low <= truth <= high
    return inside / len(raw)


def widen_interval(
    calibration: Calibration, raw: Floats, teacher_raw: Floats, *, source: str, coverage: float = 0.95
) -> Calibration:
    """The calibration of a model that imitates another one: the same map, an interval wider by how far off it is.

    MOS - score is (MOS - teacher's score) + (teacher's score - score). The first part's bounds are the teacher's own; those
    of the second are the quantiles of the difference on held-out photos, in windows along the score. Their squares are
    added, as for errors that have nothing to do with each other.

    Args:
        calibration: The teacher's.
        raw: The imitating model's raw scores of held-out photos ``(N,)``.
        teacher_raw: The teacher's of the same photos ``(N,)``.
        source: What those photos are, for the record.
        coverage: Nominal coverage of the interval.
    """
    score, truth = (np.interp(values, calibration.raw_knots, calibration.score_knots) for values in (raw, teacher_raw))
    centres, lows, highs = _residual_quantiles(score, truth - score, coverage)
    knots = np.array(calibration.interval_knots)
    low = -np.hypot(calibration.interval_low, np.minimum(0, np.interp(knots, centres, lows)))
    high = np.hypot(calibration.interval_high, np.maximum(0, np.interp(knots, centres, highs)))
    return calibration.model_copy(
        update={
            "interval_low": _rounded(low),
            "interval_high": _rounded(high),
            "source": f"{calibration.source}; interval widened by the difference from the teacher on {source}",
        }
    )


def hold_elsewhere(
    calibration: Calibration, raw: Floats, mos: Floats, *, source: str, coverage: float = 0.95
) -> Calibration:
    """The same map, its interval nowhere narrower than photos of another database ask for.

    An interval from photos like those trained on is too narrow for others: what the model says of them is further off, and
    other observers used another scale. The wider of both bounds is taken along the score, below and above by itself.

    Args:
        calibration: As fitted on photos like those trained on.
        raw: Raw scores of photos of a database that nothing was trained on ``(N,)``.
        mos: Their MOS, its scale laid on 0..100 ``(N,)``.
        source: What those photos are, for the record.
        coverage: Nominal coverage of the interval.
    """
    score = np.interp(raw, calibration.raw_knots, calibration.score_knots)
    centres, lows, highs = _residual_quantiles(score, mos - score, coverage)
    knots = np.union1d(calibration.interval_knots, centres)
    low = np.minimum(
        np.interp(knots, calibration.interval_knots, calibration.interval_low), np.interp(knots, centres, lows)
    )
    high = np.maximum(
        np.interp(knots, calibration.interval_knots, calibration.interval_high), np.interp(knots, centres, highs)
    )
    return calibration.model_copy(
        update={
            "interval_knots": _rounded(knots),
            "interval_low": _rounded(low),
            "interval_high": _rounded(high),
            "source": f"{calibration.source}; interval no narrower than {source} ask for",
        }
    )


def _monotone_map(raw: Floats, mos: Floats, knots: int) -> tuple[Floats, Floats]:
    """Mean of an isotonic and a linear fit, at equal-count bins, extended at both ends with the linear fit's slope.

    Isotonic regression alone is flat over wide ranges of raw scores; its half of linear fit keeps every difference in
    the raw score visible, and the order of any two photos.
    """
    from scipy.optimize import isotonic_regression  # only fitting needs it; scoring loads faster without

    order = np.argsort(raw)
    slope, offset = np.polyfit(raw, mos, 1)
    slope = max(0.2, float(slope))
    fitted = (isotonic_regression(mos[order]).x + slope * raw[order] + offset) / 2
    bins = np.array_split(np.arange(len(raw)), knots)
    x = np.array([raw[order][part].mean() for part in bins])
    y = np.array([fitted[part].mean() for part in bins])
    reach = 200.0
    x = np.concatenate([[x[0] - reach], x, [x[-1] + reach]])
    y = np.concatenate([[y[0] - slope * reach], y, [y[-1] + slope * reach]])
    return _clip_to_scale(x, y)


def _clip_to_scale(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Cut the map where it leaves 0..100, so that interpolation stays inside the scale."""
    ends = [float(np.interp(bound, y, x)) for bound in (0.0, 100.0)]
    keep = (y > 0) & (y < 100)
    return (
        np.concatenate([[ends[0]], x[keep], [ends[1]]]),
        np.concatenate([[0.0], y[keep], [100.0]]),
    )


def _residual_quantiles(score: Floats, residual: Floats, coverage: float) -> tuple[Floats, Floats, Floats]:
    """Quantiles of the residual in overlapping windows along the score, with the finite-sample conformal correction.

    Where there are too few for that, and the most extreme of them still leaves out too much, the bounds are at least those of
    normal residuals (Student's t). No residual, 0, is always inside: a score lies in its own interval.
    """
    order = np.argsort(score)
    count = len(order)
    window = max(40, count // 3)
    starts: Sequence[int] = sorted(
        {min(int(s), max(0, count - window)) for s in np.linspace(0, max(0, count - window), 5)}
    )
    centres, lows, highs = [], [], []
    for start in starts:
        part = order[start : start + window]
        tail = (1 - coverage) / 2
        level = (1 - tail) * (len(part) + 1) / len(part)
        low = float(np.quantile(residual[part], max(0.0, 1 - level), method="lower"))
        high = float(np.quantile(residual[part], min(1.0, level), method="higher"))
        if level > 1:
            centre, reach = _normal_bounds(residual[part], tail)
            low, high = min(low, centre - reach), max(high, centre + reach)
        centres.append(float(score[part].mean()))
        lows.append(min(0.0, low))
        highs.append(max(0.0, high))
    return np.array(centres), np.array(lows), np.array(highs)


def _normal_bounds(residual: Floats, tail: float) -> tuple[float, float]:
    """Centre and half width of the prediction interval for one more residual, were they normal."""
    from scipy.stats import t  # as above

    count = len(residual)
    reach = float(t.ppf(1 - tail, count - 1)) * float(residual.std(ddof=1)) * (1 + 1 / count) ** 0.5
    return float(residual.mean()), reach


def _strictly_increasing(values: Floats) -> Floats:
    return np.asarray(values + np.arange(len(values)) * 1e-6)


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in values]
