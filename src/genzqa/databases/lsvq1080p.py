"""LSVQ-1080p, the test part of LSVQ with videos of 1080 lines and more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, read_csv
from genzqa.databases.lsvq import CITATION, HOME, LICENCE, sample


def read(root: Path) -> Iterator[Sample]:
    """``labels_test_1080p.csv``: ``mos`` is of the whole video; all of it is for testing."""
    table = find(root, "labels_test_1080p.csv")
    for row in read_csv(table, ("name", "mos")):
        yield sample(root, table, row, "test")


DATABASE = Database(
    name="lsvq1080p",
    title="LSVQ-1080p",
    kind="video",
    mos_range=(0, 100),
    items=3_573,
    domains=("user-generated",),
    licence=LICENCE,
    citation=CITATION,
    home=HOME,
    layout="labels_test_1080p.csv, yfcc-batch1/ to yfcc-batch25/ and ia-batch1/ to ia-batch24/",
    read=read,
)
