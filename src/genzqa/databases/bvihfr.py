"""BVI-HFR."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv
from genzqa.databases.raw import in_container
from genzqa.errors import DataError

NAME = re.compile(r"(?P<source>\w+)-(?P<rate>\d+)(?:fps|Hz)")


def read(root: Path) -> Iterator[Sample]:
    """``BVI-HFR-MOS.csv``, a table of ``file_name``, such as ``flowers-60fps``, and ``MOS``.

    It is the form in which others pass the scores on; the download itself was not at hand. A folder for each frame rate holds
    the raw videos: ``60Hz/flowers-60fps-360-1920x1080.yuv``; what they were converted to is read in their place.
    """
    table = find(root, "BVI-HFR-MOS.csv")
    videos = find(root, "BVI-HFR", "videos", ".")
    for row in read_csv(table, ("file_name", "MOS")):
        found = NAME.fullmatch(row["file_name"])
        if found is None:
            raise DataError(f"file_name is {row['file_name']!r}, not such as flowers-60fps", subject=str(table))
        rate = found["rate"]
        folder = find(videos, f"{rate}Hz", f"{rate}hz", f"{rate}fps", ".")
        yield Sample(
            path=in_container(folder / f"{found['source']}-{rate}fps-360-1920x1080.yuv"),
            mos=number(row["MOS"], table, f"MOS of {row['file_name']}"),
            group=found["source"],
        )


DATABASE = Database(
    name="bvihfr",
    title="BVI-HFR",
    kind="video",
    mos_range=(0, 100),
    items=88,
    domains=("frame-rate",),
    licence="not known here; see its home page",
    citation="A. Mackin, F. Zhang, D. R. Bull, A Study of High Frame Rate Video Formats, IEEE Transactions on Multimedia, 2018",
    home="https://data.bris.ac.uk/data/dataset/k8bfn0qsj9fs1rwnc2x75z6t7",
    layout="BVI-HFR-MOS.csv (file_name, MOS) and 15Hz/, 30Hz/, 60Hz/ and 120Hz/ with the .yuv files, each converted to .mkv or .mp4",
    read=read,
)
