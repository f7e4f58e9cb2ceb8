"""AVT-VQDB-UHD-1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Known, Sample
from genzqa.databases.labels import find, number, read_csv

WITHHELD = (
    "american_football_harmonic", "surfing_sony_8bit", "LeagueOfLegends-1", "Moment_of_Intensity",
    "air_acrobatics_harmonic_0_cropped", "monkeys_harmonic_0_cropped", "venice_harmonic_2_cropped",
)  # fmt: skip
"""Sources, without ``_8s``, that are in ``mos_ci.csv`` but not in the lists of the download, ``test_1.json`` to ``test_4.json``."""

TESTS = ("test_1", "test_2", "test_3", "test_4")


def read(root: Path) -> Iterator[Sample]:
    """``mos_ci.csv`` of each of the four tests, with the videos in its ``segments``.

    Some sources may not be shared, so 324 of the rated videos are not in the download. The second and third test show 8 s of
    some sources of the first; a source and its 8 s are one group.
    """
    for test in TESTS:
        table = find(root, f"{test}/mos_ci.csv")
        for row in read_csv(table, ("src", "video_name", "MOS")):
            yield Sample(
                path=root / test / "segments" / row["video_name"],
                mos=number(row["MOS"], table, f"MOS of {row['video_name']}"),
                group=row["src"].removesuffix("_8s"),
            )


DATABASE = Database(
    name="avtvqdbuhd1",
    title="AVT-VQDB-UHD-1",
    kind="video",
    mos_range=(1, 5),
    items=756,
    domains=("uhd", "streaming"),
    licence="the authors' own videos under CC BY-NC 4.0, the others under their sources' licences; code under GPL 3.0",
    citation="R. R. Ramachandra Rao, S. Göring, W. Robitza, B. Feiten, A. Raake, AVT-VQDB-UHD-1: A Large Scale Video Quality "
    "Database for UHD-1, IEEE ISM, 2019",
    home="https://github.com/Telecommunication-Telemedia-Assessment/AVT-VQDB-UHD-1",
    layout="test_1/ to test_4/, each with mos_ci.csv and segments/",
    read=read,
    known=Known(withheld=WITHHELD),
)
