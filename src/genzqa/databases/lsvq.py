"""LSVQ, its training and test parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import Row, find, number, read_csv
from genzqa.databases.splits import Split
from genzqa.errors import DataError

SETS: dict[str, Split] = {"false": "train", "true": "test"}

LICENCE = "free for any use with the copyright notice of the University of Texas at Austin and citation"
CITATION = (
    "Z. Ying, M. Mandal, D. Ghadiyaram, A. C. Bovik, Patch-VQ: 'Patching Up' the Video Quality Problem, CVPR, 2021"
)
HOME = "https://github.com/baidut/PatchVQ"


def read(root: Path) -> Iterator[Sample]:
    """``labels_train_test.csv``: ``mos`` is of the whole video, ``is_test`` the official split."""
    table = find(root, "labels_train_test.csv")
    for row in read_csv(table, ("name", "mos", "is_test")):
        if row["is_test"].lower() not in SETS:
            raise DataError(f"{row['name']}: is_test is {row['is_test']!r}", subject=str(table))
        yield sample(root, table, row, SETS[row["is_test"].lower()])


def sample(root: Path, table: Path, row: Row, split: Split) -> Sample:
    """A row of either table of labels; names are folder and stem, such as ``yfcc-batch1/747``."""
    name = row["name"].removesuffix(".mp4")
    return Sample(path=root / f"{name}.mp4", mos=number(row["mos"], table, f"mos of {name}"), split=split)


DATABASE = Database(
    name="lsvq",
    title="LSVQ",
    kind="video",
    mos_range=(0, 100),
    items=35_499,
    domains=("user-generated",),
    licence=LICENCE,
    citation=CITATION,
    home=HOME,
    layout="labels_train_test.csv, yfcc-batch1/ to yfcc-batch25/ and ia-batch1/ to ia-batch24/",
    read=read,
)
