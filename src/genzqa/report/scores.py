"""The page about a folder of scores: one HTML file that needs nothing but itself, however many rows there are."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from genzqa.batch.decoding import opened
from genzqa.batch.item import Item
from genzqa.batch.local import place_of
from genzqa.batch.parts import find_parts, read_batches
from genzqa.errors import DataError, GenzqaError
from genzqa.limits import DEFAULT_LIMITS
from genzqa.report.page import environment, page_part
from genzqa.report.pictures import Picture, read_picture
from genzqa.result import GRADES
from genzqa.text import clock_time

SHOWN = 24  # of the worst, and of the best
_EXAMPLES = 10  # of each kind of error
_BINS = 20
_WIDE, _NARROW = (1040, 260), (328, 220)  # plots in CSS pixels; the narrow one is for phones
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_COLUMNS = ("input", "kind", "score", "interval_low", "interval_high", "grade", "notes", "worst", "error", "model", "base",
            "weights_sha256", "base_sha256", "preprocessing", "timesteps", "seed", "backend", "precision", "version")  # fmt: skip
_FACTS = _COLUMNS[-10:]


@dataclass(frozen=True)
class _Shown:
    """One of the worst or best, with its picture if the file is still there."""

    row: dict[str, Any]
    picture: Picture | None

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePath(self.row["input"]).name or self.row["input"]

    @property
    def moment(self) -> str:
        """Of a video, its worst frame in words."""
        worst = self.row["worst"]
        return f"worst moment {worst['score']:.1f} at {clock_time(worst['time'])}" if worst else ""


@dataclass
class _Errors:
    """One kind of error: how many, and the first few."""

    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


class _Totals:
    """What is kept of all rows while they pass: a score each, and a few rows."""

    def __init__(self) -> None:
        self.scores: list[np.ndarray[Any, np.dtype[np.float32]]] = []
        self.kinds: Counter[str] = Counter()
        self.grades: Counter[str] = Counter()
        self.errors: dict[str, _Errors] = {}
        self.made_by: Counter[tuple[tuple[str, str], ...]] = Counter()
        self.worst: list[dict[str, Any]] = []
        self.best: list[dict[str, Any]] = []

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take in some rows."""
        scored = [row for row in rows if row["error"] is None]
        self.scores.append(np.array([row["score"] for row in scored], np.float32))
        self.kinds.update(row["kind"] for row in scored)
        self.grades.update(row["grade"] for row in scored)
        self.worst = heapq.nsmallest(SHOWN, [*self.worst, *scored], key=_rank)
        self.best = heapq.nlargest(SHOWN, [*self.best, *scored], key=_rank)
        for row in rows:
            # videos may have timesteps of their own, which does not make them another model's
            facts = {name: str(row[name]) for name in _FACTS
                     if row[name] is not None and (name != "timesteps" or row["kind"] == "image")}  # fmt: skip
            self.made_by[tuple(facts.items())] += 1
            if row["error"] is not None:
                kind = self.errors.setdefault(row["error"]["code"], _Errors())
                kind.count += 1
                if len(kind.examples) < _EXAMPLES:
                    kind.examples.append(row)


def _rank(row: dict[str, Any]) -> tuple[float, str]:
    return row["score"], row["input"]


def scores_page(folder: Path) -> str:
    """The page for what `genzqa batch` has written.

    Photos are read again for their thumbnails; relative paths are looked for from the current folder.

    Raises:
        ConfigError: If the libraries that make the page are not installed, or a file of scores is damaged.
        DataError: If there are no scores.
    """
    from markupsafe import Markup

    from genzqa.report.plots import histogram_plot

    made = environment()
    totals = _Totals()
    for part in find_parts(folder):
        for batch in read_batches(part, _COLUMNS):
            totals.add(batch.to_pylist())
    scores = np.concatenate(totals.scores) if totals.scores else np.empty(0, np.float32)
    failed = sum(kind.count for kind in totals.errors.values())
    if not len(scores) + failed:
        raise DataError("holds no scores", subject=str(folder), hint="make them with genzqa batch")
    counts = np.histogram(scores, _BINS, (0, 100))[0].tolist()
    label = f"Histogram of {len(scores)} scores; the fullest of {_BINS} bars has {max(counts)}."
    plots = {name: Markup(histogram_plot(counts, width=width, height=height, ids=f"h-{name}-", label=label))
             for name, (width, height) in {"wide": _WIDE, "narrow": _NARROW}.items()}  # fmt: skip
    return made.from_string(page_part("scores.html.j2")).render(
        policy=_POLICY,
        style=Markup(page_part("report.css")),
        scored=len(scores),
        failed=failed,
        kinds=totals.kinds,
        quantiles=np.percentile(scores, (5, 50, 95)).tolist() if len(scores) else [],
        grades=GRADES,
        per_grade=totals.grades,
        plots=plots,
        worst=_shown(totals.worst),
        best=_shown(totals.best) if len(scores) > SHOWN else [],
        errors=sorted(totals.errors.items(), key=lambda kind: (-kind[1].count, kind[0])),
        made_by=totals.made_by.most_common(),
    )


def _shown(rows: Iterable[dict[str, Any]]) -> list[_Shown]:
    return [_Shown(row, _picture(row["input"])) for row in rows]


def _picture(name: str) -> Picture | None:
    try:
        with opened(place_of(Item(name)), DEFAULT_LIMITS) as source:
            return read_picture(source, None, DEFAULT_LIMITS)
    except GenzqaError:  # it went away, or its object store cannot be reached from here
        return None
