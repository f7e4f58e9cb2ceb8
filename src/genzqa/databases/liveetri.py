"""ETRI-LIVE STSVQ, which others call LIVE-ETRI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from genzqa.databases.database import Database, Sample
from genzqa.databases.labels import find, number, read_csv
from genzqa.databases.raw import in_container


def read(root: Path) -> Iterator[Sample]:
    """``ETRI-LIVE_MOS.csv``, which its authors give for no-reference models (their DMOS is for the others).

    Names are source, lines, frame rate and quantizer: ``Beauty_1080p_120hz_q_27``. The download script puts the raw videos
    into whatever folder it is started in; what they were converted to is read in their place.
    """
    table = find(root, "subjective_scores/ETRI-LIVE_MOS.csv", "ETRI-LIVE_MOS.csv")
    videos = find(root, "distorted", "videos", ".")
    for row in read_csv(table, ("videoName", "MOS", "std")):
        name = row["videoName"]
        yield Sample(
            path=in_container(videos / f"{name}.yuv"),
            mos=number(row["MOS"], table, f"MOS of {name}"),
            std=number(row["std"], table, f"std of {name}"),
            group=name.partition("_")[0],
        )


DATABASE = Database(
    name="liveetri",
    title="ETRI-LIVE STSVQ",
    kind="video",
    mos_range=(0, 100),
    items=437,
    domains=("frame-rate", "streaming"),
    licence="none stated with the scores; citation is asked for",
    citation="D. Y. Lee, S. Paul, C. G. Bampis, H. Ko, J. Kim, S. Y. Jeong, B. Homan, A. C. Bovik, A Subjective and Objective Study "
    "of Space-Time Subsampled Video Quality, IEEE Transactions on Image Processing 31, 2022",
    home="https://github.com/daelee711/ETRI-LIVE_STSVQ",
    layout="subjective_scores/ETRI-LIVE_MOS.csv and the .yuv files, each converted to .mkv or .mp4, beside it, in distorted/ "
    "or in videos/",
    read=read,
)
