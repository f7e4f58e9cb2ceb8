"""What a database of human scores is: its facts, how its folder is read, and the samples that come of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from genzqa.databases.splits import Split, split_by_group
from genzqa.errors import DataError

Kind = Literal["image", "video"]
Domain = Literal["user-generated", "synthetic", "low-light", "frame-rate", "uhd", "streaming", "generated", "gaming"]


@dataclass(frozen=True)
class Sample:
    """One photo or video and what people said of it.

    Attributes:
        path: The file; it need not be there (`genzqa data check` looks).
        mos: In the database's own units and direction.
        std: Standard deviation of the opinions, in the same units, where the database tells it. No figure uses it.
        split: ``"train"``, ``"validation"`` or ``"test"``, where the database has official splits.
        group: What a split must not cut in two: the reference image or source video, else the file's own name.
    """

    path: Path
    mos: float
    std: float | None = None
    split: Split | None = None
    group: str = ""


@dataclass(frozen=True)
class Known:
    """Peculiarities of the files as published, which make a sound copy look faulty; a check remarks on them.

    Attributes:
        scores: Least and greatest score that is let pass, where the published ones run beyond the scale.
        twice: Names of files that the labels list twice.
        withheld: Groups that were rated but are not part of the download.
    """

    scores: tuple[float, float] | None = None
    twice: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class Database:
    """Facts of a database and the reader of its official folder.

    Attributes:
        name: As users write it, such as ``koniq10k``.
        title: As its authors write it.
        kind: Of its items.
        mos_range: Least and greatest score its scale can give, in its own units; None where nobody was asked.
        higher_is_better: False for databases of difference scores (DMOS).
        items: How many the published database has.
        domains: Of the paper's tables.
        licence: In a few words, as far as its authors state one.
        citation: Authors, title, venue, year.
        home: Where to ask for it.
        layout: The files that `read` wants, for messages and documentation.
        range_known: False for a table of one's own, whose range is that of its scores.
        read: From the root folder to its samples; raises `DataError`.
        files: From the root folder to its files, for a database without scores: what a check of it opens.
        known: What a check must not take for a fault.
    """

    name: str
    title: str
    kind: Kind
    mos_range: tuple[float, float] | None
    items: int
    licence: str
    citation: str
    home: str
    layout: str
    read: Callable[[Path], Iterable[Sample]]
    domains: tuple[Domain, ...] = ()
    higher_is_better: bool = True
    range_known: bool = True
    files: Callable[[Path], Iterable[Path]] | None = None
    known: Known = Known()

    def quality(self, mos: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """MOS on 0..100, higher is better: the database's own range laid on it, turned round for DMOS. Not clipped.

        Raises:
            DataError: If it has no human scores.
        """
        if self.mos_range is None:
            raise DataError("carries no human scores", subject=self.name)
        low, high = self.mos_range
        share = (np.asarray(mos, np.float64) - low) / (high - low)
        return 100 * (share if self.higher_is_better else 1 - share)


@dataclass(frozen=True)
class Samples:
    """A database that was read from a folder.

    Attributes:
        database: Its facts.
        root: The folder.
        items: All samples, in the order of the label file.
        has_splits: Whether any of them is marked with a split.
    """

    database: Database
    root: Path
    items: tuple[Sample, ...]
    has_splits: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_splits", any(item.split for item in self.items))

    def split_of(self, item: Sample) -> Split | None:
        """The split that a sample is marked with. Where some are marked, one that is not is for training."""
        return item.split or ("train" if self.has_splits else None)

    def part(self, split: Split, *, seed: int = 0, shares: Sequence[float] = (0.7, 0.1, 0.2)) -> tuple[Sample, ...]:
        """The samples of one split.

        Official splits are kept, and what they leave out is for training. A database without an official validation part gives
        a share of the training part, drawn by ``seed``; one without any split is cut by ``shares`` (train, validation, test).
        Nothing that is drawn cuts a group in two.
        """
        items = self.items
        if not self.has_splits:
            return split_by_group(items, shares, seed)[split]
        official = tuple(item for item in items if self.split_of(item) == split)
        if any(item.split == "validation" for item in items) or split == "test":
            return official
        train = [item for item in items if self.split_of(item) == "train"]
        kept = shares[0] + shares[1]
        return split_by_group(train, (shares[0] / kept, shares[1] / kept, 0.0), seed)[split]

    def quality(self, items: Iterable[Sample]) -> npt.NDArray[np.float64]:
        """`Database.quality` of these samples."""
        return self.database.quality([item.mos for item in items])


def read_database(database: Database, root: Path) -> Samples:
    """Read a database's labels; the files themselves are not opened.

    Raises:
        DataError: If the folder or a label file is missing or is not as the database's authors publish it, or if it has no
            human scores.
    """
    return _read(database, root, database.read)


def read_for_check(database: Database, root: Path) -> Samples:
    """As `read_database`; a database without human scores gives its files, with NaN for a MOS.

    Raises:
        DataError: If the folder or a label file is missing or is not as the database's authors publish it.
    """
    files = database.files
    if files is None:
        return read_database(database, root)
    return _read(database, root, lambda folder: [Sample(path, math.nan) for path in files(folder)])


def _read(database: Database, root: Path, read: Callable[[Path], Iterable[Sample]]) -> Samples:
    if not root.is_dir():
        raise DataError("no such folder", subject=f"{database.name}={root}", hint=f"it should hold {database.layout}")
    try:
        items = tuple(read(root))
    except DataError as error:
        subject = f"{database.name}: {error.subject}" if error.subject else database.name
        hint = error.hint or f"{database.title} should hold {database.layout}"
        raise DataError(error.reason, subject=subject, hint=hint) from error
    if not items:
        raise DataError(
            "no item is listed", subject=f"{database.name}={root}", hint=f"it should hold {database.layout}"
        )
    return Samples(database, root, items)
