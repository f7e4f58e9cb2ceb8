"""CID2013."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Known, Sample
from genzqa.databases.labels import find, number, read_sheet
from genzqa.errors import DataError

SETS = {"I": "IS1", "II": "IS2", "III": "IS3", "IV": "IS4", "V": "IS5", "VI": "IS6"}
NAME = re.compile(r"IS_(?P<set>[IV]+)_C(?P<scene>\d+)_D\d+")


def read(root: Path) -> Iterator[Sample]:
    """Sheet ``CID2013 MOS`` of ``CID2013 data - version 12112014.xlsx``: ``Source_ID`` and ``Realigned MOS``, which lays the
    six image sets on one scale and so takes two photos below 0.

    Photos of one scene in one set show the same, by other cameras; a split keeps them together.
    """
    table = find(root, "CID2013 data - version 12112014.xlsx")
    for row in read_sheet(table, ("Source_ID", "Realigned MOS"), sheet="CID2013 MOS"):
        name = str(row["Source_ID"]).strip()
        parts = NAME.fullmatch(name)
        if parts is None or parts["set"] not in SETS:
            raise DataError(f"Source_ID is {name!r}", subject=str(table))
        scene = f"{SETS[parts['set']]}/co{int(parts['scene'])}"
        yield Sample(
            path=root / scene / f"{name}.jpg",
            mos=number(row["Realigned MOS"], table, f"Realigned MOS of {name}"),
            group=scene,
        )


DATABASE = Database(
    name="cid2013",
    title="CID2013",
    kind="image",
    mos_range=(0, 100),
    items=474,
    domains=("user-generated",),
    licence="freely available to researchers, with citation",
    citation="T. Virtanen, M. Nuutinen, M. Vaahteranoksa, P. Oittinen, J. Häkkinen, CID2013: A Database for Evaluating "
    "No-Reference Image Quality Assessment Algorithms, IEEE Transactions on Image Processing 24(1), 2015",
    home="https://zenodo.org/records/2647033",
    layout="CID2013 data - version 12112014.xlsx and IS1/ to IS6/",
    read=read,
    known=Known(scores=(-10, 100)),  # two are below 0, the least -9.55
)
