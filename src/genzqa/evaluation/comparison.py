"""Models side by side on the databases they were evaluated on, and beside them what others have published of the same."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations

from genzqa.errors import DataError
from genzqa.evaluation.evaluate import Agreement, agreement
from genzqa.evaluation.predictions import Prediction, Predictions, same_items
from genzqa.evaluation.statistics import LEAST, Difference, compare
from genzqa.evaluation.tables import domain_means


@dataclass(frozen=True)
class Pair:
    """Whether two models differ on one database: SRCC of ``one`` less that of ``other`` on the ``items`` both have scored."""

    one: str
    other: str
    database: str
    items: int
    difference: Difference


@dataclass(frozen=True)
class Measured:
    """A model on a database: one row of the table.

    Attributes:
        model: What it is called here.
        predictions: What its figures are of.
        agreed: Its figures.
        against: What it has over the first model, on the items both have scored; None for the first model itself, and where
            those are fewer than `LEAST` or a model's scores are constant.
    """

    model: str
    predictions: Predictions
    agreed: Agreement
    against: Pair | None


@dataclass(frozen=True)
class Published:
    """Figures that another system's authors, or others, have printed. They were not measured here.

    Attributes:
        system: As its source calls it.
        database, split: What they are of, by our names.
        figures: By the names of `statistics.MEASURES`, with the digits they are printed with.
        trained_on: What the system had learned from.
        source: Where they were read.
    """

    system: str
    database: str
    split: str
    figures: Mapping[str, str]
    trained_on: str
    source: str


@dataclass(frozen=True)
class Block:
    """All systems on one split of one database: models in the order they were given, then what is published."""

    database: str
    split: str
    measured: tuple[Measured, ...]
    published: tuple[Published, ...]


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
        results: What each model predicted, by what it is called; the first is what the others are measured against.
        blocks: By database and split.
        pairs: Any two models on any database that both know; not where scores are constant.
        domains: Of each model, `tables.domain_means`.
    """

    results: Mapping[str, Sequence[Predictions]]
    blocks: tuple[Block, ...]
    pairs: tuple[Pair, ...]
    domains: Mapping[str, dict[str, tuple[list[str], float]]]

    @property
    def first(self) -> str:
        """The model that the others are measured against."""
        return next(iter(self.results))


def published_figures(shown: Collection[tuple[str, str]]) -> list[Published]:
    """Figures of other systems, each with its source, as ``published.csv`` has them.

    Args:
        shown: Name and split of the databases they are wanted of; a figure of another split is of other items.
    """
    text = files("genzqa.evaluation").joinpath("published.csv").read_text("utf-8")
    found: dict[tuple[str, str, str, str, str], dict[str, str]] = {}
    for row in csv.DictReader(text.splitlines()):
        if (row["database"], row["split"]) in shown:
            key = (row["system"], row["database"], row["split"], row["trained_on"], row["source"])
            found.setdefault(key, {})[row["measure"]] = row["value"]
    return [Published(system, database, split, figures, trained_on, source)
            for (system, database, split, trained_on, source), figures in found.items()]  # fmt: skip


def compare_models(results: Mapping[str, Sequence[Predictions]], *, seed: int = 0) -> Comparison:
    """Measure some models and set them side by side.

    Args:
        results: What to call each model, and what it predicted.
        seed: Of the bootstrap.

    Raises:
        DataError: If two predictions of one model are of one database.
    """
    by_name = {name: _by_database(name, found) for name, found in results.items()}
    measured = {name: {one.database: agreement(one, seed=seed) for one in found} for name, found in results.items()}
    pairs = _pairs(by_name, seed)
    first = next(iter(results), "")
    against = {(pair.other, pair.database): _turned(pair) for pair in pairs if pair.one == first}
    places = sorted({(one.database, one.split) for found in results.values() for one in found})
    published = published_figures(places)
    blocks = []
    for database, split in places:
        ours = [Measured(name, one, measured[name][database], against.get((name, database)))
                for name, found in results.items() for one in found if (one.database, one.split) == (database, split)]  # fmt: skip
        others = [row for row in published if (row.database, row.split) == (database, split)]
        blocks.append(Block(database, split, tuple(ours), tuple(others)))
    domains = {name: domain_means([(one, measured[name][one.database]) for one in found])
               for name, found in results.items()}  # fmt: skip
    return Comparison(results, tuple(blocks), tuple(pairs), domains)


def _by_database(model: str, found: Sequence[Predictions]) -> dict[str, Predictions]:
    by_name = {one.database: one for one in found}
    if len(by_name) < len(found):
        raise DataError("two predictions are of one database", subject=model)
    return by_name


def _pairs(by_name: Mapping[str, Mapping[str, Predictions]], seed: int) -> list[Pair]:
    pairs = []
    for one, other in combinations(by_name, 2):
        for database in sorted(by_name[one].keys() & by_name[other].keys()):
            mine, theirs = same_items(by_name[one][database], by_name[other][database])
            if len(mine) >= LEAST:
                groups = [row.group or row.path for row in mine]
                quality = [row.quality for row in mine]
                difference = compare(_scores(mine), _scores(theirs), quality, groups=groups, seed=seed)
                if math.isfinite(difference.value):
                    pairs.append(Pair(one, other, database, len(mine), difference))
    return pairs


def _scores(rows: Sequence[Prediction]) -> list[float]:
    return [row.score for row in rows if row.score is not None]


def _turned(pair: Pair) -> Pair:
    """The same, seen from the other model; the p-value is two-sided."""
    seen = pair.difference
    return Pair(pair.other, pair.one, pair.database, pair.items, Difference(-seen.value, -seen.high, -seen.low, seen.p))
